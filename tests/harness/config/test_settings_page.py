"""docs/SETTINGS.md is what the dataclasses say."""

from harness.config import settings_page, trial_config
from tests.commands import ROOT


def test_the_page_is_that_of_the_dataclasses():
    assert (ROOT / "docs/SETTINGS.md").read_text() == settings_page.page()


def test_every_setting_that_is_not_retired_is_there():
    page = settings_page.page()
    names = set(trial_config.leaves(trial_config.to_dict(trial_config.resolve())))
    missing = {name for name in names if f"| `{name}` |" not in page}
    retired = {
        *(f"policy.diffusion.{name}" for name in ("schedule", "prediction", "eta", "network")),
        *(f"policy.encoder.{name}" for name in ("learn_temperature", "coordinates")),
        *(f"policy.loss.{name}" for name in ("penalty_norm", "gradient_share")),
        "policy.energy.spectral_norm",
    }
    assert missing == retired

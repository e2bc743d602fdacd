"""A policy that an earlier version saved, before most settings were there, is still the same."""

import json
from pathlib import Path

import torch

from ibc.policies.base import read_config
from ibc.policies.factory import load_policy

SAVED = Path(__file__).resolve().parents[2] / "golden" / "policy_1"


def test_a_policy_of_the_first_format_loads_and_predicts_as_it_did():
    policy = load_policy(SAVED)
    then = json.loads((SAVED / "prediction.json").read_text())
    generator = torch.Generator().manual_seed(then["generator_seed"])
    actions = policy.predict_action({"state": torch.tensor(then["state"])}, [generator])
    torch.testing.assert_close(actions, torch.tensor(then["actions"]), atol=0.01, rtol=0)


def test_settings_that_the_file_lacks_are_what_was_done_then():
    config = read_config(SAVED)
    assert config.energy.conditionals == "joint"
    assert config.inference.clip
    assert config.inference.warm_start == 0.0
    assert config.loss.gradient_penalty == 0.0
    assert config.execute is None
    assert config.negatives.scales == (0.2, 0.05)

"""Encoders and energies as a search space gives them: strict, by dotted names, and back."""

import json

import pytest

from harness.config import trial_config
from harness.config.trial_config import ConfigError

SETTINGS = {
    "policy.obs_mode": "image",
    "policy.encoder.trunk": "residual",
    "policy.encoder.channels": [16, 32, 32],
    "policy.encoder.reduce_maps": 16,
    "policy.encoder.reduce_relu": True,
    "policy.encoder.downsample": "none",
    "policy.encoder.norm": "none",
    "policy.encoder.stacking": "recurrent",
    "policy.encoder.low_dim": "plain",
    "policy.energy.fusion": "concat",
    "policy.energy.head": "resnet",
    "policy.energy.depth": 8,
}


def test_every_setting_is_read_strictly_and_comes_back():
    given = trial_config.resolve(SETTINGS)
    again = trial_config.from_dict(json.loads(json.dumps(trial_config.to_dict(given))))
    assert again == given
    assert trial_config.config_hash(again) == trial_config.config_hash(given)
    leaves = trial_config.leaves(trial_config.to_dict(given))
    assert {key: leaves[key] for key in SETTINGS} == SETTINGS


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"policy.encoder.reduce_relu": "yes"}, "must be a valid boolean, given 'yes'"),
        ({"policy.encoder.coordinates": True}, "is retired and must be false, got True"),
        ({"policy.encoder.stacking": "mean"}, "'attention'"),
        ({"policy.encoder.trunk": "resnet18"}, 'needs encoder.trunk "conv" or "residual"'),
        ({"policy.obs_mode": "state", "policy.encoder.stacking": "channels"}, "needs policy.obs"),
        ({"policy.energy.fusion": "product"}, 'needs energy.fusion "concat"'),
        ({"policy.encoder.coordinate": True}, "did you mean policy.encoder.coordinates?"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, rule):
    with pytest.raises(ConfigError, match=rule.replace("?", "[?]")):
        trial_config.resolve(trial_config.flatten({**SETTINGS, **changes}))

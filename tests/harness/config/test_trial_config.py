import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import seeds as envs_seeds
from envs.physics.geometry import SUCCESS_COVERAGE
from harness.config import protocol, trial_config
from harness.config.trial_config import ConfigError, TrialConfig
from harness.core import seeds


def test_a_config_survives_json_and_its_hash_with_it():
    changed = trial_config.resolve(
        {"policy.encoder.channels": [16, 32], "policy.encoder.reduce_maps": None, "train.steps": 7}
    )
    again = trial_config.from_dict(json.loads(json.dumps(trial_config.to_dict(changed))))
    assert again == changed
    assert again.policy.encoder.channels == (16, 32)
    assert trial_config.config_hash(again) == trial_config.config_hash(changed)
    assert trial_config.config_hash(changed) != trial_config.config_hash(TrialConfig())
    assert len(trial_config.config_hash(changed)) == 12


def test_whole_numbers_for_real_settings_hash_like_the_real_number():
    one, real = (
        trial_config.resolve({"train.grad_clip": 1}),
        trial_config.resolve({"train.grad_clip": 1.0}),
    )
    assert trial_config.config_hash(one) == trial_config.config_hash(real)


@given(st.sampled_from(sorted(trial_config.DEFAULTS)))
def test_every_leaf_resolves_to_itself(key):
    given = trial_config.resolve({key: trial_config.DEFAULTS[key]})
    flat = trial_config.leaves(trial_config.to_dict(given))
    assert flat == dict(trial_config.DEFAULTS)


def test_every_leaf_of_every_part_is_named():
    def count(value) -> int:
        if dataclasses.is_dataclass(value):
            return sum(count(getattr(value, f.name)) for f in dataclasses.fields(value))
        return 1

    assert len(trial_config.DEFAULTS) == count(TrialConfig())
    assert {"policy", "policy.encoder", "train", "select", "split"} <= trial_config.SECTIONS


def test_later_layers_win():
    resolved = trial_config.resolve({"train.steps": 1, "train.batch_size": 2}, {"train.steps": 3})
    assert (resolved.train.steps, resolved.train.batch_size) == (3, 2)


def test_nested_and_dotted_keys_mean_the_same():
    nested = trial_config.flatten({"policy": {"encoder.crop": None, "energy": {"width": 8}}})
    assert nested == {"policy.encoder.crop": None, "policy.energy.width": 8}


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        ({"policy.energy.widht": 8}, "policy.energy.widht", "did you mean policy.energy.width?"),
        ({"reduce_maps": 8}, "reduce_maps", "did you mean policy.encoder.reduce_maps?"),
        ({"lr": 1e-3}, "lr", "did you mean train.learning_rate?"),
        ({"train": {"lr": 1e-3}}, "train.lr", "did you mean train.learning_rate?"),
        ({"batch": 8}, "batch", "did you mean train.batch_size?"),
        ({"train.seed": 1}, "train.seed", "did you mean train_seeds, at the top of the file?"),
        ({"widht": 8}, "widht", "did you mean policy.energy.width or policy.diffusion.width?"),
        ({"policy": {"with": 8}}, "policy.with", "did you mean policy.energy.width?"),
        ({"stepps": 8}, "stepps", "did you mean train.steps?"),
        ({"negatives": 8}, "negatives", "did you mean policy.negatives?"),
        ({"sigma": 8}, "sigma", "must be a known setting; its section must be one of policy,"),
        ({"xyzzy": 8}, "xyzzy", "must be a known setting; its section must be one of policy,"),
        ({"policy": 3}, "policy", "must be a mapping of settings, given 3"),
        ({"train.steps": {"a": 1}}, "train.steps", "must be one value, given a mapping"),
        ({"train.steps": 1, "train": {"steps": 2}}, "train.steps", "given nested and dotted"),
    ],
)
def test_keys_that_are_no_settings(overrides, key, message):
    with pytest.raises(ConfigError) as caught:
        trial_config.flatten(overrides)
    assert caught.value.key == key
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.steps", "10", "train.steps must be a valid integer, given '10'"),
        ("train.steps", 10.0, "train.steps must be a valid integer, given 10.0"),
        ("train.steps", True, "given True"),
        ("train.steps", -3, "train.steps must be a whole number of at least 1, got -3"),
        ("train.learning_rate", "yes", "train.learning_rate must be a valid number, given 'yes'"),
        ("train.schedule", "no", "must be 'cosine', 'constant' or 'exponential', given 'no'"),
        ("policy.encoder.learn_temperature", "on", "must be a valid boolean, given 'on'"),
        ("policy.encoder.channels", [8, "x"], "must be a valid integer, given 'x'"),
        ("select.seeds", 100_001, "at most 100000, got 100001"),
    ],
)
def test_values_of_the_wrong_type_or_size(key, value, message):
    with pytest.raises(ConfigError) as caught:
        trial_config.resolve({key: value})
    assert message in str(caught.value)


def test_rules_between_settings_name_their_section():
    with pytest.raises(ConfigError, match=r'"window" needs action.frame "agent"') as caught:
        trial_config.resolve({"policy.action.frame": "board", "policy.action.bounds": "window"})
    assert caught.value.key == "policy.action"


def test_ids_name_a_config_and_a_seed():
    id_ = trial_config.trial_id("0123456789ab", 12)
    assert trial_config.parse_trial_id(id_) == ("0123456789ab", 12)
    assert trial_config.parse_trial_id("a-stranger")[1] is None


def test_success_and_seeds_are_those_of_the_environment():
    assert protocol.THRESHOLDS[-1] == SUCCESS_COVERAGE
    assert seeds.PLANNED_SEEDS == envs_seeds.PLANNED
    assert envs_seeds.RESERVED[:2] == (seeds.DEMONSTRATION_SEEDS, seeds.PAPER_SEEDS)
    assert range(seeds.SELECT_SEEDS.start, seeds.REPORT_SEEDS.stop) == envs_seeds.EVALUATED

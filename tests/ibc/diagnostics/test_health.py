"""Failure modes made on purpose are named; a healthy run has no finding."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the cases are a benchmark's too

from benchmarks.health_cases import (
    CASES,
    FromTheOldest,
    Run,
    dead_layer,
    names,
    repeated_action,
    short_training,
    small,
    swallowed_save,
)
from envs.physics.geometry import keypoints
from envs.rendering.observations import render_observations
from ibc.config.presets import PRESETS
from ibc.config.training import SplitConfig
from ibc.data.demos import Split, read, split
from ibc.data.windows import Windows
from ibc.diagnostics.health import diagnose
from ibc.diagnostics.probes import unread_widths
from ibc.encoders.backbones import ResidualBlock

SPLIT = Split(tuple(range(10)), (10, 11))


@pytest.fixture(scope="module")
def planned_demos(tmp_path_factory):
    """The built-in demonstrations, their images drawn once."""
    images = tmp_path_factory.mktemp("images") / "images.npy"
    path = Path(__file__).resolve().parents[3] / "data/expert.zarr"
    return read(path, images=images, render=render_observations, keypoints=keypoints)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ibc", "images", *PRESETS])
def test_a_healthy_run_of_every_preset_has_no_finding(planned_demos, recipe):
    assert names(planned_demos, small(recipe), None, split(planned_demos, SplitConfig())) == []


@pytest.mark.parametrize(
    "kind", ["ibc", "diffusion", *(pytest.param(k, marks=pytest.mark.slow) for k in ("mse", "mdn"))]
)
def test_a_healthy_run_has_no_finding(toy_demos, kind):
    assert names(toy_demos, small(kind), None, SPLIT) == []


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.applies(small("ibc"))], ids=lambda c: c.name
)
def test_every_entry_of_the_diary_is_named(toy_demos, case):
    found = names(toy_demos, small("ibc"), case, SPLIT)
    assert case.name in found
    # No other entry is suspected, but for what the same numbers show as well.
    others = {other.name for other in CASES} - {case.name, "the sampler's space is not the model's"}
    assert others.isdisjoint(found)


@pytest.mark.parametrize(
    "case", [c for c in CASES if not c.trained and c.applies(small("images"))], ids=lambda c: c.name
)
def test_wrong_wiring_is_named_for_images(toy_demos, case):
    assert names(toy_demos, small("images"), case, SPLIT) == [case.name]


def test_every_finding_says_what_mends_it(toy_demos):
    run = Run(toy_demos, small("mse"), short_training(small("mse")), SPLIT)
    with dead_layer(run):
        found = {finding.name: finding for finding in run.findings()}
    assert "encoder.layers.0.weight" in found["dead layers"].evidence
    assert "not connected to the loss" in found["dead layers"].mend


def test_a_checkpoint_that_was_not_replaced_is_noticed(toy_demos):
    (finding,) = swallowed_save(toy_demos, small("mse"))
    assert finding.name == "the checkpoint is not what was trained"
    assert "swallowed exceptions" in finding.mend


def test_a_residual_block_whose_first_convolution_is_bypassed_has_a_dead_layer(
    toy_demos, monkeypatch
):
    """As kevinzakka's: the second convolution is fed by the block's input."""

    def bypassed(self, x):
        return (self.norm2(self.conv2(x)) + self.shortcut(x)).relu_()

    monkeypatch.setattr(ResidualBlock, "forward", bypassed)
    policy = small("kevinzakka")
    policy = dataclasses.replace(
        policy, encoder=dataclasses.replace(policy.encoder, channels=(4, 8), downsample="stride")
    )
    train = dataclasses.replace(short_training(policy), steps=4, epoch_steps=2, batch_size=8)
    assert "dead layers" in {f.name for f in Run(toy_demos, policy, train, SPLIT).findings()}


def test_images_in_0_1_are_refused_before_anything_is_predicted(toy_demos):
    policy = small("images")
    trainer = Run(toy_demos, policy, short_training(policy), SPLIT).trainer()
    obs = {k: torch.from_numpy(v) for k, v in trainer.train.batch([0]).items()}
    with pytest.raises(ValueError, match="images must be uint8"):
        trainer.policy.predict_action(
            {**obs, "image": obs["image"] / 255.0}, [torch.Generator().manual_seed(0)]
        )


def test_windows_that_are_right_are_not_suspected_at_any_horizon(toy_demos):
    """Chunks as long as the observations are no issue by themselves."""
    policy = dataclasses.replace(small("mse"), obs_horizon=4, action_horizon=4)
    run = Run(toy_demos, policy, short_training(policy), SPLIT)
    assert run.findings(trained=False) == []
    run.windows = FromTheOldest
    (finding,) = run.findings(trained=False)
    assert finding.name == "the action of a past frame is executed"
    with repeated_action(Run(toy_demos, policy, short_training(policy), SPLIT)) as _:
        found = Run(toy_demos, policy, short_training(policy), SPLIT).findings(trained=False)
    assert [f.name for f in found] == ["one action is repeated over the chunk"]


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        ({"val_past_error_px": 2.0}, "the action of a past frame is executed"),
        ({"val_chunk_ratio": 0.01}, "one action is repeated over the chunk"),
        ({"share_at_bounds": 0.5}, "predictions at the bounds"),
        ({"share_outside_bounds": 0.5}, "the sampler's space is not the model's"),
        ({"val_spread_ratio": 0.01}, "predictions are stuck"),
        ({"train_clipped_share": 0.1}, "demonstrated actions outside the bounds"),
        ({"train_loss_ratio": 0.999}, "nothing is learned"),
        ({"val_action_error_px": 20.0}, "loss falls, action error does not"),
        (
            {"val_action_error_px": 20.0, "finest_error_px": 60.0},
            "too few negatives for the tolerance",
        ),
        (
            {"val_predicted_x_px": 12.0, "val_predicted_y_px": 25.0, "val_place_ratio": 0.1},
            "predictions are stuck in a corner",
        ),
    ],
)
def test_numbers_have_names(seen, name):
    healthy = {
        "train_loss_ratio": 0.5,
        "val_loss_ratio": 0.5,
        "val_action_error_px": 10.0,
        "val_readout_error_px": 20.0,
        "trivial_action_error_px": 15.0,
        "val_past_error_px": 18.0,
        "trivial_past_error_px": 17.0,
        "val_place_error_px": 300.0,
        "val_place_ratio": 1.0,
        "val_predicted_x_px": 250.0,
        "val_predicted_y_px": 12.0,
    }
    facts = {"kind": "ibc"}
    assert diagnose([healthy, healthy], facts) == []
    ill = {**healthy, **seen}
    assert [f.name for f in diagnose([healthy, healthy, ill, ill], facts)] == [name]


def epochs(*, steps=500, **numbers):
    """A healthy training, with lists of numbers by epoch put in."""
    healthy = {
        "train_loss_ratio": 0.3,
        "val_loss_ratio": 0.3,
        "train_loss": 1.8,
        "val_loss": 2.1,
        "val_action_error_px": 9.0,
        "val_readout_error_px": 9.0,
        "trivial_action_error_px": 18.0,
        "val_copied_motion": 0.28,
    }
    count = len(next(iter(numbers.values())))
    return [
        {**healthy, "step": (k + 1) * steps, **{name: v[k] for name, v in numbers.items()}}
        for k in range(count)
    ]


def found_in(history, **facts):
    return [finding.name for finding in diagnose(history, {"kind": "ibc", **facts})]


def test_copied_motion_is_named_once_the_policy_knows_more_than_it():
    assert found_in(epochs(val_copied_motion=[0.28] * 24)) == []
    assert found_in(epochs(val_copied_motion=[0.73] * 24)) == ["copies its own motion"]
    assert found_in(epochs(val_copied_motion=[0.9, 0.8])) == []


def test_overfitting_is_a_loss_that_rises_again_far_above_that_of_training():
    rises = [2.6, 2.2, 2.3, 2.6, 3.0]
    assert found_in(epochs(val_loss=rises, train_loss=[2.2, 1.6, 1.3, 1.1, 0.9])) == ["overfits"]
    assert found_in(epochs(val_loss=rises, train_loss=[2.8, 2.7, 2.6, 2.6, 2.5])) == []
    assert found_in(epochs(val_loss=[2.4, 2.2, 2.1, 2.15, 2.2])) == []
    assert found_in(epochs(val_loss=[-1.0, -2.0, -1.5, -1.0]), kind="mdn") == []


def test_a_small_loss_beside_a_learned_proposal_is_no_issue():
    """Independent deviations of a chunk's actions are told from demonstrations at a glance."""
    numbers = {"train_loss_ratio": [0.001] * 4, "val_loss_ratio": [0.002] * 4}
    small = epochs(**numbers, val_loss=[0.01, 0.008, 0.02, 0.046], train_loss=[0.03] * 4)
    assert set(found_in(small)) == {"loss is zero", "overfits"}
    assert found_in([{**metrics, "train_proposal_loss": -1.7} for metrics in small]) == []


def test_a_policy_that_stands_still_is_named():
    history = epochs(val_loss=[2.1] * 4)
    assert found_in(history, idle_share=0.12) == []
    assert found_in(history, idle_share=0.72) == ["stands still"]


def test_a_loss_that_prefers_the_worse_checkpoint_is_named():
    history = epochs(val_loss=[2.4, 2.0, 2.1, 2.2])
    scores = {500: 0.5, 1000: 0.62, 1500: 0.8, 2000: 0.9}
    assert found_in(history, select_scores=scores) == ["loss and rollouts disagree"]
    assert found_in(history, select_scores={**scores, 1000: 0.85}) == []
    assert found_in(history, select_scores={1000: 0.5, 2000: 0.9}) == []


def test_far_too_few_negatives_are_named_after_long_training_too():
    errors = {"val_action_error_px": [12.0] * 24, "val_readout_error_px": [12.0] * 24}
    found = found_in(epochs(finest_error_px=[181.0] * 24, **errors))
    assert found == ["too few negatives for the tolerance"]
    assert found_in(epochs(finest_error_px=[35.0] * 24, **errors)) == []
    assert found_in(epochs(finest_error_px=[4.4] * 24)) == []


def test_an_error_that_still_falls_is_no_issue():
    epoch = {"train_loss_ratio": 0.5, "trivial_action_error_px": 15.0}
    falling = [
        {**epoch, "val_action_error_px": error, "val_readout_error_px": error}
        for error in (40.0, 30.0, 25.0, 20.0)
    ]
    assert diagnose(falling, {"kind": "ibc"}) == []
    assert diagnose(falling[:2], {"kind": "ibc"}) == []
    (finding,) = diagnose([*falling, *[falling[-1]] * 4], {"kind": "ibc"})
    assert finding.name == "loss falls, action error does not"
    hopeless = [{**m, "finest_error_px": 90.0} for m in falling[:2]]
    (finding,) = diagnose(hopeless, {"kind": "ibc"})
    assert finding.name == "too few negatives for the tolerance"
    assert "raise negatives.count 144 times" in finding.mend


def test_a_search_that_may_leave_the_bounds_is_not_blamed_for_it():
    seen = {"train_loss_ratio": 0.5, "share_outside_bounds": 0.5}
    assert diagnose([seen, seen], {"kind": "ibc", "unclipped": True}) == []


def test_no_history_no_finding():
    assert diagnose([], {"kind": "ibc"}) == []


@pytest.mark.parametrize("kind", ["ibc", "mse", "mdn", "diffusion", "images", "kevinzakka"])
def test_every_width_is_read(kind):
    assert list(unread_widths(small(kind))) == []
    order = dataclasses.replace(small(kind).encoder, stacking="recurrent")
    assert list(unread_widths(dataclasses.replace(small(kind), obs_horizon=3, encoder=order))) == []


def test_the_shared_windows_are_the_plain_ones(toy_demos):
    """The cases' own window classes differ in what they say they do, and in nothing else."""
    right, wrong = (
        kind(toy_demos, range(3), "keypoints", 2, 1).batch([5, 40])
        for kind in (Windows, FromTheOldest)
    )
    assert (right["keypoints"] == wrong["keypoints"]).all()
    assert not (right["action"] == wrong["action"]).all()

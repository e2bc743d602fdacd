"""The explicit policies: every mode and horizon, rows by themselves, two-valued targets."""

import dataclasses

import numpy as np
import pytest
import torch

from ibc.config.action import ActionConfig
from ibc.config.encoder import EncoderConfig
from ibc.config.explicit import DiffusionConfig, MDNConfig
from ibc.config.implicit import EnergyConfig
from ibc.config.policy import PolicyConfig, config_from_plain
from ibc.config.training import TrainConfig
from ibc.data.demos import Demos
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer, load_policy
from ibc.training.trainer import Trainer

EXPLICIT = ("mse", "mdn", "diffusion")
SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}
SMALL = PolicyConfig(
    encoder=EncoderConfig(
        channels=(8, 8), reduce_maps=4, features=8, state_width=16, state_depth=1
    ),
    action=ActionConfig(bounds="steps"),
    energy=EnergyConfig(width=16, depth=2),
    mdn=MDNConfig(components=3),
    diffusion=DiffusionConfig(train_steps=20, inference_steps=4, width=16, depth=2),
)


def make(demos, **changes):
    config = dataclasses.replace(SMALL, **changes)
    windows = Windows(demos, range(10), config.obs_mode, config.obs_horizon, config.action_horizon)
    return build_policy(config, fit_normalizer(config, windows), generator_seed=0), windows


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("kind", EXPLICIT)
@pytest.mark.parametrize(
    ("obs_mode", "obs_horizon", "action_horizon"),
    [("state", 1, 1), ("state", 8, 16), ("keypoints", 2, 8), ("keypoints", 4, 1), ("image", 2, 4)],
)
def test_trains_and_predicts_in_every_mode(
    toy_demos, tmp_path, kind, obs_mode, obs_horizon, action_horizon
):
    policy, windows = make(
        toy_demos,
        kind=kind,
        obs_mode=obs_mode,
        obs_horizon=obs_horizon,
        action_horizon=action_horizon,
    )
    train = TrainConfig(
        steps=3, epoch_steps=3, batch_size=16, micro_batch=16, val_windows=8, precision="fp32"
    )
    run = Trainer(policy, windows, windows, train, SEEDS)
    metrics = run.run_epoch()
    assert metrics["dead_layers"] == 0.0
    assert 0.0 < metrics["train_loss_ratio"] < 6.0
    assert metrics["train_clipped_share"] == 0.0

    batch = windows.batch(np.arange(3))
    trained = run.policy_for_inference()
    actions = trained.predict_action(batch, generators(0, 1, 2))
    assert actions.shape == (3, action_horizon, 2)
    assert actions.dtype == torch.float32
    assert ((actions >= 0) & (actions <= 512)).all()
    trained.save(tmp_path)
    loaded = load_policy(tmp_path)
    assert loaded.config == policy.config
    assert torch.equal(loaded.predict_action(batch, generators(0, 1, 2)), actions)
    loaded.compute_loss(batch, generators(0)[0])[0].backward()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "mse"},
        {"kind": "mdn", "mdn": MDNConfig(readout="component")},
        {"kind": "mdn", "mdn": MDNConfig(readout="sample")},
        {"kind": "diffusion", "diffusion": SMALL.diffusion},
    ],
    ids=str,
)
def test_a_row_does_not_depend_on_the_others(toy_demos, changes):
    policy, windows = make(toy_demos, action_horizon=4, **changes)
    together = policy.predict_action(windows.batch(np.arange(5)), generators(*range(5)))
    alone = policy.predict_action(windows.batch(np.array([3])), generators(3))
    torch.testing.assert_close(together[3:4], alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", EXPLICIT)
@pytest.mark.parametrize("stacking", ["recurrent", "attention"])
def test_frames_may_be_joined_in_order(toy_demos, kind, stacking):
    """Another order of the same past frames is another prediction."""
    encoder = dataclasses.replace(SMALL.encoder, stacking=stacking)
    policy, windows = make(toy_demos, kind=kind, obs_horizon=4, encoder=encoder)
    keypoints = torch.as_tensor(windows.batch(np.array([20]))["keypoints"])
    turned = keypoints[:, [1, 0, 2, 3]]
    actions, others = (
        policy.predict_action({"keypoints": frames}, generators(0))
        for frames in (keypoints, turned)
    )
    assert not torch.equal(actions, others)


@pytest.mark.parametrize("kind", EXPLICIT)
def test_half_precision_changes_the_loss_little(toy_demos, kind):
    policy, windows = make(toy_demos, kind=kind, action_horizon=4)
    batch = windows.batch(np.arange(64))
    exact = policy.compute_loss(batch, generators(0)[0])[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = policy.compute_loss(batch, generators(0)[0])[0]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


def test_settings_saved_before_these_kinds_can_be_read():
    assert config_from_plain(PolicyConfig, {"kind": "mse", "action_horizon": 2}) == PolicyConfig(
        kind="mse", action_horizon=2
    )


@pytest.mark.parametrize("kind", ["mdn", "diffusion"])
def test_rows_need_generators(toy_demos, kind):
    policy, windows = make(toy_demos, kind=kind)
    with pytest.raises(ValueError, match="there must be 2 generators, got 1"):
        policy.predict_action(windows.batch(np.arange(2)), generators(0))


@pytest.mark.parametrize("kind", ["ibc", *EXPLICIT])
def test_the_first_actions_alone_are_executed(toy_demos, kind):
    inference = dataclasses.replace(SMALL.inference, sampler="dfo", samples=16)
    whole, windows = make(toy_demos, kind=kind, action_horizon=8, inference=inference)
    part, _ = make(toy_demos, kind=kind, action_horizon=8, execute=3, inference=inference)
    batch = windows.batch(np.arange(4))
    actions = whole.predict_action(batch, generators(*range(4)))
    assert actions.shape == (4, 8, 2)
    assert torch.equal(part.predict_action(batch, generators(*range(4))), actions[:, :3])
    assert (whole.executed, part.executed) == (8, 3)


@pytest.mark.parametrize("execute", [0, 9, True, 2.0])
def test_no_more_is_executed_than_predicted(execute):
    with pytest.raises(ValueError, match=r"policy\.execute must .*, got"):
        PolicyConfig(kind="mse", action_horizon=8, execute=execute)


SLOW = pytest.mark.slow


def two_ways(moves=60.0):
    """Demonstrations in which the same state is left to the left or to the right, in turn."""
    rng = np.random.default_rng(0)
    episodes, length = 12, 60
    state = np.empty((episodes * length, 5), np.float32)
    state[:] = [256, 256, 300, 300, 0]
    side = rng.choice([-1.0, 1.0], episodes * length)
    far = rng.uniform(0, 1, episodes * length)
    state[:, 2] = 100 + 300 * far
    action = state[:, :2].copy()
    action[:, 0] += side * moves * (0.5 + 0.5 * far)
    action[:, 1] += rng.uniform(-5, 5, len(action))
    return Demos(
        path="ways",
        fingerprint="ways",
        action=action.astype(np.float32),
        state=state,
        keypoints=np.zeros((len(state), 20), np.float32),
        episode_ends=np.arange(1, episodes + 1) * length,
        images=None,
        pixels=None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "mse"},
        {"kind": "mdn", "mdn": MDNConfig(readout="component")},
        pytest.param({"kind": "mdn", "mdn": MDNConfig(readout="sample")}, marks=SLOW),
        {"kind": "diffusion"},
    ],
    ids=str,
)
def test_two_ways_are_kept_where_regression_takes_the_middle(changes):
    """The agent moves by +-(30 + 30 f(x)) px with probability one half each."""
    policy, windows = make(
        two_ways(),
        obs_mode="state",
        obs_horizon=1,
        energy=EnergyConfig(width=32, depth=2),
        action=ActionConfig(window=100.0),
        **changes,
    )
    train = TrainConfig(
        steps=300, epoch_steps=300, batch_size=128, micro_batch=128, warmup_steps=20,
        learning_rate=5e-3, ema_decay=0.98, val_windows=8, precision="fp32",
    )  # fmt: skip
    run = Trainer(policy, windows, windows, train, SEEDS)
    run.run_epoch()
    batch = windows.batch(np.arange(200))
    actions = run.policy_for_inference().predict_action(batch, generators(*range(200)))
    moves = actions[:, 0, 0].numpy() - 256
    expected = 60 * (0.5 + 0.5 * (batch["state"][:, 0, 2] - 100) / 300)
    off = np.abs(np.abs(moves) - expected)
    if policy.config.kind == "mse":
        assert np.abs(moves).mean() < 15
    else:
        assert np.median(off) < 8
        assert (off > 20).mean() < 0.1
        assert 0.3 < (moves > 0).mean() < 0.7

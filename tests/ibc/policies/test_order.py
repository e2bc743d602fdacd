"""Time: the action belongs to the newest frame, and the order of frames can be learned."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
SEEDS = {"data": 0, "negatives": 0, "augment": 0, "validation": 0}
SLOW = pytest.mark.slow
STEPS = {"state": 150, "image": 250}
STACKINGS = [
    ("state", "features"),
    ("state", "recurrent"),
    ("state", "attention"),
    pytest.param("image", "features", marks=SLOW),
    pytest.param("image", "channels", marks=SLOW),
    pytest.param("image", "recurrent", marks=SLOW),
    pytest.param("image", "attention", marks=SLOW),
]


@pytest.fixture(scope="module")
def task():
    spec = importlib.util.spec_from_file_location("order_task", ROOT / "benchmarks/order_task.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draws(rows):
    return [torch.Generator().manual_seed(i) for i in range(rows)]


def test_the_task_is_about_order_alone(task):
    """The same frames in another order want another move, and the newest one says nothing."""
    demos = task.clock(4, 40, 0)
    angles = np.arctan2(demos.state[:, 3] - 256, demos.state[:, 2] - 256).astype(np.float64)
    assert demos.action[7] == pytest.approx(256 + task.answer(angles[4:8]), abs=1e-3)
    assert np.abs(task.answer(angles[4:8]) - task.answer(angles[[7, 6, 5, 4]])).max() > 5
    newest, moves = demos.state[:, 2:4] - 256, demos.action - 256
    correlation = np.corrcoef(newest.T, moves.T)[:2, 2:]
    assert np.abs(correlation).max() < 0.1


@pytest.mark.parametrize(
    "stacking",
    ["attention", *(pytest.param(name, marks=SLOW) for name in ("features", "recurrent"))],
)
def test_an_implicit_policy_learns_the_order_of_four_frames(task, stacking):
    demos = task.clock(4, 100, 0)
    trainer, metrics = task.trained(demos, "state", 4, stacking, 300, 0)
    assert metrics["val_readout_error_px"] < 0.35 * metrics["trivial_action_error_px"]
    # The two oldest frames change places, and the policy goes where the answer is now.
    state = torch.from_numpy(trainer.train.batch(np.arange(3, 400, 5))["state"])
    for obs in (state, state[:, [1, 0, 2, 3]]):
        actions = trainer.policy_for_inference().predict_action({"state": obs}, draws(len(obs)))
        right = 256 + (obs[:, 0, 2] - 256) * (task.MOVE / task.HAND)
        assert (actions[:, 0, 0] - right).abs().mean() < 0.35 * task.MOVE


@SLOW
@pytest.mark.parametrize("known", ["newest frame", "order lost"])
def test_without_the_order_an_implicit_policy_does_not_learn_it(task, known):
    metrics = task.trained(task.clock(4, 100, 0), "state", 4, known, 300, 0)[1]
    assert metrics["val_readout_error_px"] > 0.8 * metrics["trivial_action_error_px"]


@pytest.mark.parametrize(("obs_mode", "stacking"), STACKINGS)
def test_the_action_belongs_to_the_newest_frame(task, obs_mode, stacking):
    """Learned from moves that follow the hand of the newest frame, whatever the others show."""
    horizon = 3
    demos = task.clock(horizon, 60, 0, images=obs_mode == "image")
    toward = (demos.state[:, 2:4] - 256) * (task.MOVE / task.HAND)
    demos = dataclasses.replace(demos, action=demos.state[:, :2] + toward)
    config = task.policy_config(obs_mode, horizon, stacking)
    config = dataclasses.replace(config, kind="mse")
    train, val = (Windows(demos, part, obs_mode, horizon, 1) for part in (range(54), range(54, 60)))
    policy = build_policy(config, fit_normalizer(config, train), generator_seed=0)
    steps = TrainConfig(
        steps=STEPS[obs_mode],
        epoch_steps=STEPS[obs_mode],
        batch_size=64,
        warmup_steps=10,
        ema_decay=None,
        precision="fp32",
        val_windows=16,
    )
    Trainer(policy, train, val, steps, SEEDS).run_epoch()

    # Consecutive windows: the newest frame of one is the middle frame of the next.
    rows, others = np.arange(5, 35), np.arange(45, 75)
    batch, other = val.batch(rows), val.batch(others)

    def error(obs, right):
        actions = policy.predict_action(obs, draws(len(rows)))[:, 0].numpy()
        return np.linalg.norm(actions - right["action"][:, 0], axis=1).mean()

    def mixed(frame):
        """The batch with one frame taken from the other windows."""
        return {
            name: np.concatenate(
                [value[:, :frame], other[name][:, frame : frame + 1], value[:, frame + 1 :]], 1
            )
            for name, value in batch.items()
            if name != "action"
        }

    assert error(batch, batch) < 0.25 * task.MOVE
    assert error(mixed(horizon - 1), other) < 0.25 * task.MOVE, "only the newest frame changed"
    for older in range(horizon - 1):
        assert error(mixed(older), batch) < 0.25 * task.MOVE, "only an older frame changed"


@pytest.mark.parametrize("stacking", ["features", "channels", "recurrent", "attention"])
@pytest.mark.parametrize("horizon", [1, 2, 8])
def test_every_stacking_acts_for_the_newest_agent_position(toy_demos, stacking, horizon):
    """With an energy that is least at "stay", the action is where the agent is now."""
    config = PolicyConfig(
        obs_mode="image",
        obs_horizon=horizon,
        encoder=EncoderConfig(channels=(8,), reduce_maps=4, features=8, stacking=stacking),
        energy=EnergyConfig(width=8),
        negatives=NegativesConfig(count=4),
        inference=InferenceConfig(readout="argmax", lattice=101),
    )
    windows = Windows(toy_demos, range(10), "image", horizon, 1)
    policy = build_policy(config, fit_normalizer(config, windows), generator_seed=0)
    policy.energy.score = lambda context, actions, *_: (
        1e4 * actions.norm(dim=-1).expand(len(context), -1)
    )
    batch = windows.batch(np.array([8, 38]))
    actions = policy.predict_action(batch, draws(2))[:, 0]
    newest = torch.from_numpy(batch["agent_pos"][:, -1])
    assert (actions - newest).norm(dim=1).max() < 2.0

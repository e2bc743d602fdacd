"""Policies: what they predict for which frame, rows by themselves, saving and strict loading."""

import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ibc.config.action import ActionConfig
from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import READOUTS, EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer, load_policy

SMALL = PolicyConfig(
    encoder=EncoderConfig(
        channels=(8, 8), reduce_maps=4, features=8, state_width=16, state_depth=1
    ),
    energy=EnergyConfig(width=16, depth=2),
    negatives=NegativesConfig(count=8),
    inference=InferenceConfig(sampler="dfo", samples=32),
)


def make(toy_demos, **changes):
    config = dataclasses.replace(SMALL, **changes)
    windows = Windows(
        toy_demos, range(10), config.obs_mode, config.obs_horizon, config.action_horizon
    )
    return build_policy(config, fit_normalizer(config, windows), generator_seed=0), windows


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("obs_mode", ["state", "keypoints", "image"])
@pytest.mark.parametrize("kind", ["ibc", "mse"])
@pytest.mark.parametrize("horizon", [1, 2])
def test_predicts_and_trains_in_every_mode(toy_demos, kind, obs_mode, horizon):
    policy, windows = make(toy_demos, kind=kind, obs_mode=obs_mode, action_horizon=horizon)
    batch = windows.batch(np.arange(3))
    actions = policy.predict_action(batch, generators(0, 1, 2))
    assert actions.shape == (3, horizon, 2)
    assert actions.dtype == torch.float32
    assert (actions >= 0).all()
    assert (actions <= 512).all()
    many = windows.batch(np.arange(0, 300, 5))
    loss, metrics = policy.compute_loss(many, generators(0)[0], generators(1)[0])
    loss.backward()
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, f"{name} is dead"
    assert 0.0 < float(metrics["loss_ratio"]) < 6.0


def test_action_zero_is_for_the_newest_frame(toy_demos):
    """With the energy replaced by distance to "stay", the action is the newest agent position."""
    policy, windows = make(
        toy_demos, obs_horizon=4, inference=InferenceConfig(readout="argmax", lattice=101)
    )
    policy.energy.score = lambda context, actions: (
        1e4 * actions.norm(dim=-1).expand(len(context), -1)
    )
    batch = windows.batch(np.array([4, 34]))
    newest, oldest = (torch.as_tensor(batch["keypoints"][:, t, -2:]) for t in (-1, 0))
    actions = policy.predict_action(batch, generators(0, 1))[:, 0]
    assert (actions - newest).norm(dim=1).max() < 2.0
    assert (actions - oldest).norm(dim=1).min() > 4.0


@pytest.mark.parametrize("obs_mode", ["state", "keypoints", "image"])
def test_training_targets_are_relative_to_the_newest_frame(toy_demos, obs_mode):
    policy, windows = make(toy_demos, obs_mode=obs_mode, obs_horizon=3)
    at = np.array([12, 100])
    batch = windows.batch(at)
    targets, clipped = policy.encode_targets(batch, policy.prepare(batch))
    step = windows.steps[at]
    expected = (toy_demos.action[step] - toy_demos.state[step, :2]) / policy.config.action.window
    assert float(clipped) == 0.0
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-5)


def test_positives_outside_the_window_are_clipped_and_counted(toy_demos):
    policy, windows = make(toy_demos, action=ActionConfig(window=10.0))
    batch = windows.batch(np.arange(30))
    moves = batch["action"][:, 0] - batch["keypoints"][:, -1, -2:]
    targets, clipped = policy.encode_targets(batch, policy.prepare(batch))
    assert targets.abs().max() == 1.0
    assert float(clipped) == pytest.approx((np.abs(moves) > 10).any(1).mean())


@pytest.mark.parametrize("sampler", ["dfo", "lattice"])
@pytest.mark.parametrize("readout", READOUTS)
def test_sampling_of_a_row_does_not_depend_on_the_others(toy_demos, readout, sampler):
    inference = InferenceConfig(sampler, samples=64, readout=readout)
    policy, windows = make(toy_demos, inference=inference)
    together = policy.predict_action(windows.batch(np.arange(5)), generators(*range(5)))
    alone = policy.predict_action(windows.batch(np.array([3])), generators(3))
    torch.testing.assert_close(together[3:4], alone, atol=1e-3, rtol=0)


def test_loss_at_the_start_is_near_chance(toy_demos):
    policy, windows = make(toy_demos, negatives=NegativesConfig(count=31))
    loss, metrics = policy.compute_loss(windows.batch(np.arange(300)), generators(0)[0])
    assert loss.item() == pytest.approx(math.log(32), rel=0.15)
    assert float(metrics["loss_ratio"]) == pytest.approx(1.0, rel=0.15)


def test_initial_weights_follow_the_seed_and_leave_the_global_stream_alone(toy_demos):
    before = torch.get_rng_state()
    first, second = make(toy_demos)[0], make(toy_demos)[0]
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    other = build_policy(first.config, first.normalizer, generator_seed=1)
    assert not torch.equal(next(first.encoder.parameters()), next(other.encoder.parameters()))


@pytest.mark.parametrize("kind", ["ibc", "mse"])
def test_saved_and_loaded_predict_the_same(toy_demos, tmp_path, kind):
    policy, windows = make(toy_demos, kind=kind, action=ActionConfig("board", "data", margin=0.07))
    policy.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "policy.json"]
    loaded = load_policy(tmp_path)
    assert loaded.config == policy.config
    batch = windows.batch(np.arange(4))
    assert torch.equal(
        loaded.predict_action(batch, generators(*range(4))),
        policy.predict_action(batch, generators(*range(4))),
    )
    loaded.compute_loss(batch, generators(0)[0])[0].backward()


def test_loading_names_the_first_tensor_that_does_not_fit(toy_demos, tmp_path):
    make(toy_demos)[0].save(tmp_path)
    weights = tmp_path / "model.safetensors"
    good = load_file(weights)
    for damage, message in [
        ({"energy.action.weight": torch.zeros(16, 3)}, r"energy.action.weight of shape \(16, 2\)"),
        ({"energy.action.weight": None}, "energy.action.weight .* got 'no such tensor'"),
        ({"extra": torch.zeros(1)}, "only the tensors of this policy, got 'extra'"),
        ({"energy.action.bias": torch.zeros(16).double()}, "as torch.float32, got torch.float64"),
    ]:
        bad = {k: v for k, v in {**good, **damage}.items() if v is not None}
        save_file(bad, weights)
        with pytest.raises(ValueError, match=message):
            load_policy(tmp_path)


def test_broken_folders_are_refused_in_words(toy_demos, tmp_path):
    with pytest.raises(ValueError, match=r"must hold policy\.json and model\.safetensors"):
        load_policy(tmp_path)
    make(toy_demos)[0].save(tmp_path)
    config, weights = tmp_path / "policy.json", tmp_path / "model.safetensors"
    text, data = config.read_text(), weights.read_bytes()
    for eighth in range(8):
        config.write_text(text[: len(text) * eighth // 8])
        with pytest.raises(ValueError, match=r"policy\.json"):
            load_policy(tmp_path)
    for nested in ("[" * 100_000, '{"policy":' * 100_000):
        config.write_text(nested)
        with pytest.raises(ValueError, match=r"policy\.json must be JSON"):
            load_policy(tmp_path)
    config.write_text(json.dumps({"format": 99, "policy": {}}))
    with pytest.raises(ValueError, match="format 1, the only one known here, got 99"):
        load_policy(tmp_path)
    config.write_text(text)
    for eighth in range(8):
        weights.write_bytes(data[: len(data) * eighth // 8])
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load_policy(tmp_path)


def test_a_pickle_in_place_of_the_weights_does_not_run(toy_demos, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    make(toy_demos)[0].save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="whole safetensors file"):
        load_policy(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_huge_declared_policy_takes_no_memory(toy_demos, tmp_path):
    """Width 8192 x depth 32 would be 8 GiB: shapes are compared before anything is allocated."""
    make(toy_demos)[0].save(tmp_path)
    content = json.loads((tmp_path / "policy.json").read_text())
    content["policy"]["energy"].update(width=8192, depth=32)
    (tmp_path / "policy.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"must hold energy.* of shape \(8192"):
        load_policy(tmp_path)


def test_bandwidth_is_in_px_whatever_the_bounds(toy_demos):
    for config, expected in (
        (ActionConfig(window=50.0), [0.2, 0.2]),
        (ActionConfig("board", "board"), [10 / 256, 10 / 256]),
    ):
        policy, _ = make(toy_demos, action=config)
        assert policy.normalizer.lengths(10.0).tolist() == pytest.approx(expected)


def test_rows_need_generators(toy_demos):
    policy, windows = make(toy_demos)
    with pytest.raises(ValueError, match="there must be 2 generators, got 1"):
        policy.predict_action(windows.batch(np.arange(2)), generators(0))


def test_wrong_observations_are_refused(toy_demos):
    policy, windows = make(toy_demos)
    with pytest.raises(ValueError, match="must hold keypoints"):
        policy.predict_action({"state": torch.zeros(1, 2, 5)}, generators(0))
    with pytest.raises(ValueError, match=r"shape \(B, 2, 20\), got \(1, 3, 20\)"):
        policy.predict_action({"keypoints": torch.zeros(1, 3, 20)}, generators(0))
    images, _ = make(toy_demos, obs_mode="image")
    obs = {"image": torch.zeros(1, 2, 96, 96, 3), "agent_pos": torch.zeros(1, 2, 2)}
    with pytest.raises(ValueError, match=r"images must be uint8, got torch\.float32"):
        images.predict_action(obs, generators(0))
    batch = windows.batch(np.arange(2))
    batch["action"] = np.zeros((2, 3, 2), np.float32)
    with pytest.raises(ValueError, match=r"actions must have the shape \(B, 1, 2\)"):
        policy.compute_loss(batch, generators(0)[0])

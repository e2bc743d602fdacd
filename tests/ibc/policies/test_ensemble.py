"""Ensembles, and the mirrored view: energies that are averaged."""

import dataclasses

import numpy as np
import pytest
import torch

from ibc.config.explicit import MDNConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.data import symmetry
from ibc.data.windows import Windows
from ibc.policies.ensemble import EnsemblePolicy, ensemble
from ibc.policies.factory import build_policy, fit_normalizer, load_policy

SMALL = PolicyConfig(energy=EnergyConfig(width=32), inference=InferenceConfig(lattice=21))
STEPS = dataclasses.replace(
    SMALL,
    action_horizon=3,
    energy=EnergyConfig(width=32, conditionals="steps"),
    inference=InferenceConfig(sampler="autoregressive", lattice=21),
)

PROPOSED = dataclasses.replace(
    SMALL,
    action_horizon=3,
    negatives=NegativesConfig("proposal", count=8, shared=False, uniform_share=0.1),
    inference=InferenceConfig("proposal", samples=64),
)


def made(demos, config, seed=0):
    train = Windows(demos, range(10), config.obs_mode, config.obs_horizon, config.action_horizon)
    return build_policy(config, fit_normalizer(config, train), generator_seed=seed)


def observations(demos, config, count=24):
    data = Windows(demos, range(12), config.obs_mode, config.obs_horizon, config.action_horizon)
    batch = data.batch(np.linspace(0, len(data) - 1, count).astype(int))
    return {k: torch.from_numpy(v) for k, v in batch.items() if k != "action"}


def generators(count=24):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_an_ensemble_averages_energies(toy_demos):
    policies = [made(toy_demos, SMALL, seed) for seed in range(3)]
    joined = ensemble(policies)
    obs = joined.prepare(observations(toy_demos, SMALL))
    actions = torch.rand(24, 7, 2) * 2 - 1
    mean = torch.stack([policy.energies(obs, actions) for policy in policies]).mean(0)
    assert torch.allclose(joined.energies(obs, actions), mean, atol=1e-6)
    same = ensemble([policies[0], policies[0]])
    alone = policies[0].predict_action(obs, generators())
    assert torch.allclose(same.predict_action(obs, generators()), alone, atol=1e-4)


@pytest.mark.parametrize("config", [STEPS, PROPOSED], ids=["steps", "proposal"])
def test_an_ensemble_is_saved_as_one_checkpoint(toy_demos, tmp_path, config):
    joined = ensemble([made(toy_demos, config, seed) for seed in range(2)])
    joined.save(tmp_path)
    again = load_policy(tmp_path)
    assert isinstance(again, EnsemblePolicy)
    obs = observations(toy_demos, config)
    with again.acting():
        acted = again.predict_action(obs, generators())
    assert torch.equal(acted, joined.predict_action(obs, generators()))
    assert len(ensemble([joined, joined]).policies) == 4


def test_what_is_no_ensemble(toy_demos):
    one = made(toy_demos, SMALL)
    with pytest.raises(ValueError, match="at least two policies, got 1"):
        ensemble([one])
    with pytest.raises(ValueError, match=r"must have one policy\.obs_horizon"):
        ensemble([one, made(toy_demos, dataclasses.replace(SMALL, obs_horizon=1))])
    with pytest.raises(ValueError, match='must be of kind "ibc"'):
        ensemble([one, made(toy_demos, dataclasses.replace(SMALL, kind="mse"))])
    fewer = dataclasses.replace(PROPOSED, mdn=MDNConfig(components=2))
    with pytest.raises(ValueError, match="must have one proposal"):
        ensemble([made(toy_demos, PROPOSED), made(toy_demos, fewer)])
    other = made(toy_demos, SMALL)
    other.normalizer.high += 1.0
    with pytest.raises(ValueError, match="same bounds of actions"):
        ensemble([one, other])
    with pytest.raises(ValueError, match=r"policy\.members above 1 needs policy\.kind"):
        PolicyConfig(kind="mse", members=2)


@pytest.mark.parametrize("mode", ["state", "keypoints"])
@pytest.mark.parametrize(
    "config", [SMALL, STEPS, PROPOSED], ids=["one action", "steps", "proposal"]
)
def test_with_the_mirrored_view_a_mirrored_observation_gives_the_mirrored_action(
    toy_demos, config, mode
):
    mirroring = dataclasses.replace(config.inference, mirror=True)
    config = dataclasses.replace(config, obs_mode=mode, inference=mirroring)
    for policy in (made(toy_demos, config), ensemble([made(toy_demos, config, s) for s in (1, 2)])):
        # Twice mirrored, the toy's keypoints are those of the block's own shape.
        obs = symmetry.mirror(symmetry.mirror(observations(toy_demos, config)))
        action = policy.predict_action(obs, generators())
        other = policy.predict_action(symmetry.mirror(obs), generators())
        assert torch.allclose(symmetry.mirror({"action": action})["action"], other, atol=2e-2)


def test_the_mirrored_view_needs_both_coordinates_of_a_step():
    inference = InferenceConfig(sampler="autoregressive", mirror=True)
    with pytest.raises(ValueError, match=r"inference\.mirror swaps x and y"):
        PolicyConfig(energy=EnergyConfig(conditionals="dimensions"), inference=inference)

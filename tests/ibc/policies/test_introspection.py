"""What is shown of a policy is what it acts by, whatever its kind."""

import numpy as np
import pytest
import torch

from ibc.config.action import ActionConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig
from ibc.config.policy import PolicyConfig
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.policies.introspection import landscape, view, window

SMALL = EnergyConfig(width=16, depth=2)
DFO = InferenceConfig(sampler="dfo", samples=64)
STEPS = EnergyConfig(width=16, conditionals="steps")
DIMENSIONS = EnergyConfig(width=16, conditionals="dimensions")
PARTS = InferenceConfig(sampler="autoregressive", lattice=15)
RECIPES = {
    "lattice": {"energy": SMALL, "inference": InferenceConfig(lattice=21)},
    "on the board": {"energy": SMALL, "action": ActionConfig(frame="board", bounds="data")},
    "dfo": {"energy": SMALL, "inference": DFO},
    "warm": {"energy": SMALL, "inference": InferenceConfig("dfo", samples=64, warm_start=0.5)},
    "langevin": {"energy": SMALL, "inference": InferenceConfig("langevin", samples=8)},
    "joint chunk": {"energy": SMALL, "inference": DFO, "action_horizon": 3, "execute": 2},
    "steps": {"energy": STEPS, "inference": PARTS, "action_horizon": 3},
    "dimensions": {"energy": DIMENSIONS, "inference": PARTS, "action_horizon": 2},
    "mixture": {"kind": "mdn", "energy": SMALL, "action_horizon": 2},
    "regression": {"kind": "mse", "energy": SMALL},
    "diffusion": {"kind": "diffusion", "energy": SMALL, "action_horizon": 4},
}


def make(demos, recipe):
    settings = RECIPES[recipe] if isinstance(recipe, str) else recipe
    config = PolicyConfig(obs_mode="keypoints", obs_horizon=2, **settings)
    windows = Windows(demos, range(4), "keypoints", 2, config.action_horizon)
    policy = build_policy(config, fit_normalizer(config, windows), generator_seed=0).eval()
    return policy, windows.batch(np.arange(5, 8))


def draws(count):
    return [torch.Generator().manual_seed(7 + i) for i in range(count)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_view_is_of_the_action_that_is_taken_and_of_its_draws(toy_demos, recipe):
    policy, obs = make(toy_demos, recipe)
    previous = torch.full((3, 1, 2), 200.0)
    expected, used = draws(3), draws(3)
    for _ in range(2):  # the second prediction goes on with the generators of the first
        actions = policy.predict_action(obs, expected, previous)
        seen = view(policy, obs, used, previous)
        assert torch.equal(seen.actions[:, : policy.executed], actions)
    assert all(
        torch.equal(a.get_state(), b.get_state()) for a, b in zip(expected, used, strict=True)
    )
    if recipe in ("regression", "diffusion", "dimensions"):
        assert seen.candidates is None
        return
    torch.testing.assert_close(seen.probabilities.sum(1), torch.ones(3))
    assert seen.candidates.shape == (*seen.probabilities.shape, 2)
    corners = window(policy, obs)
    assert (seen.candidates >= corners[:, :1] - 1e-3).all()
    assert (seen.candidates <= corners[:, 1:] + 1e-3).all()


@pytest.mark.parametrize("readout", ["softmax_mean", "argmax"])
def test_candidates_and_their_probabilities_give_the_readout(toy_demos, readout):
    recipe = {"energy": SMALL, "inference": InferenceConfig(readout=readout)}
    policy, obs = make(toy_demos, recipe)
    seen = view(policy, obs, draws(3))
    if readout == "argmax":
        best = seen.probabilities.argmax(1)
        expected = seen.candidates[torch.arange(3), best]
    else:
        expected = torch.einsum("bs,bsa->ba", seen.probabilities, seen.candidates)
    torch.testing.assert_close(seen.actions[:, 0], expected.clamp(0, 512), rtol=0, atol=1e-2)


@pytest.mark.parametrize("recipe", ["lattice", "on the board", "joint chunk", "steps"])
def test_a_landscape_holds_the_energy_of_each_place(toy_demos, recipe):
    policy, obs = make(toy_demos, recipe)
    actions = view(policy, obs, draws(3)).actions
    side = 9
    found = landscape(policy, obs, actions, side)
    assert found.shape == (3, side, side)
    prepared, corners = policy.prepare(obs), window(policy, obs)
    row, column = 2, 7
    share = (torch.tensor([column, row]) + 0.5) / side
    place = corners[:, 0] + share * (corners[:, 1] - corners[:, 0])
    chunk = actions.clone()
    chunk[:, 0] = place
    encoded = policy.normalizer.encode(chunk, policy.newest_agent(prepared))[:, None]
    with torch.no_grad():
        if recipe == "steps":
            model = policy.parts[0][1]
            expected = model.score(model.observe(policy.encoder(prepared)), encoded[..., :2])
        else:
            expected = policy.energies(prepared, encoded)
    torch.testing.assert_close(found[:, row, column], expected[:, 0])


@pytest.mark.parametrize("recipe", ["dimensions", "mixture"])
def test_what_is_a_density_integrates_to_one(toy_demos, recipe):
    policy, obs = make(toy_demos, recipe)
    side = 101
    found = landscape(policy, obs, view(policy, obs, draws(3)).actions, side).double()
    cell = (2 / side) ** 2 if recipe == "mixture" else 1.0
    total = (-found).exp().sum((1, 2)) * cell
    # Some of a mixture's mass lies outside of the bounds.
    tolerance = 1e-4 if recipe == "dimensions" else 0.7
    assert ((total > 1 - tolerance) & (total < 1 + 1e-2)).all()


def test_the_lowest_place_of_a_lattice_is_its_argmax(toy_demos):
    policy, obs = make(toy_demos, "lattice")
    found = landscape(policy, obs, torch.zeros(3, 1, 2), 21)
    low = found.flatten(1).argmin(1)
    corners, cells = window(policy, obs), torch.stack([low % 21, low // 21], 1)
    places = corners[:, 0] + (cells + 0.5) / 21 * (corners[:, 1] - corners[:, 0])
    expected = policy.predictions(policy.prepare(obs), draws(3))["argmax"][:, 0]
    torch.testing.assert_close(places.clamp(0, 512), expected)


@pytest.mark.parametrize("recipe", ["regression", "diffusion"])
def test_a_policy_without_a_density_has_no_landscape(toy_demos, recipe):
    policy, obs = make(toy_demos, recipe)
    assert landscape(policy, obs, view(policy, obs, draws(3)).actions, 5) is None

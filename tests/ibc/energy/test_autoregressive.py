"""Chunks part by part: what a part sees, what is drawn, and that it finds what joint DFO misses."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.data.windows import Windows
from ibc.energy.autoregressive import PER_STEP, condition, parts
from ibc.policies.factory import build_policy, fit_normalizer

SMALL = PolicyConfig(
    action_horizon=4,
    encoder=EncoderConfig(state_width=16),
    energy=EnergyConfig(width=16, conditionals="steps"),
    negatives=NegativesConfig(count=16),
    inference=InferenceConfig("autoregressive", lattice=21),
)


def make(toy_demos, **changes):
    config = dataclasses.replace(SMALL, **changes)
    windows = Windows(toy_demos, range(10), "keypoints", 2, config.action_horizon)
    return build_policy(config, fit_normalizer(config, windows), generator_seed=0), windows


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def replace_energies(policy, energy):
    """Energies of a known function of (the action before, number of the part, actions)."""
    features = policy.encoder.out_features
    for k, (part, model) in enumerate(policy.parts):
        last = slice(max(0, features + part.start - 2), features + part.start)
        model.observe = lambda given, dropout=None, last=last: given[:, last]
        model.score = lambda given, actions, dropout=None, k=k: energy(given, k, actions)


def test_parts_cover_the_chunk_in_order():
    assert parts("joint", 3) == [slice(0, 6)]
    assert parts("steps", 3) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert parts("dimensions", 2) == [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)]


def test_one_step_by_steps_is_the_joint_energy(toy_demos):
    joint, windows = make(
        toy_demos,
        action_horizon=1,
        energy=EnergyConfig(width=16),
        inference=InferenceConfig(lattice=21),
    )
    steps, _ = make(toy_demos, action_horizon=1)
    steps.encoder.load_state_dict(joint.encoder.state_dict())
    steps.energy[0].load_state_dict(joint.energy.state_dict())
    batch = windows.batch(np.arange(5))
    assert torch.equal(
        joint.predict_action(batch, generators(*range(5))),
        steps.predict_action(batch, generators(*range(5))),
    )
    assert joint.compute_loss(batch, generators(0)[0]) == steps.compute_loss(
        batch, generators(0)[0]
    )


@pytest.mark.parametrize("conditionals", ["steps", "dimensions"])
def test_training_shows_each_part_the_demonstrated_parts_before_it(toy_demos, conditionals):
    policy, windows = make(toy_demos, energy=EnergyConfig(width=16, conditionals=conditionals))
    batch = windows.batch(np.arange(6))
    positives, _ = policy.encode_targets(batch, policy.prepare(batch))
    features = policy.encoder(policy.prepare(batch))
    seen = []
    for _, model in policy.parts:
        observe = model.observe
        model.observe = lambda given, dropout=None, observe=observe: (
            seen.append(given) or observe(given, dropout)
        )
    loss, metrics = policy.compute_loss(batch, generators(0)[0])
    assert len(seen) == len(policy.parts) == (4 if conditionals == "steps" else 8)
    for given, (part, _) in zip(seen, policy.parts, strict=True):
        earlier = positives[:, : part.start]
        torch.testing.assert_close(given[:, : 16 + part.start], torch.cat([features, earlier], 1))
        steps = (earlier[:, 2:] - earlier[:, :-2]) * PER_STEP
        torch.testing.assert_close(given[:, 16 + part.start :], steps)
    assert loss.item() == pytest.approx(math.log(17), rel=0.2)
    assert metrics["loss_ratio"].item() == pytest.approx(loss.item() / math.log(17))
    loss.backward()
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, f"{name} is dead"


def test_energies_of_a_chunk_are_the_sum_of_its_parts(toy_demos):
    policy, windows = make(toy_demos)
    obs = policy.prepare(windows.batch(np.arange(3)))
    actions = torch.rand(3, 5, 8, generator=generators(0)[0]) * 2 - 1
    with torch.no_grad():
        found = policy.energies(obs, actions)
        features = policy.encoder(obs)
        expected = torch.zeros(3, 5)
        for b in range(3):
            for k in range(5):
                for part, model in policy.parts:
                    given = condition(features[b : b + 1], actions[b, k : k + 1, : part.start])
                    own = actions[b : b + 1, k : k + 1, part]
                    expected[b, k] += model.score(model.observe(given), own)[0, 0]
    torch.testing.assert_close(found, expected)
    joint, _ = make(toy_demos, energy=EnergyConfig(width=16), inference=InferenceConfig("langevin"))
    with torch.no_grad():
        direct = joint.energy.score(joint.energy.observe(joint.encoder(obs)), actions)
        torch.testing.assert_close(joint.energies(obs, actions), direct)


def test_the_readout_sample_draws_from_the_chunks_density(toy_demos):
    """p(left) = 1/4, and every later step repeats the first: no chunk mixes the two."""

    def energy(given, k, actions):
        x = actions[..., 0].expand(len(given), -1)
        y = 200.0 * actions[..., 1].square().expand(len(given), -1)
        if k == 0:
            left = 200.0 * (x + 0.5).square() - math.log(0.25)
            right = 200.0 * (x - 0.5).square() - math.log(0.75)
            return y - torch.logaddexp(-left, -right)
        # The constant depends on what came before, as it may after training.
        return y + 200.0 * (x - given[:, :1]).square() + 1000.0 * given[:, :1]

    sample = InferenceConfig("autoregressive", readout="sample")
    policy, windows = make(toy_demos, inference=sample)
    replace_energies(policy, energy)
    batch = windows.batch(np.zeros(800, int))
    agent = torch.as_tensor(batch["keypoints"])[:, -1, -2:]
    moves = policy.predict_action(batch, generators(*range(800))) - agent[:, None]
    right = moves[..., 0] > 0
    assert float(right[:, 0].float().mean()) == pytest.approx(0.75, abs=0.05)
    assert (right == right[:, :1]).all()
    assert float(moves[..., 0].abs().mean()) == pytest.approx(50.0, abs=2.0)


@pytest.mark.parametrize("part_sampler", ["lattice", "dfo", "langevin"])
def test_a_row_does_not_depend_on_the_others(toy_demos, part_sampler):
    inference = InferenceConfig("autoregressive", lattice=21, samples=32, part_sampler=part_sampler)
    policy, windows = make(toy_demos, inference=inference)
    together = policy.predict_action(windows.batch(np.arange(5)), generators(*range(5)))
    alone = policy.predict_action(windows.batch(np.array([3])), generators(3))
    torch.testing.assert_close(together[3:4], alone, atol=1e-2, rtol=0)


def test_finds_a_chunk_of_sixteen_dimensions_that_joint_dfo_misses(toy_demos):
    """A path that each step continues from the last; all energies as sharp as trained ones."""

    def wanted(before):
        turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
        return before @ turn

    first = torch.tensor([[0.5, 0.3]])

    def of_step(given, k, actions):
        target = first.expand(len(given), 2) if k == 0 else wanted(given)
        return 400.0 * (actions - target[:, None]).square().sum(-1)

    def of_chunk(given, _, actions):
        steps = actions.unflatten(-1, (8, 2))
        before = torch.cat([first.expand_as(steps[..., :1, :]), wanted(steps[..., :-1, :])], -2)
        return 400.0 * (steps - before).square().sum((-1, -2))

    path = [first]
    for _ in range(7):
        path.append(wanted(path[-1]))
    expected = torch.stack(path, 1) * 100.0  # px of the window

    def error(known, **changes):
        policy, windows = make(toy_demos, action_horizon=8, **changes)
        replace_energies(policy, known)
        batch = windows.batch(np.array([40, 45]))
        agent = torch.as_tensor(batch["keypoints"])[:, -1, -2:]
        moves = policy.predict_action(batch, generators(0, 1)) - agent[:, None]
        return float((moves - expected).norm(dim=-1).mean())

    by_steps = {"energy": EnergyConfig(width=8, conditionals="steps")}
    joint = {"energy": EnergyConfig(width=8)}
    argmax = {"readout": "argmax", "samples": 1024, "iterations": 5}
    dfo = InferenceConfig("dfo", **argmax)
    assert error(of_chunk, inference=dfo, **joint) > 25.0
    lattice = InferenceConfig("autoregressive", lattice=51, readout="mean_shift")
    assert error(of_step, inference=lattice, **by_steps) < 3.0
    by_dfo = InferenceConfig("autoregressive", part_sampler="dfo", **argmax)
    assert error(of_step, inference=by_dfo, **by_steps) < 3.0


def test_a_chunk_warm_starts_every_part(toy_demos):
    """All samples are drawn around the last action; a flat energy keeps them there."""
    warm = InferenceConfig(
        "autoregressive",
        part_sampler="dfo",
        samples=64,
        iterations=1,
        warm_start=1.0,
        warm_noise=3.0,
        readout="sample",
    )
    policy, windows = make(toy_demos, inference=warm)
    assert policy.uses_previous
    replace_energies(policy, lambda given, k, actions: actions.new_zeros(actions.shape[:2]))
    batch = windows.batch(np.arange(30, 34))
    agent = torch.as_tensor(batch["keypoints"])[:, -1, -2:]
    previous = agent[:, None] + torch.tensor([[[90.0, 90.0], [20.0, -30.0]]])
    found = policy.predict_action(batch, generators(*range(4)), previous)
    assert (found - previous[:, 1:]).norm(dim=-1).max() < 15.0
    cold = policy.predict_action(batch, generators(*range(4)), torch.full((4, 1, 2), math.nan))
    assert (cold - previous[:, 1:]).norm(dim=-1).mean() > 30.0
    with pytest.raises(ValueError, match=r"previous actions must have the shape \(4, n, 2\)"):
        policy.predict_action(batch, generators(*range(4)), previous[:3])

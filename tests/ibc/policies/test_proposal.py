"""A learned proposal: its density is exact, and the energy is right where the proposal is not."""

import dataclasses

import numpy as np
import pytest
import torch

from ibc.config.action import ActionConfig
from ibc.config.encoder import EncoderConfig
from ibc.config.explicit import MDNConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import Normalizer
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.sampling.mixture import Mixture, Proposal, log_likelihood
from ibc.training.optim import AdamW

STEPS = 250
CONFIG = PolicyConfig(
    obs_mode="state",
    obs_horizon=1,
    encoder=EncoderConfig(state_width=8),
    action=ActionConfig(bounds="window"),
    energy=EnergyConfig("concat", width=64, depth=2),
    negatives=NegativesConfig("proposal", count=16, shared=False, uniform_share=0.2),
    inference=InferenceConfig("proposal", samples=2000, readout="sample"),
    mdn=MDNConfig(components=1),
)
PROPOSAL = Proposal(
    Mixture(
        torch.tensor([[0.3, 0.7]]).log(),
        torch.tensor([[[0.9, -0.2], [-0.4, 0.3]]]),
        torch.tensor([[[0.3, 0.2], [0.15, 0.4]]]),
    ),
    0.25,
)


def grid(low, high, side):
    """The middles (1, side * side, 2) of cells, and the area of one."""
    line = low + (torch.arange(side) + 0.5) * ((high - low) / side)
    return torch.cartesian_prod(line, line)[None], ((high - low) / side) ** 2


def test_the_density_is_normalised_and_draws_follow_it():
    places, cell = grid(-4.0, 4.0, 800)
    mass = PROPOSAL.log_density(places).exp() * cell
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-3)
    n, random = 200_000, torch.Generator().manual_seed(0)
    draws = PROPOSAL.draw(
        torch.rand(1, n, 4, generator=random), torch.randn(1, n, 2, generator=random)
    )
    expected = mass.view(16, 50, 16, 50).sum((1, 3)) * n
    found = torch.histogramdd(draws[0], [16, 16], range=[-4.0, 4.0, -4.0, 4.0]).hist
    assert ((found - expected).abs() < 5 * expected.sqrt() + 5).all()
    everywhere = PROPOSAL._replace(uniform_share=1.0).log_density(places)
    assert torch.equal(everywhere.isfinite(), (places.abs() <= 1).all(2))


def two_peaks(count, random):
    """Normalised actions (count, 2): one in four at (-0.6, 0.5), the others at (0.5, -0.3)."""
    first = torch.rand(count, 1, generator=random) < 0.25
    centre = torch.where(first, torch.tensor([-0.6, 0.5]), torch.tensor([0.5, -0.3]))
    return centre + 0.12 * torch.randn(count, 2, generator=random)


def test_the_energy_is_right_although_the_proposal_is_wrong():
    """One Gaussian proposes, two peaks are learned; quadrature normalises both densities."""
    random = torch.Generator().manual_seed(0)
    normalizer = Normalizer(CONFIG.action, torch.full((2,), -100.0), torch.full((2,), 100.0))
    policy = build_policy(CONFIG, normalizer, generator_seed=0)
    optimizer = AdamW(policy.parameters(), betas=(0.9, 0.999), weight_decay=0.0)
    for step in range(STEPS):
        state = torch.full((128, 1, 5), 256.0)
        action = 256.0 + 100.0 * two_peaks(128, random)[:, None]
        optimizer.zero_grad()
        policy.compute_loss({"state": state, "action": action}, random)[0].backward()
        optimizer.step(1e-2 * (1 - step / STEPS))
    places, cell = grid(-1.0, 1.0, 80)
    weights = torch.tensor([[0.25, 0.75]]).log()
    means = torch.tensor([[[-0.6, 0.5], [0.5, -0.3]]])
    truth = log_likelihood(Mixture(weights, means, torch.full((1, 2, 2), 0.12)), places[0])
    obs = policy.prepare({"state": state[:1]})
    with torch.no_grad():
        learned = torch.softmax(-policy.energies(obs, places), 1)[0]
        proposed = policy.proposed(obs).log_density(places).exp()[0] * cell
    wrong, right = ((p - truth.exp() * cell).abs().sum() / 2 for p in (proposed, learned))
    assert wrong > 0.4
    assert right < 0.1
    # Samples of the wrong proposal, weighed: one in four goes to the smaller peak.
    rows = {"state": state[:1].expand(400, -1, -1)}
    drawn = policy.predict_action(rows, [torch.Generator().manual_seed(i) for i in range(400)])
    assert float((drawn[:, 0, 0] < 256.0).float().mean()) == pytest.approx(0.25, abs=0.07)


def test_the_proposal_learns_from_its_likelihood_alone(toy_demos):
    """The energy's loss has no gradient for it, nor its likelihood for the energy's head."""
    config = dataclasses.replace(CONFIG, action_horizon=4, mdn=MDNConfig(components=3))
    windows = Windows(toy_demos, range(10), "state", 1, 4)
    policy = build_policy(config, fit_normalizer(config, windows), generator_seed=0)
    batch = windows.batch(np.arange(16))

    def gradients(scale):
        """Of the loss with energies scaled, which the proposal must not notice."""
        policy.zero_grad()
        with torch.no_grad():
            policy.energy.out.weight.mul_(scale)
        policy.compute_loss(batch, torch.Generator().manual_seed(0))[0].backward()
        return {name: p.grad.clone() for name, p in policy.named_parameters()}

    first, second = gradients(1.0), gradients(7.0)
    for name in first:
        assert first[name].any() or name == "energy.out.bias", name
        assert torch.equal(first[name], second[name]) == name.startswith("proposal."), name
    obs = policy.prepare(batch)
    policy.zero_grad()
    actions, _ = policy.encode_targets(batch, obs)
    (-log_likelihood(policy.proposed(obs).mixture, actions).mean() / 8).backward()
    for name, parameter in policy.named_parameters():
        if name.startswith("proposal."):
            torch.testing.assert_close(parameter.grad, first[name])
        elif name.startswith("energy."):
            assert parameter.grad is None

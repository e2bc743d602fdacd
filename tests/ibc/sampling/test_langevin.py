"""Langevin chains: the density that they draw from, their steps, and that no gradient leaks."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from ibc.config.implicit import LangevinConfig
from ibc.energy.models import slope
from ibc.sampling.langevin import chain

MEAN = torch.tensor([0.2, -0.1])
COVARIANCE = torch.tensor([[0.02, 0.012], [0.012, 0.03]])


def constant(step, steps, **changes):
    return LangevinConfig(steps=steps, first_step=step, last_step=step, **changes)


def run(energy, config, shape=(1, 4000, 2), seed=0, **changes):
    random = torch.Generator().manual_seed(seed)
    start = torch.rand(shape, generator=random) * 2 - 1
    return chain(energy, start, config, lambda: torch.randn(shape, generator=random), **changes)


def quadratic(actions):
    offsets = actions - MEAN
    return 0.5 * (offsets @ torch.linalg.inv(COVARIANCE) * offsets).sum(-1)


def moments(samples):
    return samples.mean(0), samples.T.cov()


def test_standard_form_draws_from_a_gaussian():
    """Of 4000 draws a mean is off by 0.003, a covariance by 3 %; the finite step adds 2 %."""
    found = run(quadratic, constant(6e-4, 400))
    mean, covariance = moments(found.actions[0])
    torch.testing.assert_close(mean, MEAN, atol=0.012, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0.002, rtol=0.1)


def test_a_falling_step_size_ends_at_the_density_too():
    config = LangevinConfig(steps=400, first_step=0.005, last_step=5e-5)
    mean, covariance = moments(run(quadratic, config).actions[0])
    torch.testing.assert_close(mean, MEAN, atol=0.012, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0.003, rtol=0.15)


def test_standard_form_draws_from_a_double_well():
    """A density that is no Gaussian: both wells, and the saddle between them, bin by bin."""

    def energy(actions):
        return (60.0 * (actions[..., 0].square() - 0.16).square()) + 8.0 * actions[..., 1].square()

    samples = run(energy, constant(4e-3, 600)).actions[0]
    line = (torch.arange(2000) + 0.5) / 1000 - 1
    density = (-energy(torch.stack([line, torch.zeros(2000)], 1))).exp()
    expected = density.view(20, 100).sum(1) / density.sum() * 4000
    counts = torch.histc(samples[:, 0], bins=20, min=-1, max=1)
    assert ((counts - expected).abs() < 4 * expected.sqrt() + 0.06 * expected + 5).all()


def test_googles_form_does_not_draw_from_the_density():
    found = run(quadratic, constant(1e-3, 800, form="google"), (1, 500, 2))
    mean, covariance = moments(found.actions[0])
    torch.testing.assert_close(mean, MEAN, atol=0.03, rtol=0)
    assert float(covariance.diagonal().max()) < 0.05 * float(COVARIANCE.diagonal().min())


def test_noise_scales_the_temperature_and_none_is_descent():
    hot = run(quadratic, constant(6e-4, 400, noise=0.5))
    torch.testing.assert_close(moments(hot.actions[0])[1], COVARIANCE / 4, atol=5e-4, rtol=0.1)
    cold = run(quadratic, constant(2e-3, 400, noise=0.0))
    assert (cold.actions - MEAN).abs().max() < 1e-3
    assert float(cold.energies.max()) < 1e-4


def test_each_form_takes_its_own_step():
    """One step on a constant slope, against the formulas."""
    start, slopes = torch.zeros(1, 3, 2), torch.tensor([0.5, -2.0])
    noise = torch.tensor([[[1.0, 0.0], [-1.0, 1.5], [0.0, 0.0]]])

    def moved(**config):
        step = constant(0.1, 1, **config)
        return chain(lambda a: (a * slopes).sum(-1), start, step, lambda: noise).actions

    torch.testing.assert_close(moved(), -0.1 * slopes + math.sqrt(0.2) * noise)
    torch.testing.assert_close(moved(form="google", noise=0.3), -0.1 * (slopes / 2 + 0.3 * noise))
    torch.testing.assert_close(
        moved(form="google", limit=0.05), (-0.1 * (slopes / 2 + noise)).clamp(-0.05, 0.05)
    )
    torch.testing.assert_close(
        moved(limit=0.1), (-0.1 * slopes).clamp(-0.1, 0.1) + math.sqrt(0.2) * noise
    )


def test_step_sizes_fall_with_their_power_and_start_again():
    config = LangevinConfig(steps=5, first_step=0.1, last_step=0.02, power=2.0)
    sizes = list(config.step_sizes())
    assert sizes == pytest.approx([0.1, 0.065, 0.04, 0.025, 0.02])
    twice = list(dataclasses.replace(config, repeats=2).step_sizes())
    assert twice == sizes * 2
    again = list(dataclasses.replace(config, repeats=3, repeat_step=0.02).step_sizes())
    assert again == pytest.approx(sizes + [0.02] * 10)
    assert list(LangevinConfig(steps=1).step_sizes()) == pytest.approx([0.1])


def test_samples_keep_to_the_bounds_unless_told_otherwise():
    def outside(actions):
        return -5.0 * actions.sum(-1)

    config = constant(0.05, 30, noise=0.1)
    inside = run(outside, config, (1, 50, 2))
    assert inside.actions.abs().max() <= 1.0
    assert float(inside.statistics["chain_at_bounds"]) > 0.9
    assert run(outside, config, (1, 50, 2), clip=False).actions.max() > 2.0


def test_statistics_describe_the_chain():
    found = run(quadratic, constant(2e-3, 300, noise=0.0), (1, 200, 2)).statistics
    assert float(found["chain_gradient_last"]) < 0.01 < float(found["chain_gradient_first"])
    start = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert float(found["chain_energy_drop"]) == pytest.approx(float(quadratic(start).mean()))
    distance = float((start - MEAN).norm(dim=-1).mean())
    assert float(found["chain_move"]) == pytest.approx(distance, rel=1e-3)
    assert float(found["chain_at_bounds"]) == 0.0


def test_no_gradient_reaches_the_weights_or_the_callers_graph():
    torch.manual_seed(0)
    layer = nn.Linear(2, 1)
    features = torch.ones(1, 1, requires_grad=True)
    context = 2.0 * features

    def energy(actions):
        return layer(actions).squeeze(-1) + context.detach()

    with torch.no_grad():  # as in predict_action
        found = run(energy, LangevinConfig(steps=3), (1, 8, 2))
    assert not found.actions.requires_grad
    assert not found.energies.requires_grad
    assert (found.actions.abs() <= 1.0).all()
    assert layer.weight.grad is None
    layer.requires_grad_(False)  # averaged weights
    assert not run(energy, LangevinConfig(steps=3), (1, 8, 2)).actions.requires_grad
    context.sum().backward()  # the caller's graph is still whole
    assert features.grad is not None


def test_slopes_are_those_of_finite_differences():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def energy(actions):
        return net(actions).squeeze(-1)

    actions = torch.rand(2, 5, 2).double()
    energies, slopes = slope(energy, actions)
    assert not slopes.requires_grad
    for axis in range(2):
        step = torch.zeros(2).double()
        step[axis] = 1e-6
        difference = (energy(actions + step) - energy(actions - step)) / 2e-6
        torch.testing.assert_close(slopes[..., axis], difference.detach(), atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(energies, energy(actions).detach())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "hmc"}, "langevin.form must be one of standard, google"),
        ({"steps": 0}, "langevin.steps .* got 0"),
        ({"last_step": 0.0}, "langevin.last_step .* above 0"),
        ({"first_step": 1e-6}, "langevin.first_step must be at least langevin.last_step 1e-05"),
        ({"repeat_step": 1e-6}, "langevin.repeat_step must be at least"),
        ({"repeats": 0}, "langevin.repeats"),
        ({"limit": 0.0}, "langevin.limit .* above 0"),
        ({"noise": -1.0}, "langevin.noise"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        LangevinConfig(**changes)

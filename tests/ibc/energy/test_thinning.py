"""The thinned gradient: without bias, of the same loss, and exact where all are kept."""

import dataclasses

import pytest
import torch

from ibc.config.implicit import EnergyConfig, LossConfig
from ibc.config.policy import PolicyConfig
from ibc.energy.losses import contrast, thin
from ibc.energy.models import build_energy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(dropout=0.0, masks="window", correction=False):
    torch.manual_seed(0)
    config = EnergyConfig("concat", width=16, depth=3, dropout=dropout, dropout_masks=masks)
    model = build_energy(4, 2, config)
    with torch.no_grad():
        model.out.weight.mul_(20.0)  # some candidates weigh much, most next to nothing
    context, positives = torch.randn(3, 16), torch.rand(3, 2)
    negatives = torch.rand(3, 40, 2) * 2 - 1
    return model, (context, positives, negatives, torch.randn(3, 41) if correction else None)


def gradient(model, inputs, share, draw, dropout=None):
    model.zero_grad()
    loss, energies = contrast(model, *inputs, share, generator(draw), dropout)
    loss.mean().backward()
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return flat, loss.detach(), energies.detach()


@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_mean_of_many_draws_is_the_gradient_over_all_candidates(dropout, correction):
    model, inputs = problem(dropout, correction=correction)
    exact, loss, energies = gradient(model, inputs, 1.0, 0, generator(5))
    total, error = torch.zeros_like(exact), []
    for draw in range(600):
        found, same_loss, same_energies = gradient(model, inputs, 0.2, draw, generator(5))
        total += found
        error.append((found - exact).norm())
    torch.testing.assert_close(same_loss, loss)
    torch.testing.assert_close(same_energies, energies)
    spread = torch.stack(error).square().mean().sqrt()
    assert spread > 1e-3 * exact.norm(), "one draw is not exact"
    assert (total / 600 - exact).norm() < 3 * spread / 600**0.5


def test_kept_weights_have_the_right_expectation_and_heavy_ones_are_certain():
    weights = torch.softmax(torch.randn(1, 50, generator=generator(1)) * 3, 1)
    seen = torch.zeros(50, dtype=torch.float64)
    for draw in range(4000):
        picks, kept = thin(weights, 8, generator(draw))
        assert picks.shape == kept.shape == (1, 8)
        assert len(set(picks[0].tolist())) == 8
        assert weights.argmax() in picks
        seen[picks[0]] += kept[0].double()
    assert torch.allclose(seen / 4000, weights[0].double(), atol=0.01)


@pytest.mark.parametrize(
    "weights",
    [torch.full((2, 30), 1 / 30), torch.eye(30)[:2], torch.zeros(2, 30), torch.rand(2, 5)],
    ids=["equal", "one", "none", "fewer than are kept"],
)
def test_extreme_weights(weights):
    picks, kept = thin(weights, 6, generator())
    assert torch.isfinite(kept).all()
    assert kept.sum(1) == pytest.approx(weights.sum(1), abs=1e-5)
    assert all(len(set(row)) == len(row) for row in picks.tolist())


def test_one_mask_a_window_ranks_candidates_by_one_network():
    model, (context, *_) = problem(0.5)
    twice = torch.rand(3, 1, 2).repeat(1, 2, 1)
    by_window = model.score(context, twice, generator(3))
    torch.testing.assert_close(by_window[:, 0], by_window[:, 1])
    longer = model.score(context, twice.repeat(1, 5, 1), generator(3))
    torch.testing.assert_close(longer[:, :1], by_window[:, :1])
    model, (context, *_) = problem(0.5, "candidate")
    by_candidate = model.score(context, twice, generator(3))
    assert (by_candidate[:, 0] - by_candidate[:, 1]).abs().min() > 1e-6


def test_configs_that_could_not_be_right_are_refused():
    thinned = LossConfig(gradient_share=0.1)
    with pytest.raises(ValueError, match=r'needs energy\.fusion "concat"'):
        PolicyConfig(loss=thinned)
    with pytest.raises(ValueError, match=r'needs energy\.dropout_masks "window"'):
        PolicyConfig(loss=thinned, energy=EnergyConfig("concat", dropout=0.1))
    dataclasses.replace(
        PolicyConfig(),
        loss=thinned,
        energy=EnergyConfig("concat", dropout=0.1, dropout_masks="window"),
    )
    with pytest.raises(ValueError, match="gradient_share"):
        LossConfig(gradient_share=0.0)

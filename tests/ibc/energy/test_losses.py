"""InfoNCE against its definition; the gradient penalty against finite differences."""

import dataclasses
import math
from functools import partial

import pytest
import torch

from ibc.config.implicit import EnergyConfig, LossConfig
from ibc.energy.losses import candidate_statistics, gradient_penalty, info_nce
from ibc.energy.models import build_energy


def test_info_nce_is_the_cross_entropy_of_the_first_candidate():
    energies = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(
        -energies, torch.zeros(5, dtype=torch.long), reduction="none"
    )
    torch.testing.assert_close(info_nce(energies), expected)


def test_a_model_that_knows_nothing_is_at_chance():
    assert info_nce(torch.full((3, 65), 7.0)).tolist() == pytest.approx([math.log(65)] * 3)


def test_lower_energy_of_the_positive_is_better():
    energies = torch.zeros(1, 4)
    better = energies.clone()
    better[0, 0] = -3.0
    assert info_nce(better).item() < info_nce(energies).item()


def test_statistics_count_the_negatives_that_matter():
    energies = torch.tensor([[0.0, 2.0, 2.0, 100.0]])
    found = candidate_statistics(energies, None)
    assert found["effective_negatives"].item() == pytest.approx(2.0)
    assert found["energy_gap"].item() == pytest.approx(104.0 / 3)


def test_penalty_is_the_mean_squared_excess_of_the_slope():
    """Four places on a bowl, so that the slope is the offset itself."""
    places = torch.tensor([[[0.5, 0.0], [3.0, -4.0]], [[0.0, 1.5], [-2.0, 2.0]]])

    def energy(actions):
        return 0.5 * actions.square().sum(-1)

    penalty, slope = gradient_penalty(energy, places, LossConfig(penalty_margin=1.0))
    assert penalty.item() == pytest.approx((0 + 9 + 0.25 + 1) / 4)
    assert slope.item() == pytest.approx((0.5 + 4 + 1.5 + 2) / 4)


@pytest.mark.parametrize("fusion", ["concat", "product"])
def test_gradient_of_the_penalty_is_that_of_finite_differences(fusion):
    torch.manual_seed(0)
    model = build_energy(3, 2, EnergyConfig(fusion, width=8, depth=2))
    features = torch.randn(4, 3)
    places = (torch.rand(4, 6, 2) * 2 - 1).requires_grad_()  # as if a graph led to them
    config = LossConfig(penalty_margin=0.01)

    def penalty():
        score = partial(model.score, model.observe(features))
        return gradient_penalty(score, places, config)[0]

    penalty().backward()
    assert places.grad is None
    for name in ("observation.weight", "observation.layers.0.weight", "action.weight"):
        weight = dict(model.named_parameters()).get(name)
        if weight is None:
            continue
        with torch.no_grad():
            at = divmod(int(weight.grad.abs().argmax()), weight.shape[1])
            before, step = float(weight[at]), 5e-5
            weight[at] = before + step
            above = float(penalty())  # the same number without gradients
            weight[at] = before - step
            below = float(penalty())
            weight[at] = before
        assert float(weight.grad[at]) == pytest.approx((above - below) / (2 * step), rel=0.03)


def test_a_trained_penalty_bounds_the_slope():
    """A step function is learned with any slope; with the penalty, only with the margin's."""

    def slope_after_training(weight):
        torch.manual_seed(0)
        random = torch.Generator().manual_seed(0)
        model = build_energy(1, 1, EnergyConfig("concat", width=32, depth=2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        config = LossConfig(gradient_penalty=weight, penalty_margin=1.0)
        for _ in range(150):
            context = model.observe(torch.zeros(16, 1))
            positives = torch.rand(16, 1, 1, generator=random) * 0.1
            negatives = torch.rand(16, 16, 1, generator=random) * 2 - 1
            energies = model.score(context, torch.cat([positives, negatives], 1))
            penalty, _ = gradient_penalty(partial(model.score, context), negatives, config)
            optimizer.zero_grad()
            (info_nce(energies).mean() + weight * penalty).backward()
            optimizer.step()
        line = torch.linspace(-1, 1, 200)[None, :, None]
        score = partial(model.score, model.observe(torch.zeros(1, 1)))
        every = LossConfig(penalty_margin=0.0)
        return float(gradient_penalty(score, line, every)[0].detach() ** 0.5)

    assert slope_after_training(10.0) < 1.5 < 4.0 < slope_after_training(0.0)


def test_settings_are_checked():
    for changes, message in (
        ({"gradient_penalty": -1.0}, "loss.gradient_penalty"),
        ({"penalty_margin": -0.1}, "loss.penalty_margin"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(LossConfig(), **changes)

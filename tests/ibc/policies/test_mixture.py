"""Mixtures: their density against torch's own, their readouts, their safety far away."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ibc.config.explicit import MDNConfig
from ibc.policies.explicit import mode, one_gaussian, read_mixture
from ibc.sampling.mixture import Mixture, log_likelihood, mixture, outputs


def some(rows=3, components=4, dimensions=6, min_std=0.01):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(rows, outputs(components, dimensions), generator=generator)
    return mixture(raw, components, min_std)


def two_peaks(rows):
    """Weights 0.3 and 0.7 at -0.5 and 0.5."""
    log_weights = torch.tensor([0.3, 0.7]).log().expand(rows, 2)
    means = torch.tensor([[-0.5, -0.5], [0.5, 0.5]]).expand(rows, 2, 2)
    return Mixture(log_weights, means, torch.full((rows, 2, 2), 0.05))


def generators(count):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_log_likelihood_is_that_of_the_distribution():
    given = some()
    actions = torch.linspace(-1, 1, 18).reshape(3, 6)
    theirs = MixtureSameFamily(
        Categorical(logits=given.log_weights), Independent(Normal(given.means, given.stds), 1)
    ).log_prob(actions)
    torch.testing.assert_close(log_likelihood(given, actions), theirs)


def test_raw_outputs_become_weights_means_and_floored_deviations():
    given = some(min_std=0.3)
    torch.testing.assert_close(given.log_weights.exp().sum(1), torch.ones(3))
    assert given.means.shape == given.stds.shape == (3, 4, 6)
    assert given.stds.min() >= 0.3
    hopeless = mixture(torch.full((1, outputs(1, 2)), -1e4), 1, 0.01)
    assert hopeless.stds.tolist() == [[[pytest.approx(0.01)] * 2]]


def test_far_from_everything_loss_and_gradient_stay_finite():
    raw = torch.zeros(2, outputs(3, 32)).requires_grad_()
    given = mixture(raw * 1.0, 3, 1e-3)
    loss = -log_likelihood(given, torch.full((2, 32), 1e4)).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(raw.grad).all()


def test_one_gaussian_is_the_best_of_those_that_do_not_look():
    actions = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.1
    best = one_gaussian(actions, 0.01)
    expected = Normal(actions.mean(0), actions.std(0, correction=0)).log_prob(actions).sum(1).mean()
    torch.testing.assert_close(best, expected)
    constant = one_gaussian(torch.zeros(5, 1), 0.1)
    assert float(constant) == pytest.approx(-math.log(0.1) - 0.5 * math.log(2 * math.pi) - 0.5)


def test_readouts_of_two_peaks():
    given, count = two_peaks(2000), 2000
    read = {name: read_mixture(given, name, generators(count)) for name in ("component", "sample")}
    assert (mode(given) == 0.5).all()
    assert set(read["component"].unique().tolist()) == {-0.5, 0.5}
    assert (read["component"][:, 0] > 0).float().mean() == pytest.approx(0.7, abs=0.03)
    noise = read["sample"] - read["component"]
    assert float(noise.std()) == pytest.approx(0.05, rel=0.05)
    assert abs(float(noise.mean())) < 0.005


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"components": 0}, "mdn.components .* at least 1"),
        ({"min_std": 0.0}, "mdn.min_std .* above 0"),
        ({"readout": "median"}, "mdn.readout must be one of component, sample"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        MDNConfig(**fields)

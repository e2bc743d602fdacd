"""Counter-examples: their densities are exact, and the loss with them finds the true density."""

import math

import pytest
import torch

from ibc.config.implicit import LangevinConfig, NegativesConfig
from ibc.energy.losses import info_nce
from ibc.sampling.negatives import draw, log_density, moved, sample


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture(centre, **changes):
    values = {"count": 7, "shared": False, "uniform_share": 0.3, "scales": (0.2,), **changes}
    return NegativesConfig("mixture", centre=centre, **values)


MIXTURE = mixture("positive", scales=(0.4, 0.1))
TRUTH = mixture("positive", uniform_share=0.2, scales=(0.25,))


@pytest.mark.parametrize(("shared", "rows"), [(True, 1), (False, 2)])
def test_uniform_fills_the_bounds_evenly(shared, rows):
    config = NegativesConfig(count=4000, shared=shared)
    negatives, correction = sample(config, torch.full((2, 2), 5.0), torch.zeros(2, 2), generator())
    assert correction is None
    assert negatives.shape == (rows, 4000, 2)
    assert negatives.abs().max() <= 1.0
    counts, expected = torch.histc(negatives, bins=10, min=-1, max=1), 800 * rows
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.95, -0.99)])
def test_log_density_integrates_to_one(centre):
    line = (torch.arange(400) + 0.5) / 200 - 1
    grid = torch.cartesian_prod(line, line)
    density = log_density(MIXTURE, grid[None], torch.tensor([centre])).double().exp()
    assert float(density.sum()) / 200**2 == pytest.approx(1.0, abs=1e-4)


def test_draws_follow_the_density():
    centre = torch.tensor([[0.8, -0.9]])
    draws = draw(MIXTURE, centre, 200_000, generator())[0]
    assert draws.abs().max() <= 1.0
    line = (torch.arange(100) + 0.5) / 50 - 1
    density = log_density(MIXTURE, torch.cartesian_prod(line, line)[None], centre).exp()
    expected = density.view(10, 10, 10, 10).sum((1, 3)) * 200_000 / 50**2
    found = torch.histogramdd(draws, [10, 10], range=[-1.0, 1.0, -1.0, 1.0]).hist
    assert ((found - expected).abs() < 5 * expected.sqrt() + 5).all()


def test_density_is_symmetric_so_that_the_moved_positive_needs_no_correction():
    a, b = torch.rand(2, 50, 2, generator=generator()) * 2 - 1
    forth = log_density(MIXTURE, a[:, None], b)
    back = log_density(MIXTURE, b[:, None], a)
    torch.testing.assert_close(forth, back)


@pytest.mark.parametrize(
    "config",
    [
        NegativesConfig(count=7, shared=False),
        NegativesConfig(count=7, shared=True),
        mixture("agent"),
        pytest.param(mixture("agent", shared=True), marks=pytest.mark.slow),
        mixture("positive"),
    ],
)
def test_the_true_log_density_minimises_the_loss(config):
    """Positives from a known density: no sharpened, flattened or shifted energy does better."""
    n, batches = (4_000, 100) if config.shared else (20_000, 10)
    centre = torch.tensor([0.3, -0.2]).expand(n, 2)
    agent = torch.tensor([-0.4, 0.5]).expand(n, 2)
    totals = torch.zeros(5)
    random = generator(1)
    for _ in range(batches):
        positives = draw(TRUTH, centre, 1, random)
        negatives, correction = sample(config, positives[:, 0], agent, random)
        candidates = torch.cat([positives, negatives.expand(n, -1, -1)], 1)
        log_p = log_density(TRUTH, candidates, centre)
        wrong = log_density(TRUTH, candidates, agent)
        others = (0.75 * log_p, 1.35 * log_p, log_p + 0.25 * wrong, log_p - 0.25 * wrong)
        for i, logits in enumerate((log_p, *others)):
            totals[i] += info_nce(-logits, correction).mean()
    assert totals.argmin() == 0, totals / batches


def test_uncorrected_negatives_around_the_agent_are_biased():
    """The correction is not decoration: without it another energy has the lower loss."""
    n = 100_000
    config = mixture("agent")
    centre, agent = torch.zeros(n, 2), torch.full((n, 2), 0.2)
    positives = draw(TRUTH, centre, 1, generator(1))
    negatives, _ = sample(config, positives[:, 0], agent, generator(2))
    candidates = torch.cat([positives, negatives], 1)
    log_p = log_density(TRUTH, candidates, centre)
    log_q = log_density(config, candidates, agent)
    assert float(info_nce(log_q - log_p).mean()) < float(info_nce(-log_p).mean()) - 0.01


def bowl(target):
    return lambda actions: 200.0 * (actions - target[:, None]).square().sum(-1)


def moving(sampler, **changes):
    chain = LangevinConfig(steps=60, first_step=2e-3, last_step=1e-4)
    return NegativesConfig(sampler, count=300, shared=False, langevin=chain, **changes)


@pytest.mark.parametrize("sampler", ["dfo", "langevin"])
def test_moved_negatives_gather_where_the_energy_is_low(sampler):
    target = torch.tensor([[0.5, -0.25], [-0.8, 0.9]])
    found, statistics = moved(moving(sampler), torch.zeros(2, 2), bowl(target), generator())
    assert found.shape == (2, 300, 2)
    assert found.abs().max() <= 1.0
    assert ((found - target[:, None]).norm(dim=-1).mean(1) < 0.3).all()
    assert (found.mean(1) - target).abs().max() < 0.06
    assert float(statistics["chain_energy_drop"]) > 100.0
    assert 0.0 <= float(statistics["chain_at_bounds"]) < 0.3
    again, _ = moved(moving(sampler), torch.zeros(2, 2), bowl(target), generator())
    assert torch.equal(found, again)


@pytest.mark.parametrize("sampler", ["dfo", "langevin"])
def test_a_share_of_the_negatives_stays_uniform(sampler):
    target = torch.zeros(4, 2)
    config = moving(sampler, moved_share=0.5)
    found, _ = moved(config, torch.zeros(4, 2), bowl(target), generator())
    assert found.shape == (4, 300, 2)
    distance = found.norm(dim=-1)
    assert float(distance[:, :150].mean()) < 0.3
    assert float(distance[:, 150:].mean()) == pytest.approx(0.765, abs=0.05)


def test_no_gradient_comes_through_moved_negatives():
    weight = torch.ones(1, requires_grad=True)
    for sampler in ("dfo", "langevin"):
        found, statistics = moved(
            moving(sampler), torch.zeros(2, 2), lambda a: weight * a.square().sum(-1), generator()
        )
        assert not found.requires_grad
        assert not any(value.requires_grad for value in statistics.values())
    assert weight.grad is None


def test_moved_negatives_flatten_what_is_learned():
    """The stated bias: with negatives from the density itself, a constant energy is as good."""
    n = 50_000
    centre = torch.zeros(n, 2)
    positives = draw(TRUTH, centre, 1, generator(1))
    negatives = draw(TRUTH, centre, 7, generator(2))  # as if the chain had arrived
    log_p = log_density(TRUTH, torch.cat([positives, negatives], 1), centre)
    assert float(info_nce(0.0 * log_p).mean()) < float(info_nce(-log_p).mean()) - 0.1


def test_plain_sampling_of_moved_negatives_is_refused():
    with pytest.raises(ValueError, match="moved negatives need an energy"):
        sample(moving("dfo"), torch.zeros(2, 2), torch.zeros(2, 2), generator())

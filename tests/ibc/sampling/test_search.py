"""The samplers find the minimum, keep to the bounds, and treat every row by itself."""

import dataclasses
import math

import pytest
import torch

from ibc.config.implicit import READOUTS, InferenceConfig, LangevinConfig
from ibc.sampling.readout import Samples, resample
from ibc.sampling.readout import read_out as read_out_with
from ibc.sampling.search import Warm, lattice, search

CPU = torch.device("cpu")


def dfo(energy, action_dim, config, *rest):
    return search(energy, action_dim, dataclasses.replace(config, sampler="dfo"), *rest)


def langevin(energy, action_dim, config, *rest):
    return search(energy, action_dim, dataclasses.replace(config, sampler="langevin"), *rest)


def read_out(samples, readout, bandwidth=0.1):
    return read_out_with(samples, readout, torch.full((samples.actions.shape[2],), bandwidth))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def bowl(target, sharpness=200.0):
    def energy(actions):
        return sharpness * (actions - target[:, None]).square().sum(-1)

    return energy


@pytest.mark.parametrize(
    ("readout", "tolerance"),
    [("argmax", 0.05), ("softmax_mean", 0.03), ("mean_shift", 0.05), ("mode_mean", 0.03)],
)
def test_finds_the_minimum(readout, tolerance):
    target = torch.tensor([[0.5, -0.25], [-0.9, 0.9]])
    samples = dfo(bowl(target), 2, InferenceConfig(), generators(0, 1), CPU)
    assert samples.actions.shape == (2, 256, 2)
    assert (read_out(samples, readout) - target).abs().max() < tolerance


def test_samples_stay_inside_the_bounds():
    target = torch.tensor([[3.0, -3.0]])
    samples = dfo(bowl(target, 1.0), 2, InferenceConfig(noise=1.0), generators(0), CPU)
    assert samples.actions.abs().max() == 1.0
    assert read_out(samples, "argmax").tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("readout", READOUTS)
def test_a_row_does_not_depend_on_the_others(readout):
    target = torch.tensor([[0.1, 0.2], [0.3, -0.4], [-0.5, 0.6]])
    previous = torch.tensor([[0.1, 0.1], [0.2, 0.2], [torch.nan, torch.nan]])
    for sampler in ("lattice", "dfo", "langevin"):
        chain = LangevinConfig(steps=5, limit=0.1)
        config = InferenceConfig(sampler, lattice=21, samples=64, langevin=chain)

        def find(target, warm, *seeds, config=config):
            return search(bowl(target), 2, config, generators(*seeds), CPU, warm)

        together = read_out(find(target, None, 5, 6, 7), readout)
        torch.testing.assert_close(together[1:2], read_out(find(target[1:2], None, 6), readout))
        if sampler == "lattice":
            continue
        config = InferenceConfig(sampler, samples=64, langevin=chain, warm_start=0.5)
        warm = Warm(previous, torch.tensor([0.1, 0.1]))
        together = read_out(find(target, warm, 5, 6, 7, config=config), readout)
        alone = Warm(previous[1:2], warm.spread)
        torch.testing.assert_close(
            together[1:2], read_out(find(target[1:2], alone, 6, config=config), readout)
        )


def test_noise_shrinks_by_its_factor_every_round():
    rounds = []

    def energy(actions):
        # All weight on the sample nearest the middle: the next round scatters around it.
        rounds.append(actions)
        return 1e6 * actions.norm(dim=-1)

    config = InferenceConfig(samples=4000, iterations=4, noise=0.2, shrink=0.5)
    dfo(energy, 2, config, generators(0), CPU)
    spread = [float(actions.std(1).mean()) for actions in rounds]
    assert spread == pytest.approx([3**-0.5, 0.2, 0.1, 0.05], rel=0.05)


def test_one_iteration_is_a_plain_draw():
    samples = dfo(
        bowl(torch.zeros(1, 2)), 2, InferenceConfig(samples=5000, iterations=1), generators(0), CPU
    )
    assert float(samples.actions.std()) == pytest.approx(3**-0.5, rel=0.03)


def test_resampling_follows_the_weights():
    energies = -torch.tensor([[0.1, 0.2, 0.7]]).log()
    picks = resample(energies, torch.rand(1, 30_000, generator=generators(0)[0]))
    shares = torch.bincount(picks[0], minlength=3) / 30_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.01, rtol=0)


def test_resampling_never_runs_past_the_end():
    picks = resample(torch.zeros(1, 3), torch.tensor([[0.0, 1.0]]))
    assert picks.tolist() == [[0, 2]]


def test_readouts_of_a_two_valued_energy():
    samples = Samples(
        torch.tensor([[[-0.8], [0.8], [0.0]]]),
        torch.tensor([[0.0, 0.1, 50.0]]),
        torch.tensor([0.9]),
    )
    assert read_out(samples, "argmax").item() == pytest.approx(-0.8)
    assert read_out(samples, "sample").item() == pytest.approx(0.8)
    assert abs(read_out(samples, "softmax_mean").item()) < 0.1


def test_lattice_is_the_density():
    """On a lattice the softmax mean is the mean of the density, here a sum of two Gaussians."""

    def energy(actions):
        parts = [
            torch.tensor(share).log() - 50.0 * (actions - torch.tensor(at)).square().sum(-1)
            for share, at in ((0.25, [-0.4, 0.2]), (0.75, [0.4, -0.2]))
        ]
        return -torch.stack(parts).logsumexp(0).expand(4000, -1)

    samples = lattice(energy, 41, generators(*range(4000)), CPU)
    assert samples.actions.shape == (1, 41 * 41, 2)
    torch.testing.assert_close(
        read_out(samples, "softmax_mean")[0], torch.tensor([0.2, -0.1]), atol=1e-3, rtol=0
    )
    draws = read_out(samples, "sample")
    assert float((draws[:, 0] > 0).float().mean()) == pytest.approx(0.75, abs=0.03)
    assert float(draws[draws[:, 0] > 0, 0].std()) == pytest.approx(0.1, rel=0.1)
    shifted = read_out(samples, "mean_shift")
    right = shifted[:, 0] > 0
    assert float(right.float().mean()) == pytest.approx(0.75, abs=0.03)
    # One step of mean shift with the density's own width halves the distance from its middle.
    assert float(shifted[right, 0].std()) == pytest.approx(0.05, rel=0.1)
    assert float(shifted[right, 0].mean()) == pytest.approx(0.4, abs=0.01)


def test_lattice_of_one_dimension():
    samples = lattice(lambda a: a.squeeze(-1), 4, generators(0), CPU, action_dim=1)
    assert samples.actions.tolist() == [[[-0.75], [-0.25], [0.25], [0.75]]]
    assert read_out(samples, "argmax").tolist() == [[-0.75]]


def test_diffusion_policys_variants_of_dfo():
    """Constant noise without clipping leaves the bounds, where the energy draws it out."""
    target = torch.tensor([[1.5, -1.5]])
    constant = {"iterations": 5, "noise": 0.03, "shrink": 1.0, "samples": 1024}
    free = InferenceConfig("dfo", **constant, clip=False, readout="sample")
    found = dfo(bowl(target, 20.0), 2, free, generators(0), CPU)
    assert found.actions.abs().max() > 1.02
    clipped = InferenceConfig("dfo", **constant, readout="argmax")
    found = dfo(bowl(target, 20.0), 2, clipped, generators(0), CPU)
    assert found.actions.abs().max() <= 1.0
    torch.testing.assert_close(
        read_out(found, clipped.readout), torch.tensor([[1.0, -1.0]]), atol=0.03, rtol=0
    )


def test_langevin_draws_are_read_as_draws():
    """Draws from a density weigh the same: weighing them again would halve its variance."""
    config = InferenceConfig(
        "langevin",
        samples=2000,
        langevin=LangevinConfig(steps=300, first_step=5e-4, last_step=5e-4),
    )
    target = torch.tensor([[0.3, -0.2]]).expand(200, 2)
    samples = langevin(bowl(target[:1], 25.0), 2, config, generators(0), CPU)
    assert torch.equal(samples.log_weights, torch.zeros(1, 2000))
    assert float(samples.actions.std(1).mean()) == pytest.approx(50**-0.5, rel=0.05)
    energies = samples.energies.expand(200, -1)
    many = Samples(
        samples.actions.expand(200, -1, -1),
        energies,
        torch.rand(200, generator=generators(1)[0]),
        log_q=-energies,
    )
    assert float(read_out(many, "sample").std(0).mean()) == pytest.approx(50**-0.5, rel=0.15)
    assert float(read_out(many._replace(log_q=None), "sample").std(0).mean()) < 0.11
    for readout in ("argmax", "softmax_mean", "mode_mean"):
        torch.testing.assert_close(read_out(samples, readout), target[:1], atol=0.02, rtol=0)


def test_googles_chains_are_weighed_by_their_energy():
    """They settle in every basin alike, so that the depth must tell the basins apart."""

    def energy(actions):
        x = actions[..., 0]
        return 100.0 * (x.abs() - 0.5).square() + 3.0 * (x < 0)

    chain = LangevinConfig("google", steps=50, limit=0.1)
    config = InferenceConfig("langevin", samples=500, langevin=chain)
    found = langevin(energy, 1, config, generators(0), CPU)
    assert float((found.actions < 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    weights = torch.tensor([math.exp(3.0), -1.0]) / (math.exp(3.0) + 1.0)
    expected = float(weights.sum()) * 0.5
    assert read_out(found, "softmax_mean").item() == pytest.approx(expected, abs=0.03)


def test_mode_mean_takes_the_heaviest_neighbourhood_not_the_lowest_spike():
    """A wide mode of one part in three against a spike of less energy and little weight."""
    line = torch.linspace(-1, 1, 401)[None, :, None]
    wide = 0.5 * ((line - 0.4) / 0.1).square()
    spike = 0.5 * ((line + 0.5) / 0.004).square() - 1.5
    energies = -torch.logaddexp(-wide, -spike).squeeze(-1)
    samples = Samples(line, energies, torch.tensor([0.0]))
    assert read_out(samples, "argmax").item() == pytest.approx(-0.5)
    assert read_out(samples, "mode_mean").item() == pytest.approx(0.4, abs=0.02)
    other_draw = samples._replace(unit=torch.tensor([0.99]))
    assert torch.equal(read_out(samples, "mode_mean"), read_out(other_draw, "mode_mean"))


def test_mode_mean_of_a_chunk_stays_with_one_way():
    """Two chunks of 16 dimensions, the mean of which is neither."""
    ways = torch.stack([torch.full((16,), 0.4), torch.full((16,), -0.4)])
    noise = torch.randn(400, 16, generator=generators(0)[0]) * 0.02
    actions = (ways.repeat_interleave(torch.tensor([150, 250]), 0) + noise)[None]
    energies = noise.square().sum(1)[None]
    samples = Samples(actions, energies, torch.tensor([0.5]), log_q=-energies)
    found = read_out(samples, "mode_mean", 0.2)
    torch.testing.assert_close(found, ways[1:], atol=0.02, rtol=0)


def test_samples_start_around_the_previous_action():
    """Of a flat energy the first samples are what was drawn; a row without one stays uniform."""
    previous = torch.tensor([[0.5, -0.5], [torch.nan, torch.nan]])
    warm = Warm(previous, torch.tensor([0.02, 0.1]))
    config = InferenceConfig("dfo", samples=4000, iterations=1, warm_start=0.25)
    found = dfo(lambda a: a.new_zeros(a.shape[:2]), 2, config, generators(0, 1), CPU, warm)
    near = found.actions[0, :1000]
    torch.testing.assert_close(near.mean(0), previous[0], atol=0.01, rtol=0)
    torch.testing.assert_close(near.std(0), warm.spread, atol=0, rtol=0.1)
    for rest in (found.actions[0, 1000:], found.actions[1]):
        assert float(rest.std()) == pytest.approx(3**-0.5, rel=0.05)
        assert rest.isfinite().all()


def test_a_warm_start_finds_what_a_cold_one_misses():
    """A narrow minimum in 8 dimensions next to the previous action, 64 samples."""
    target = torch.full((1, 8), 0.35)
    config = InferenceConfig("dfo", samples=64, noise=0.05, warm_start=0.5)
    warm = Warm(torch.full((1, 8), 0.3), torch.full((8,), 0.05))

    def error(warm):
        found = dfo(bowl(target), 8, config, generators(0), CPU, warm)
        return float((read_out(found, "argmax") - target).abs().max())

    assert error(warm) < 0.15 < 0.4 < error(None)


def test_units_of_a_langevin_search_are_uniform():
    config = InferenceConfig("langevin", samples=1, langevin=LangevinConfig(steps=1))
    found = langevin(bowl(torch.zeros(1, 2)), 2, config, generators(*range(500)), CPU)
    assert float(found.unit.mean()) == pytest.approx(0.5, abs=3 / math.sqrt(12 * 500))

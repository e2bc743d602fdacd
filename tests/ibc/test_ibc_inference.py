"""The samplers find the minimum, keep to the bounds, and treat every row by itself."""

import pytest
import torch

from ibc.inference import READOUTS, InferenceConfig, Samples, dfo, lattice, resample
from ibc.inference import read_out as read_out_with

CPU = torch.device("cpu")


def read_out(samples, readout, bandwidth=0.1):
    return read_out_with(samples, readout, torch.full((samples.actions.shape[2],), bandwidth))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def bowl(target, sharpness=200.0):
    def energy(actions):
        return sharpness * (actions - target[:, None]).square().sum(-1)

    return energy


@pytest.mark.parametrize(
    ("readout", "tolerance"), [("argmax", 0.05), ("softmax_mean", 0.03), ("mean_shift", 0.05)]
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
    config = InferenceConfig(samples=64)
    for search in (
        lambda energy, g: dfo(energy, 2, config, g, CPU),
        lambda energy, g: lattice(energy, 21, g, CPU),
    ):
        together = read_out(search(bowl(target), generators(5, 6, 7)), readout)
        alone = read_out(search(bowl(target[1:2]), generators(6)), readout)
        torch.testing.assert_close(together[1:2], alone)


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

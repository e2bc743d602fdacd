"""DFO finds the minimum, keeps to the bounds, and treats every row by itself."""

import pytest
import torch

from ibc.inference import InferenceConfig, Samples, dfo, read_out, resample

CPU = torch.device("cpu")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def bowl(target, sharpness=200.0):
    def energy(actions):
        return sharpness * (actions - target[:, None]).square().sum(-1)

    return energy


@pytest.mark.parametrize(("readout", "tolerance"), [("argmax", 0.05), ("softmax_mean", 0.03)])
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


@pytest.mark.parametrize("readout", ["argmax", "sample", "softmax_mean"])
def test_a_row_does_not_depend_on_the_others(readout):
    target = torch.tensor([[0.1, 0.2], [0.3, -0.4], [-0.5, 0.6]])
    config = InferenceConfig(samples=64)
    together = read_out(dfo(bowl(target), 2, config, generators(5, 6, 7), CPU), readout)
    alone = read_out(dfo(bowl(target[1:2]), 2, config, generators(6), CPU), readout)
    assert torch.equal(together[1:2], alone)


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


def test_rows_need_generators():
    with pytest.raises(ValueError, match="a generator for every row"):
        dfo(bowl(torch.zeros(1, 2)), 2, InferenceConfig(), [], CPU)

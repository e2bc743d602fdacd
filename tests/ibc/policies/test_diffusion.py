"""Diffusion: levels as in the papers, the way back with a perfect denoiser, the network."""

import dataclasses
import math

import pytest
import torch

from ibc.config.explicit import DiffusionConfig
from ibc.policies.diffusion import (
    Denoiser,
    TimeConvolution,
    add_noise,
    denoise,
    passed_levels,
    signal_shares,
)

CONFIG = DiffusionConfig()


def generators(count):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_cosine_levels_are_those_of_the_formula():
    signal = signal_shares(CONFIG)
    assert signal.shape == (100,)
    assert (signal[1:] < signal[:-1]).all()

    def f(place):
        return math.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2

    for level in (0, 49, 90):
        assert float(signal[level]) == pytest.approx(f((level + 1) / 100) / f(0), rel=1e-4)
    # The last beta would be 1: capped at 0.999.
    assert float(signal[99] / signal[98]) == pytest.approx(0.001, rel=1e-3)


def test_noising_keeps_the_variance():
    generator = torch.Generator().manual_seed(0)
    chunks, noise = (torch.randn(20_000, 2, generator=generator) for _ in range(2))
    for share in (0.1, 0.5, 0.9):
        noised = add_noise(chunks, noise, torch.full((20_000,), share))
        assert float(noised.var()) == pytest.approx(1.0, abs=0.03)
        assert float((noised * chunks).mean()) == pytest.approx(math.sqrt(share), abs=0.03)


def test_levels_passed_begin_with_the_noisiest():
    assert passed_levels(CONFIG) == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert passed_levels(dataclasses.replace(CONFIG, inference_steps=1)) == [99]
    every = dataclasses.replace(CONFIG, inference_steps=100)
    assert passed_levels(every) == list(range(99, -1, -1))


@pytest.mark.parametrize("steps", [10, 100])
def test_a_perfect_denoiser_gives_back_the_distribution(steps):
    """For Gaussian data the best prediction is known in closed form."""
    mean, std = 0.3, 0.1
    config = DiffusionConfig(inference_steps=steps, spread=0.2)
    signal = signal_shares(config)
    m, s = mean / config.spread, std / config.spread

    def predict(x, level):
        share = signal[level].unsqueeze(1)
        residual = x - share.sqrt() * m
        return m + share.sqrt() * s**2 / (share * s**2 + 1 - share) * residual

    actions = denoise(predict, 2, config, signal, generators(2000))
    assert float(actions.mean()) == pytest.approx(mean, abs=0.01)
    # Few long strides end a little inside the distribution.
    assert (0.7 if steps == 10 else 0.9) * std < float(actions.std()) < 1.1 * std


def test_what_is_foreseen_is_clipped_to_the_bounds():
    far = denoise(
        lambda x, _: torch.full_like(x, 1e6), 4, CONFIG, signal_shares(CONFIG), generators(3)
    )
    assert (far == 1.0).all()


def test_convolution_is_that_of_torch():
    layer = TimeConvolution(4, 5)
    theirs = torch.nn.Conv1d(4, 4, 5, padding=2)
    with torch.no_grad():
        theirs.weight.copy_(layer.linear.weight.reshape(4, 5, 4).transpose(1, 2))
        theirs.bias.copy_(layer.linear.bias)
    x = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), theirs(x.transpose(1, 2)).transpose(1, 2))


def test_the_network_sees_observation_level_and_all_of_the_chunk():
    model = Denoiser(5, 8, DiffusionConfig(width=16, depth=2))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, generator=generator)
    noised = torch.randn(2, 16, generator=generator).requires_grad_()
    level = torch.tensor([3, 50])

    def out(features, noised, level):
        return model(model.observe(features), noised, level)

    base = out(features, noised, level)
    assert base.shape == (2, 16)
    assert not torch.allclose(out(features + 1, noised, level), base)
    assert not torch.allclose(out(features, noised, level + 1), base)
    first_action = torch.autograd.grad(base[:, :2].sum(), noised)[0]
    assert (first_action.abs() > 0).all(), "the first action depends on every number of the chunk"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inference_steps": 101}, r"must not exceed diffusion.train_steps 100, got 101"),
        ({"train_steps": 1}, "diffusion.train_steps .* at least 2"),
        ({"kernel": 4}, "diffusion.kernel must be odd, got 4"),
        ({"spread": 0.0}, "diffusion.spread .* above 0"),
        ({"eta": 1.0}, "diffusion.eta is retired and must be 0.0, got 1.0"),
        ({"prediction": "epsilon"}, 'diffusion.prediction is retired and must be "sample"'),
        ({"schedule": "linear"}, 'diffusion.schedule is retired and must be "cosine"'),
        ({"network": "mlp"}, 'diffusion.network is retired and must be "conv"'),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(**fields)

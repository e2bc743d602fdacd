"""Diffusion of action chunks: noise levels, the network, and denoising in few steps.

Nichol and Dhariwal 2021 (arXiv:2102.09672), Song et al. 2021 (arXiv:2010.02502), for actions Chi et
al. 2023 (arXiv:2303.04137).

Legend: B batch, H steps, A = 2, D = H * A dimensions of a chunk, L noise levels, F features,
W width.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibc.config.explicit import DiffusionConfig
from ibc.data.normalizer import BOUND

FREQUENCIES = 16


def signal_shares(config: DiffusionConfig) -> Tensor:
    """The share of the variance that is signal at each level (L,), decreasing; alpha bar."""
    place = torch.arange(config.train_steps + 1, dtype=torch.float64) / config.train_steps
    share = torch.cos((place + 0.008) / 1.008 * math.pi / 2).square()
    betas = 1.0 - share[1:] / share[:-1]
    return (1.0 - betas.clamp(max=0.999)).cumprod(0).float()


def add_noise(chunks_BD: Tensor, noise_BD: Tensor, signal_B: Tensor) -> Tensor:
    """Noised chunks whose share of signal is `signal_B` (Ho et al. 2020, eq. 4)."""
    signal_B1 = signal_B.unsqueeze(1)
    return signal_B1.sqrt() * chunks_BD + (1.0 - signal_B1).sqrt() * noise_BD


def passed_levels(config: DiffusionConfig) -> list[int]:
    """The levels passed at inference, evenly spread, noisiest first."""
    K, L = config.inference_steps, config.train_steps
    return [round((K - k) * L / K) - 1 for k in range(K)]


def denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    dimensions: int,
    config: DiffusionConfig,
    signal_L: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Chunks (B, D) in normalised units from noise (Song et al., eq. 12 without fresh noise).

    predict: noised chunks (B, D) and their levels (B,) to chunks, which are clipped to the bounds
    at every level. Row b's noise is drawn from generators[b].
    """
    drawn = [torch.randn(dimensions, generator=g, device=g.device) for g in generators]
    x_BD = torch.stack(drawn).to(signal_L.device)
    limit, levels = BOUND / config.spread, passed_levels(config)

    def clean(level: int) -> Tensor:
        level_B = torch.full((len(x_BD),), level, device=x_BD.device)
        return predict(x_BD, level_B).clamp(-limit, limit)

    clean_BD = clean(levels[0])
    for before, level in pairwise(levels):
        signal, left = signal_L[before], signal_L[level]
        # The noise that belongs to the clipped chunk, not to the raw prediction.
        noise_BD = (x_BD - signal.sqrt() * clean_BD) / (1.0 - signal).sqrt()
        x_BD = left.sqrt() * clean_BD + (1.0 - left).sqrt() * noise_BD
        clean_BD = clean(level)
    return clean_BD * config.spread


class Denoiser(nn.Module):
    """Noised chunk, its level and the observation's features to a chunk (Chi et al. 2023).

    Residual convolutions over the steps, conditioned on the observation and the level by a scale
    and a shift of every channel.
    """

    def __init__(self, features: int, action_horizon: int, config: DiffusionConfig) -> None:
        super().__init__()
        W = config.width
        self.last_level = config.train_steps - 1
        self.observation = nn.Linear(features, W)
        self.level = nn.Linear(2 * FREQUENCIES, W)
        self.inputs = nn.Linear(2, W)
        # Steps: a convolution cannot tell them apart, and later actions spread wider.
        self.place = nn.Parameter(torch.randn(action_horizon, W) * 0.1)
        self.blocks = nn.ModuleList(FilmBlock(W, config.kernel) for _ in range(config.depth))
        self.norm = nn.LayerNorm(W)
        self.out = nn.Linear(W, 2)

    def observe(self, features_BF: Tensor) -> Tensor:
        """The observation's part of the condition, (B, W), computed once for all levels."""
        context_BW: Tensor = self.observation(features_BF)
        return context_BW

    def forward(self, context_BW: Tensor, noised_BD: Tensor, level_B: Tensor) -> Tensor:
        """(B, D) in float32. First and last layer stay in float32 under autocast."""
        condition_BW = context_BW + self.level(self._waves(level_B))
        with torch.autocast(noised_BD.device.type, enabled=False):
            h_BHW = self.inputs(noised_BD.reshape(len(noised_BD), -1, 2)) + self.place
        for block in self.blocks:
            h_BHW = block(h_BHW, functional.silu(condition_BW))
        with torch.autocast(noised_BD.device.type, enabled=False):
            out_BHA: Tensor = self.out(functional.silu(self.norm(h_BHW.float())))
        return out_BHA.flatten(1)

    def _waves(self, level_B: Tensor) -> Tensor:
        exponents = torch.arange(FREQUENCIES, device=level_B.device) / (FREQUENCIES - 1)
        # From half a wave over all levels to one that separates neighbouring levels.
        angles = (level_B / self.last_level).unsqueeze(1) * math.pi * 200.0**exponents
        return torch.cat([angles.sin(), angles.cos()], 1)


class FilmBlock(nn.Module):
    """Norm, convolution, scale and shift by the condition (Perez et al. 2018), convolution."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = TimeConvolution(width, kernel)
        self.film = nn.Linear(width, 2 * width)
        self.second = TimeConvolution(width, kernel)

    def forward(self, h_BHW: Tensor, condition_BW: Tensor) -> Tensor:
        """(B, H, W) to (B, H, W), added to what came in."""
        scale_B1W, shift_B1W = self.film(condition_BW).unsqueeze(1).chunk(2, 2)
        u_BHW = self.first(self.norm(h_BHW)) * (1.0 + scale_B1W) + shift_B1W
        out: Tensor = h_BHW + self.second(functional.silu(u_BHW))
        return out


class TimeConvolution(nn.Module):
    """A 1-D convolution over (B, H, W) that keeps the length, zeros beyond the ends.

    Computed as one matrix product over concatenated neighbours, on short chunks several times
    faster on a CPU than convolution kernels, and without transposing.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.linear = nn.Linear(kernel * width, width)

    def forward(self, x_BHW: Tensor) -> Tensor:
        """(B, H, W) to (B, H, W)."""
        H, reach = x_BHW.shape[1], self.kernel // 2
        padded = functional.pad(x_BHW, (0, 0, reach, reach))
        out: Tensor = self.linear(torch.cat([padded[:, i : i + H] for i in range(self.kernel)], 2))
        return out

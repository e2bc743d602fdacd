"""Diffusion of action chunks: noise levels, noising, and denoising in few steps.

Ho et al. 2020 (arXiv:2006.11239), Nichol and Dhariwal 2021 (arXiv:2102.09672), Song et al. 2021
(arXiv:2010.02502), for actions Chi et al. 2023 (arXiv:2303.04137).

Legend: B batch, D = H * A dimensions of a chunk, L noise levels.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ibc.config.explicit import DiffusionConfig
from ibc.data.normalizer import BOUND

FAINT = 0.01  # share of signal at the level where denoising begins


def signal_shares(config: DiffusionConfig) -> Tensor:
    """The share of the variance that is signal at each level (L,), decreasing; alpha bar."""
    L = config.train_steps
    if config.schedule == "linear":
        # The betas of Ho et al. are for 1000 levels; fewer levels need larger ones.
        betas = torch.linspace(1e-4, 0.02, L, dtype=torch.float64) * (1000 / L)
    else:
        place = torch.arange(L + 1, dtype=torch.float64) / L
        share = torch.cos((place + 0.008) / 1.008 * math.pi / 2).square()
        betas = 1.0 - share[1:] / share[:-1]
    return (1.0 - betas.clamp(max=0.999)).cumprod(0).float()


def add_noise(chunks_BD: Tensor, noise_BD: Tensor, signal_B: Tensor) -> Tensor:
    """Noised chunks whose share of signal is `signal_B` (Ho et al., eq. 4)."""
    signal_B1 = signal_B.unsqueeze(1)
    return signal_B1.sqrt() * chunks_BD + (1.0 - signal_B1).sqrt() * noise_BD


def passed_levels(config: DiffusionConfig) -> list[int]:
    """The levels passed at inference, noisiest first: at most inference_steps, evenly spread.

    A chunk is predicted from its noise by a division by the root of the signal's share, which on
    the noisiest levels magnifies small errors to actions at the bounds: with "epsilon" denoising
    begins where the share is FAINT.
    """
    K, count = config.inference_steps, config.train_steps
    if config.prediction == "epsilon":
        count = max(1, int((signal_shares(config) >= FAINT).sum()))
    return list(dict.fromkeys(max(0, round((K - k) * count / K) - 1) for k in range(K)))


def denoise(
    predict: Callable[[Tensor, int], Tensor],
    dimensions: int,
    config: DiffusionConfig,
    signal_L: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Chunks (B, D) in normalised units from noise (Song et al., eq. 12 and 16).

    predict: noised chunks (B, D) and their level to the configured prediction. The predicted chunk
    is clipped to the bounds at every level. Row b's noise is drawn from generators[b].
    """
    rounds = config.inference_steps if config.eta > 0.0 else 1
    drawn = [torch.randn(rounds, dimensions, generator=g, device=g.device) for g in generators]
    noise_BRD = torch.stack(drawn).to(signal_L.device)
    limit = BOUND / config.spread
    levels = passed_levels(config)
    x_BD = noise_BRD[:, 0]
    for k, level in enumerate(levels):
        signal = signal_L[level]
        predicted_BD = predict(x_BD, level)
        if config.prediction == "epsilon":
            predicted_BD = (x_BD - (1.0 - signal).sqrt() * predicted_BD) / signal.sqrt()
        clean_BD = predicted_BD.clamp(-limit, limit)
        if k + 1 == len(levels):
            break
        # The noise that belongs to the clipped chunk, not to the raw prediction.
        epsilon_BD = (x_BD - signal.sqrt() * clean_BD) / (1.0 - signal).sqrt()
        left = signal_L[levels[k + 1]]
        fresh = config.eta * ((1.0 - left) / (1.0 - signal) * (1.0 - signal / left)).sqrt()
        x_BD = left.sqrt() * clean_BD + (1.0 - left - fresh.square()).sqrt() * epsilon_BD
        if config.eta > 0.0:
            x_BD = x_BD + fresh * noise_BRD[:, k + 1]
    return clean_BD * config.spread

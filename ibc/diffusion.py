"""Diffusion of action chunks: noise levels, noising, and the few-step way back.

Ho et al. 2020 (arXiv:2006.11239), Nichol and Dhariwal 2021 (arXiv:2102.09672), Song et al. 2021
(arXiv:2010.02502), for actions Chi et al. 2023 (arXiv:2303.04137).

Legend: B batch, D = H * A dimensions of a chunk, L noise levels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ibc.checks import check, check_choice, check_float, check_int
from ibc.normalize import BOUND

FAINT = 0.01


@dataclass(frozen=True)
class DiffusionConfig:
    """Denoising of the whole chunk; read for policies of kind "diffusion" alone.

    train_steps: noise levels L. inference_steps: how many of them are passed on the way back.
    schedule: "cosine" (Nichol and Dhariwal, eq. 17) or "linear" (Ho et al., for any L).
    prediction: what the network says of a noised chunk: its noise ("epsilon") or the "sample",
    which a short training and few steps back get right sooner.
    eta: 0 draws only the start (DDIM; few steps then end a little closer to the middle of what they
    draw from); 1 with all steps is the ancestral sampler of Ho et al.
    spread: the standard deviation that normalised actions are taken to have; they are divided by it
    before they are noised, so that the levels tell what they tell for data of deviation 1.
    network: "conv" is a residual 1-D convolution over the chunk's steps, "mlp" one over the chunk
    as a whole; width of each of `depth` blocks, kernel in steps, for "conv".

    Chunks want action bounds of their own (see ibc/normalize.py): later actions lie farther from
    the agent than a window of 100 px, so take action.bounds "steps" for an action_horizon above 2.
    """

    train_steps: int = 100
    inference_steps: int = 10
    schedule: Literal["cosine", "linear"] = "cosine"
    prediction: Literal["epsilon", "sample"] = "sample"
    eta: float = 0.0
    spread: float = 0.2
    network: Literal["conv", "mlp"] = "conv"
    width: int = 64
    depth: int = 2
    kernel: int = 5

    def __post_init__(self) -> None:
        check_int("diffusion.train_steps", self.train_steps, 2, 10_000)
        check_int("diffusion.inference_steps", self.inference_steps, 1)
        check(
            self.inference_steps <= self.train_steps,
            f"diffusion.inference_steps must not exceed diffusion.train_steps {self.train_steps}",
            self.inference_steps,
        )
        check_choice("diffusion.schedule", self.schedule, ("cosine", "linear"))
        check_choice("diffusion.prediction", self.prediction, ("epsilon", "sample"))
        check_float("diffusion.eta", self.eta, 0.0, 1.0)
        check_float("diffusion.spread", self.spread, 0.0, 10.0, open_low=True)
        check_choice("diffusion.network", self.network, ("conv", "mlp"))
        check_int("diffusion.width", self.width, 2, 8192)
        check_int("diffusion.depth", self.depth, 1, 32)
        check_int("diffusion.kernel", self.kernel, 1, 31)
        check(self.kernel % 2 == 1, "diffusion.kernel must be odd", self.kernel)


def signal_shares(config: DiffusionConfig) -> Tensor:
    """The share of the variance that is signal at each level (L,), falling; alpha bar in papers."""
    L = config.train_steps
    if config.schedule == "linear":
        # The betas of Ho et al. are those of 1000 levels; fewer levels take longer strides.
        betas = torch.linspace(1e-4, 0.02, L, dtype=torch.float64) * (1000 / L)
    else:
        place = torch.arange(L + 1, dtype=torch.float64) / L
        share = torch.cos((place + 0.008) / 1.008 * math.pi / 2).square()
        betas = 1.0 - share[1:] / share[:-1]
    return (1.0 - betas.clamp(max=0.999)).cumprod(0).float()


def add_noise(chunks_BD: Tensor, noise_BD: Tensor, signal_B: Tensor) -> Tensor:
    """Chunks of which the share `signal_B` of the variance is left (Ho et al., eq. 4)."""
    signal_B1 = signal_B.unsqueeze(1)
    return signal_B1.sqrt() * chunks_BD + (1.0 - signal_B1).sqrt() * noise_BD


def passed_levels(config: DiffusionConfig) -> list[int]:
    """The levels passed at inference, noisiest first: at most inference_steps, evenly spread.

    A chunk is foreseen from its noise by a division by the root of the signal's share, so that on
    the last levels the smallest error of the noise becomes an action at the bounds: with "epsilon"
    the way back begins where the share is FAINT.
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

    predict: noised chunks (B, D) and their level to what `config.prediction` says. The chunk
    foreseen is clipped to the bounds at every level. All of row b's noise is drawn from
    generators[b], where that lives.
    """
    rounds = config.inference_steps if config.eta > 0.0 else 1
    drawn = [torch.randn(rounds, dimensions, generator=g, device=g.device) for g in generators]
    noise_BRD = torch.stack(drawn).to(signal_L.device)
    limit = BOUND / config.spread
    levels = passed_levels(config)
    x_BD = noise_BRD[:, 0]
    for k, level in enumerate(levels):
        signal = signal_L[level]
        says_BD = predict(x_BD, level)
        if config.prediction == "epsilon":
            says_BD = (x_BD - (1.0 - signal).sqrt() * says_BD) / signal.sqrt()
        clean_BD = says_BD.clamp(-limit, limit)
        if k + 1 == len(levels):
            break
        # The noise that goes with the clipped chunk, not with what the network said.
        epsilon_BD = (x_BD - signal.sqrt() * clean_BD) / (1.0 - signal).sqrt()
        left = signal_L[levels[k + 1]]
        fresh = config.eta * ((1.0 - left) / (1.0 - signal) * (1.0 - signal / left)).sqrt()
        x_BD = left.sqrt() * clean_BD + (1.0 - left - fresh.square()).sqrt() * epsilon_BD
        if config.eta > 0.0:
            x_BD = x_BD + fresh * noise_BRD[:, k + 1]
    return clean_BD * config.spread

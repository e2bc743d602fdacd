"""The network of the diffusion policy: residual blocks over a chunk, conditioned by FiLM.

Legend: B batch, F features, H steps, A = 2, D = H * A, W width, X inputs of a position.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibc.config.explicit import DiffusionConfig

FREQUENCIES = 16


class Denoiser(nn.Module):
    """Noised chunk, its level and the observation's features to a chunk (Chi et al. 2023).

    "conv" has H positions of A numbers, "mlp" one position of D numbers; both use the same blocks,
    conditioned on the observation and the level by a scale and a shift of every channel.
    """

    def __init__(self, features: int, action_horizon: int, config: DiffusionConfig) -> None:
        super().__init__()
        conv, W = config.network == "conv", config.width
        self.positions = action_horizon if conv else 1
        inputs, kernel = (2, config.kernel) if conv else (2 * action_horizon, 1)
        self.last_level = config.train_steps - 1
        self.observation = nn.Linear(features, W)
        self.level = nn.Linear(2 * FREQUENCIES, W)
        self.inputs = nn.Linear(inputs, W)
        # Positions: a convolution cannot tell them apart, and later actions spread wider.
        self.place = nn.Parameter(torch.randn(self.positions, W) * 0.1)
        self.blocks = nn.ModuleList(FilmBlock(W, kernel) for _ in range(config.depth))
        self.norm = nn.LayerNorm(W)
        self.out = nn.Linear(W, inputs)

    def observe(self, features_BF: Tensor) -> Tensor:
        """The observation's part of the condition, (B, W), computed once for all steps."""
        context_BW: Tensor = self.observation(features_BF)
        return context_BW

    def forward(self, context_BW: Tensor, noised_BD: Tensor, level_B: Tensor) -> Tensor:
        """(B, D) in float32. First and last layer stay in float32 under autocast."""
        condition_BW = context_BW + self.level(self._waves(level_B))
        with torch.autocast(noised_BD.device.type, enabled=False):
            h_BHW = self.inputs(noised_BD.reshape(len(noised_BD), self.positions, -1)) + self.place
        for block in self.blocks:
            h_BHW = block(h_BHW, functional.silu(condition_BW))
        with torch.autocast(noised_BD.device.type, enabled=False):
            out_BHX: Tensor = self.out(functional.silu(self.norm(h_BHW.float())))
        return out_BHX.flatten(1)

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
        if reach:
            padded = functional.pad(x_BHW, (0, 0, reach, reach))
            x_BHW = torch.cat([padded[:, i : i + H] for i in range(self.kernel)], 2)
        out: Tensor = self.linear(x_BHW)
        return out

"""Mixtures of diagonal Gaussians over action chunks, from a network's output (Bishop 1994).

Legend: B batch, M components, D = H * A dimensions of a chunk.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Mixture(NamedTuple):
    """log_weights (B, M), normalised; means (B, M, D); stds (B, M, D)."""

    log_weights: Tensor
    means: Tensor
    stds: Tensor


def outputs(components: int, dimensions: int) -> int:
    """Size of a network's output for a mixture."""
    return components * (1 + 2 * dimensions)


def mixture(raw_BX: Tensor, components: int, min_std: float) -> Mixture:
    """The mixture of a network's raw output (B, M * (1 + 2 D)), in float32."""
    raw_BMX = raw_BX.float().reshape(len(raw_BX), components, -1)
    D = raw_BMX.shape[2] // 2
    return Mixture(
        torch.log_softmax(raw_BMX[..., 0], 1),
        raw_BMX[..., 1 : 1 + D],
        functional.softplus(raw_BMX[..., 1 + D :]) + min_std,
    )


def log_likelihood(given: Mixture, actions_BD: Tensor) -> Tensor:
    """The log density (B,) of one chunk a row, finite even far from all components."""
    z_BMD = (actions_BD.unsqueeze(-2) - given.means) / given.stds
    log_BMD = -0.5 * z_BMD.square() - given.stds.log() - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(given.log_weights + log_BMD.sum(-1), -1)


def one_gaussian(actions_BD: Tensor, min_std: float) -> Tensor:
    """Mean log likelihood of a batch of actions under one diagonal Gaussian fitted to it.

    A dimension's deviation is floored at min_std, as those of the mixture are.
    """
    variance_D = actions_BD.var(0, correction=0).clamp(min=min_std**2)
    return -0.5 * (torch.log(2 * math.pi * variance_D) + 1.0).sum()


def mode(given: Mixture) -> Tensor:
    """The mean (B, D) of the component of largest weight."""
    return _picked(given.means, given.log_weights.argmax(1))


def read_mixture(given: Mixture, readout: str, generators: Sequence[torch.Generator]) -> Tensor:
    """One chunk (B, D) a row; row b draws from generators[b], equally many numbers per readout."""
    device, (M, D) = given.means.device, given.means.shape[1:]
    units = [torch.rand(1, generator=g, device=g.device) for g in generators]
    normals = [torch.randn(D, generator=g, device=g.device) for g in generators]
    cumulative_BM = given.log_weights.double().exp().cumsum(1)
    unit_B1 = torch.stack(units).to(device).double() * cumulative_BM[:, -1:]
    picks_B = torch.searchsorted(cumulative_BM, unit_B1, right=True).clamp_(max=M - 1).squeeze(1)
    means_BD = _picked(given.means, picks_B)
    if readout == "component":
        return means_BD
    return means_BD + _picked(given.stds, picks_B) * torch.stack(normals).to(device)


def _picked(of_components_BMD: Tensor, picks_B: Tensor) -> Tensor:
    return of_components_BMD[torch.arange(len(picks_B), device=picks_B.device), picks_B]

"""Reading one action out of scored samples.

Legend: B batch, S samples per observation, M modes looked at, D action dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

READOUTS = ("argmax", "sample", "softmax_mean", "mean_shift", "mode_mean")
MODES = 16  # samples of least energy around which "mode_mean" looks for the best neighbourhood


class Samples(NamedTuple):
    """Actions (B, S, D), or (1, S, D) for all rows; energies (B, S); a uniform number (B,).

    drawn: the actions are draws from exp(-energy) already, so they all weigh the same; weighing
    them by the energy again would square the density.
    """

    actions: Tensor
    energies: Tensor
    unit: Tensor
    drawn: bool = False


def read_out(samples: Samples, readout: str, bandwidth_D: Tensor) -> Tensor:
    """One action (B, D) for each row out of the samples; bandwidth_D in normalised units.

    The mode of a density of human moves is slower than its mean, for the scatter of a move grows
    with its size, so that "argmax" creeps and stops; the mean falls between two ways around the
    block. "mean_shift" picks one of the ways by a draw and takes the mean of that one; "mode_mean"
    does without the draw: of the neighbourhoods of the least energies, the one that weighs most.
    """
    energies_BS = torch.zeros_like(samples.energies) if samples.drawn else samples.energies
    actions_BSD = samples.actions.expand(len(energies_BS), -1, -1)
    if readout == "softmax_mean":
        return _mean(-energies_BS, actions_BSD)
    if readout == "mode_mean":
        return _mean(_best_neighbourhood(samples, -energies_BS, bandwidth_D), actions_BSD)
    if readout == "argmax":
        picks_B1 = samples.energies.argmin(1, keepdim=True)
    else:
        picks_B1 = resample(energies_BS, samples.unit.unsqueeze(1))
    picked_B1D = actions_BSD.gather(1, picks_B1.unsqueeze(-1).expand(-1, -1, actions_BSD.shape[2]))
    if readout == "mean_shift":
        squares_BS = ((actions_BSD - picked_B1D) / bandwidth_D).square().sum(-1)
        return _mean(-energies_BS - 0.5 * squares_BS, actions_BSD)
    return picked_B1D.squeeze(1)


def _best_neighbourhood(samples: Samples, log_weights_BS: Tensor, bandwidth_D: Tensor) -> Tensor:
    """Log weights (B, S) of the heaviest Gaussian neighbourhood among the least energies'."""
    count = min(MODES, log_weights_BS.shape[1])
    picks_BM = samples.energies.topk(count, largest=False).indices
    places_BSD = (samples.actions / bandwidth_D).expand(len(picks_BM), -1, -1)
    modes_BMD = places_BSD.gather(1, picks_BM.unsqueeze(-1).expand(-1, -1, places_BSD.shape[2]))
    exact = "donot_use_mm_for_euclid_dist"
    distance_BMS = torch.cdist(modes_BMD, places_BSD.contiguous(), compute_mode=exact)
    near_BMS = log_weights_BS.unsqueeze(1) - 0.5 * distance_BMS.square()
    # What is e^-60 of the largest weighs nothing, and logsumexp is slow on a CPU where it is there.
    floor_B11 = near_BMS.amax((1, 2), keepdim=True) - 60.0
    best_B = near_BMS.clamp(min=floor_B11).logsumexp(2).argmax(1)
    return near_BMS[torch.arange(len(best_B), device=best_B.device), best_B]


def resample(energies_BS: Tensor, unit_BX: Tensor) -> Tensor:
    """Indices (B, X) drawn with replacement from softmax(-energy), by the inverse of its sum."""
    # In float64 the running sum of thousands of weights still ends where it should.
    cumulative_BS = torch.softmax(-energies_BS.double(), 1).cumsum(1)
    target_BX = unit_BX.double() * cumulative_BS[:, -1:]
    return torch.searchsorted(cumulative_BS, target_BX, right=True).clamp_(
        max=energies_BS.shape[1] - 1
    )


def _mean(log_weights_BS: Tensor, actions_BSD: Tensor) -> Tensor:
    return torch.bmm(torch.softmax(log_weights_BS, 1).unsqueeze(1), actions_BSD).squeeze(1)

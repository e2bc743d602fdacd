"""Reading one action out of scored samples.

Legend: B batch, S samples per observation, M modes looked at, D action dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MODES = 16  # samples of least energy around which "mode_mean" looks for the best neighbourhood


class Samples(NamedTuple):
    """Actions (B, S, D), or (1, S, D) for all rows; energies (B, S); a uniform number (B,).

    log_q: the log density (B, S) that the actions are draws from, up to a constant; None for
    a uniform one.
    """

    actions: Tensor
    energies: Tensor
    unit: Tensor
    log_q: Tensor | None = None

    @property
    def log_weights(self) -> Tensor:
        """Importance weights (B, S) for the density exp(-energy), up to a constant.

        Draws from exp(-energy) itself all weigh the same; weighing them by the energy again would
        square the density.
        """
        return -self.energies if self.log_q is None else -self.energies - self.log_q


def read_out(samples: Samples, readout: str, bandwidth_D: Tensor) -> Tensor:
    """One action (B, D) for each row out of the samples; bandwidth_D in normalised units.

    The mode of a density of human moves is slower than its mean, because the variance of a move
    grows with its size: "argmax" slows down and stops. The mean falls between two ways around the
    block. "mean_shift" chooses a mode by a draw and takes the mean around it; "mode_mean" takes the
    heaviest of the neighbourhoods of the least energies instead of a draw.
    """
    log_weights_BS = samples.log_weights
    if readout == "softmax_mean":
        return _mean(log_weights_BS, samples.actions)
    if readout == "mode_mean":
        return _mean(_best_neighbourhood(samples, log_weights_BS, bandwidth_D), samples.actions)
    if readout == "argmax":
        picks_B1 = samples.energies.argmin(1, keepdim=True)
    else:
        picks_B1 = resample(-log_weights_BS, samples.unit.unsqueeze(1))
    picked_B1D = samples.actions.take_along_dim(picks_B1.unsqueeze(2), 1)
    if readout == "mean_shift":
        squares_BS = _squares(samples.actions, picked_B1D, bandwidth_D)
        return _mean(squares_BS.mul_(-0.5).add_(log_weights_BS), samples.actions)
    return picked_B1D.squeeze(1)


def _best_neighbourhood(samples: Samples, log_weights_BS: Tensor, bandwidth_D: Tensor) -> Tensor:
    """Log weights (B, S) of the heaviest Gaussian neighbourhood among the least energies'."""
    count = min(MODES, log_weights_BS.shape[1])
    picks_BM = samples.energies.topk(count, largest=False).indices
    places_BSD = (samples.actions / bandwidth_D).expand(len(picks_BM), -1, -1)
    modes_BMD = places_BSD.take_along_dim(picks_BM.unsqueeze(2), 1)
    exact = "donot_use_mm_for_euclid_dist"
    distance_BMS = torch.cdist(modes_BMD, places_BSD.contiguous(), compute_mode=exact)
    near_BMS = log_weights_BS.unsqueeze(1) - 0.5 * distance_BMS.square()
    # Weights below e^-60 of the largest do not count, and make logsumexp slow on a CPU.
    floor_B11 = near_BMS.amax((1, 2), keepdim=True) - 60.0
    best_B = near_BMS.clamp(min=floor_B11).logsumexp(2).argmax(1)
    return near_BMS[torch.arange(len(best_B), device=best_B.device), best_B]


def resample(energies_BS: Tensor, unit_BX: Tensor) -> Tensor:
    """Indices (B, X) drawn with replacement from softmax(-energy), by its inverse CDF."""
    # float64: in float32 the sum of thousands of weights is not accurate enough.
    cumulative_BS = torch.softmax(-energies_BS, 1).cumsum(1, dtype=torch.float64)
    target_BX = unit_BX.double() * cumulative_BS[:, -1:]
    return torch.searchsorted(cumulative_BS, target_BX, right=True).clamp_(
        max=energies_BS.shape[1] - 1
    )


def _squares(actions_BSD: Tensor, centre_B1D: Tensor, lengths_D: Tensor) -> Tensor:
    """Squared distances (B, S) in units of the lengths, axis by axis: a sum over two is slow."""
    total_BS, *others = (
        (actions_BSD[..., d] - centre_B1D[..., d]).div_(length).square_()
        for d, length in enumerate(lengths_D)
    )
    for squares_BS in others:
        total_BS.add_(squares_BS)
    return total_BS


def _mean(log_weights_BS: Tensor, actions_BSD: Tensor) -> Tensor:
    """Actions (B, D); those of shape (1, S, D) are the same for all rows."""
    weights_BS = torch.softmax(log_weights_BS, 1)
    if len(actions_BSD) == 1:
        return weights_BS @ actions_BSD[0]
    return torch.bmm(weights_BS.unsqueeze(1), actions_BSD).squeeze(1)

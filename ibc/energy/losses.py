"""InfoNCE (Florence et al. 2021) with the ranking-NCE correction, and the gradient penalty.

Legend: B batch, K = N + 1 candidates, the positive first; D action dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ibc.config.implicit import LossConfig
from ibc.energy.models import EnergyModel, slope


def info_nce(energies_BK: Tensor, correction_BK: Tensor | None = None) -> Tensor:
    """Cross-entropy (B,) of picking the positive, column 0, out of all candidates.

    logits = -energy + correction. Equal energies give ln(N + 1), the chance level. Candidates that
    are not drawn uniformly need a correction (see ibc/sampling/negatives.py).
    """
    logits_BK = -energies_BK if correction_BK is None else correction_BK - energies_BK
    # Not logsumexp, which is ten times slower on a CPU once a logit lies 90 below another.
    return -torch.log_softmax(logits_BK, 1)[:, 0]


def likelihood(energies_BK: Tensor, target_BS: Tensor | None = None) -> Tensor:
    """Minus the log density (B,) of column 0, normalised over the other columns, a lattice.

    With `target_BS`, weights over the lattice, it is the cross-entropy to these instead. Equal
    energies give ln S.
    """
    energies_B, cells_BS = energies_BK[:, 0], energies_BK[:, 1:]
    log_p_BS = torch.log_softmax(-cells_BS, 1)
    if target_BS is not None:
        return -(target_BS * log_p_BS).sum(1)
    return energies_B - cells_BS[:, 0] - log_p_BS[:, 0]


def soft_target(cells_1SD: Tensor, positives_BD: Tensor, lengths_D: Tensor) -> Tensor:
    """Weights (B, S) of a Gaussian around each demonstrated action, with these deviations."""
    squares_BS = ((cells_1SD - positives_BD.unsqueeze(1)) / lengths_D).square().sum(2)
    return torch.softmax(-0.5 * squares_BS, 1)


def gradient_penalty(
    energy: Callable[[Tensor], Tensor], actions_BND: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Mean squared excess of the slope along the steepest axis over its margin, and mean slope.

    `energy` maps (B, N, D) to (B, N). The gradient reaches the weights and the observation, not the
    actions. Under no_grad no graph is kept.
    """
    _, slope_BND = slope(energy, actions_BND, graph=torch.is_grad_enabled())
    length_BN = slope_BND.abs().amax(-1)
    excess_BN = (length_BN - config.penalty_margin).clamp(min=0.0)
    return excess_BN.square().mean(), length_BN.detach().mean()


def candidate_statistics(energies_BK: Tensor, correction_BK: Tensor | None) -> dict[str, Tensor]:
    """How hard the candidates are: metrics without gradient.

    energy_gap: mean energy of the negatives minus that of the positive. effective_negatives: the
    number of negatives that carry the softmax over negatives (its perplexity).
    """
    energies_BK = energies_BK.detach()
    logits_BK = -energies_BK if correction_BK is None else correction_BK - energies_BK
    logits_BN = logits_BK[:, 1:].contiguous()
    p_BN, log_p_BN = torch.softmax(logits_BN, 1), torch.log_softmax(logits_BN, 1)
    entropy_B = -(p_BN * log_p_BN).sum(1)
    return {
        "energy_gap": (energies_BK[:, 1:].mean(1) - energies_BK[:, 0]).mean(),
        "effective_negatives": entropy_B.exp().mean(),
    }


def score_candidates(
    model: EnergyModel,
    context_BW: Tensor,
    positives_BD: Tensor,
    negatives_BND: Tensor,
    dropout: torch.Generator | None,
) -> Tensor:
    """Energies (B, K) of the positive and the negatives; negatives (1, N, D) are those of all rows.

    `dropout` draws the masks. Where a mask holds for all candidates of a window, they are scored in
    one call.
    """
    positives_B1D = positives_BD.unsqueeze(1)
    if model.by_window:
        negatives_BND = negatives_BND.expand(len(context_BW), -1, -1)
        return model.score(context_BW, torch.cat([positives_B1D, negatives_BND], 1), dropout)
    energies_B1 = model.score(context_BW, positives_B1D, dropout)
    return torch.cat([energies_B1, model.score(context_BW, negatives_BND, dropout)], 1)

"""InfoNCE (Florence et al. 2021) with the ranking-NCE correction, and the gradient penalty.

Legend: B batch, K = N + 1 candidates, the positive first; D action dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ibc.checks import check_choice, check_float
from ibc.langevin import slope


@dataclass(frozen=True)
class LossConfig:
    """What is added to InfoNCE, and how its gradient is found.

    gradient_penalty: weight of max(0, |dE/da| - penalty_margin)^2 at the counter-examples, 0 for
    none; a chain that follows the gradient (negatives or inference "langevin") needs slopes that
    its steps can follow. penalty_norm: the largest axis ("inf") or the Euclidean length ("2"),
    per normalised action unit. It scores every counter-example for every observation on its own,
    shared ones too. gradient_share: share of the counter-examples through which InfoNCE's gradient
    goes, chosen without bias (ibc/thinning.py); all of them are in the loss.
    """

    gradient_penalty: float = 0.0
    penalty_margin: float = 1.0
    penalty_norm: Literal["inf", "2"] = "inf"
    gradient_share: float = 1.0

    def __post_init__(self) -> None:
        check_float("loss.gradient_penalty", self.gradient_penalty, 0.0, 1e6)
        check_float("loss.penalty_margin", self.penalty_margin, 0.0)
        check_choice("loss.penalty_norm", self.penalty_norm, ("inf", "2"))
        check_float("loss.gradient_share", self.gradient_share, 0.0, 1.0, open_low=True)


def info_nce(energies_BK: Tensor, correction_BK: Tensor | None = None) -> Tensor:
    """Cross-entropy (B,) of picking the positive, column 0, out of all candidates.

    logits = -energy + correction. A model that knows nothing has ln(N + 1); a correction is due
    wherever candidates are not drawn uniformly (see ibc/negatives.py).
    """
    logits_BK = -energies_BK if correction_BK is None else correction_BK - energies_BK
    # log_softmax, for on a CPU logsumexp is ten times slower once a logit lies 90 below another.
    return -torch.log_softmax(logits_BK, 1)[:, 0]


def gradient_penalty(
    energy: Callable[[Tensor], Tensor], actions_BND: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Mean squared excess of the energy's slope over its margin, and the mean slope.

    `energy` maps (B, N, D) to (B, N). What it holds of the observation is trained along; the
    actions are taken as they are. Without gradients in the caller nothing is kept for them.
    """
    _, slope_BND = slope(energy, actions_BND, graph=torch.is_grad_enabled())
    if config.penalty_norm == "inf":
        length_BN = slope_BND.abs().amax(-1)
    else:
        length_BN = torch.linalg.vector_norm(slope_BND, dim=-1)
    excess_BN = (length_BN - config.penalty_margin).clamp(min=0.0)
    return excess_BN.square().mean(), length_BN.detach().mean()


def candidate_statistics(energies_BK: Tensor, correction_BK: Tensor | None) -> dict[str, Tensor]:
    """How hard the candidates are: numbers to watch, no gradient.

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

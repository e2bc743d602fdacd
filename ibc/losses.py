"""InfoNCE (Florence et al. 2021) with the ranking-NCE correction.

Legend: B batch, K = N + 1 candidates, the positive first.
"""

import torch
from torch import Tensor


def info_nce(energies_BK: Tensor, correction_BK: Tensor | None = None) -> Tensor:
    """Cross-entropy (B,) of picking the positive, column 0, out of all candidates.

    logits = -energy + correction. A model that knows nothing has ln(N + 1); a correction is due
    wherever candidates are not drawn uniformly (see ibc/negatives.py).
    """
    logits_BK = -energies_BK if correction_BK is None else correction_BK - energies_BK
    return logits_BK.logsumexp(1) - logits_BK[:, 0]


def candidate_statistics(energies_BK: Tensor, correction_BK: Tensor | None) -> dict[str, Tensor]:
    """How hard the candidates are: numbers to watch, no gradient.

    energy_gap: mean energy of the negatives minus that of the positive. effective_negatives: the
    number of negatives that carry the softmax over negatives (its perplexity).
    """
    energies_BK = energies_BK.detach()
    logits_BK = -energies_BK if correction_BK is None else correction_BK - energies_BK
    log_p_BN = torch.log_softmax(logits_BK[:, 1:], 1)
    entropy_B = -(log_p_BN.exp() * log_p_BN).sum(1)
    return {
        "energy_gap": (energies_BK[:, 1:].mean(1) - energies_BK[:, 0]).mean(),
        "effective_negatives": entropy_B.exp().mean(),
    }

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

    logits = -energy + correction. A model that knows nothing has ln(N + 1); a correction is due
    wherever candidates are not drawn uniformly (see ibc/sampling/negatives.py).
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


UNITS, COLUMNS = 2**19, 32  # hidden units of a layer scored at once, and no fewer candidates


def contrast(
    model: EnergyModel,
    context_BW: Tensor,
    positives_BD: Tensor,
    negatives_BND: Tensor,
    correction_BK: Tensor | None,
    share: float,
    generator: torch.Generator,
    dropout: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE (B,) and the energies (B, K); its gradient goes through `share` of the negatives.

    Negatives (1, N, D) are those of all rows. `generator` draws who is kept, `dropout` the masks.
    """
    thinned = share < 1.0 and torch.is_grad_enabled()
    positives_B1D = positives_BD.unsqueeze(1)
    if not (thinned or model.by_window):
        energies_B1 = model.score(context_BW, positives_B1D, dropout)
        energies_BN = model.score(context_BW, negatives_BND, dropout)
        energies_BK = torch.cat([energies_B1, energies_BN], 1)
        return info_nce(energies_BK, correction_BK), energies_BK
    candidates_BKD = torch.cat([positives_B1D, negatives_BND.expand(len(context_BW), -1, -1)], 1)
    if not thinned:
        energies_BK = model.score(context_BW, candidates_BKD, dropout)
        return info_nce(energies_BK, correction_BK), energies_BK
    with torch.no_grad():
        energies_BK = _score_blocks(model, context_BW, candidates_BKD, dropout)
        logits_BK = -energies_BK if correction_BK is None else correction_BK - energies_BK
        p_BK = torch.softmax(logits_BK, 1)
        count = max(1, round(share * (p_BK.shape[1] - 1)))
        picks_BM, weights_BM = thin(p_BK[:, 1:], count, generator)
        picks_BM = torch.cat([torch.zeros_like(picks_BM[:, :1]), picks_BM + 1], 1)
        slopes_BM = torch.cat([1.0 - p_BK[:, :1], -weights_BM], 1)
    indices_BMD = picks_BM.unsqueeze(-1).expand(-1, -1, candidates_BKD.shape[2])
    energies_BM = model.score(context_BW, candidates_BKD.gather(1, indices_BMD), dropout)
    carrier_B = (slopes_BM * energies_BM).sum(1)  # its value means nothing, its gradient does
    loss_B = info_nce(energies_BK, correction_BK)
    return loss_B + (carrier_B - carrier_B.detach()), energies_BK


def _score_blocks(
    model: EnergyModel,
    context_BW: Tensor,
    candidates_BKD: Tensor,
    dropout: torch.Generator | None,
) -> Tensor:
    """Energies (B, K) without a graph, some columns at a time so that activations stay in cache.

    Every block draws from a copy of the generator, and so do those kept afterwards from the
    generator itself: masks by window are then the same for all.
    """
    columns = max(COLUMNS, UNITS // context_BW.numel())
    energies = []
    for block in torch.split(candidates_BKD, columns, 1):
        twin = None if dropout is None else dropout.clone_state()
        energies.append(model.score(context_BW, block, twin))
    return torch.cat(energies, 1)


def thin(weights_BN: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices (B, count) of those kept and their weights, whose expectation is weights_BN.

    A kept place that nobody takes (the weights are not all positive, or rounding) has weight 0.
    """
    N = weights_BN.shape[1]
    if count >= N:
        every_BN = torch.arange(N, device=weights_BN.device).expand(len(weights_BN), -1)
        return every_BN, weights_BN
    sorted_BN, order_BN = weights_BN.double().sort(dim=1, descending=True)
    # With the i heaviest kept as they are, the rest must share the count - i places that are left.
    rest_BN = sorted_BN.flip(1).cumsum(1).flip(1)[:, :count]
    threshold_BN = rest_BN / torch.arange(count, 0, -1, device=weights_BN.device)
    first_B1 = (sorted_BN[:, :count] <= threshold_BN).int().argmax(1, keepdim=True)
    c_B1 = threshold_BN.gather(1, first_B1).clamp_(min=torch.finfo(torch.float64).tiny)
    # Systematic sampling: whoever's stretch of the running sum crosses a whole number is kept.
    unit = torch.rand(len(weights_BN), 1, generator=generator, device=weights_BN.device)
    stretch_BN = (sorted_BN / c_B1).clamp_(max=1.0)
    passed_BN = (stretch_BN.cumsum(1) + unit.double()).floor_()
    before_BN = torch.cat([torch.zeros_like(unit, dtype=torch.float64), passed_BN[:, :-1]], 1)
    taken_BN = (passed_BN > before_BN).to(torch.uint8)
    slots_BM = taken_BN.argsort(dim=1, descending=True, stable=True)[:, :count]
    kept_BM = torch.maximum(sorted_BN, c_B1).gather(1, slots_BM) * taken_BN.gather(1, slots_BM)
    return order_BN.gather(1, slots_BM), kept_BM.to(weights_BN.dtype)

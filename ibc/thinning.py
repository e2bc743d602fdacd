"""InfoNCE over all candidates, its gradient through a few of them, without bias.

The gradient of InfoNCE is a weighted sum over the candidates, sum_k (1[k = 0] - p_k) dE_k, with p
the softmax over them. A backward pass costs twice the forward pass, and most weights are small. So
all candidates are scored without a graph, and a subset goes through the network again with one: the
positive, every negative whose p_k exceeds a threshold c, and of the others a draw, each with
probability p_k / c and the weight c. c is such that the wanted number is kept, which makes this the
unbiased choice of least variance (Fearnhead & Clifford 2003).

Legend: B batch, K = N + 1 candidates (the positive first), M candidates kept, D action dimensions.
"""

import torch
from torch import Tensor

from ibc import losses
from ibc.energy import EnergyModel

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
        return losses.info_nce(energies_BK, correction_BK), energies_BK
    candidates_BKD = torch.cat([positives_B1D, negatives_BND.expand(len(context_BW), -1, -1)], 1)
    if not thinned:
        energies_BK = model.score(context_BW, candidates_BKD, dropout)
        return losses.info_nce(energies_BK, correction_BK), energies_BK
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
    loss_B = losses.info_nce(energies_BK, correction_BK)
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

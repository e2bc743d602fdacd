"""The derivative-free optimiser of Florence et al. 2021: weigh, resample, perturb, repeat.

Legend: B batch, S samples per observation, R rounds, D action dimensions.
"""

from collections.abc import Callable

from torch import Tensor

from ibc.data.normalizer import BOUND
from ibc.sampling.readout import resample


def chain(
    energy: Callable[[Tensor], Tensor],
    actions_BSD: Tensor,
    units_BRS: Tensor,
    normals_BRSD: Tensor,
    *,
    noise: float,
    shrink: float,
    clip: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move samples for R rounds: actions (B, S, D), their energies, and those before (B, S).

    Each round draws S samples with replacement from softmax(-energy) by the uniform numbers
    units_BRS and moves them by normals_BRSD times the noise, which shrinks by its factor after
    every round. clip: keep them inside the bounds.
    """
    energies_BS = first_BS = energy(actions_BSD)
    for r in range(units_BRS.shape[1]):
        picks_BS = resample(energies_BS, units_BRS[:, r])
        actions_BSD = actions_BSD.take_along_dim(picks_BS.unsqueeze(2), 1)
        actions_BSD = actions_BSD + noise * normals_BRSD[:, r]
        if clip:
            actions_BSD = actions_BSD.clamp_(-BOUND, BOUND)
        energies_BS = energy(actions_BSD)
        noise *= shrink
    return actions_BSD, energies_BS, first_BS

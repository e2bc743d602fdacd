"""From energies to samples: candidates found by one of four samplers.

`dfo` is the derivative-free optimiser and `langevin` the gradient-based sampler of Florence et al.
2021. `lattice` scores a fixed lattice of actions instead: the whole density, with exact weights,
at the cost of one pass for all observations under a product energy. DFO sharpens the density, since
it resamples and weighs by the same energy again. `proposal` draws from the learned proposal and
weighs the samples by exp(-energy) over its density (importance sampling). Chunks are searched
jointly by DFO, Langevin or the proposal, or part after part by any but the proposal
(ibc/energy/autoregressive.py).

Row b's random numbers all come from generators[b], so its result does not depend on the other
rows. They are drawn where the generator lives and moved to the device.

Legend: B batch, S samples per observation, W warm-started ones among them, R rounds, D action
dimensions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ibc.config.implicit import InferenceConfig
from ibc.data.normalizer import BOUND
from ibc.sampling import langevin
from ibc.sampling.mixture import Proposal
from ibc.sampling.readout import Samples, resample


class Warm(NamedTuple):
    """Where samples start: around centre (B, D), NaN in rows that have none, by spread (D,)."""

    centre: Tensor
    spread: Tensor


def search(
    energy: Callable[[Tensor], Tensor],
    action_dim: int,
    config: InferenceConfig,
    generators: Sequence[torch.Generator],
    device: torch.device,
    warm: Warm | None = None,
    proposal: Proposal | None = None,
) -> Samples:
    """Samples by the configured sampler; `energy` maps (B, S, D) to (B, S).

    proposal: what "proposal" draws its samples from.

    DFO and Langevin start from uniform samples within the bounds, some of them around `warm`.
    Langevin chains of the standard form end as draws from the density, and are read as such; those
    of Google's form, which settle near minima, are weighed by their energy as Google does.
    """
    if config.searches == "lattice":
        return lattice(energy, config.lattice, generators, device, action_dim)
    S, D = config.samples, action_dim
    if config.searches == "proposal":
        assert proposal is not None
        units_BX = _draws(torch.rand, generators, (S * (D + 2) + 1,), device)
        normals_BSD = _draws(torch.randn, generators, (S, D), device)
        actions_BSD = proposal.draw(units_BX[:, :-1].reshape(-1, S, D + 2), normals_BSD)
        log_q_BS = proposal.log_density(actions_BSD)
        return Samples(actions_BSD, energy(actions_BSD), units_BX[:, -1], log_q_BS)
    R = config.iterations - 1 if config.searches == "dfo" else 0
    units_BX = _draws(torch.rand, generators, (S * D + R * S + 1,), device)
    start_BSD = units_BX[:, : S * D].reshape(-1, S, D) * (2 * BOUND) - BOUND
    if config.searches == "langevin":
        chain = langevin.chain(
            energy,
            _warmed(start_BSD, config, warm, generators),
            config.langevin,
            lambda: _draws(torch.randn, generators, (S, D), device),
            clip=config.clip,
        )
        draws = config.langevin.form == "standard"
        return Samples(
            chain.actions, chain.energies, units_BX[:, -1], -chain.energies if draws else None
        )
    normals_BRSD = _draws(torch.randn, generators, (R, S, D), device)
    actions_BSD, energies_BS, _ = dfo(
        energy,
        _warmed(start_BSD, config, warm, generators),
        units_BX[:, S * D : -1].reshape(len(units_BX), R, S),
        normals_BRSD,
        noise=config.noise,
        shrink=config.shrink,
        clip=config.clip,
    )
    return Samples(actions_BSD, energies_BS, units_BX[:, -1])


def dfo(
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


def lattice(
    energy: Callable[[Tensor], Tensor],
    side: int,
    generators: Sequence[torch.Generator],
    device: torch.device,
    action_dim: int = 2,
) -> Samples:
    """The middles of `side` cells along each axis, the same for every row."""
    actions_1SD = cells(side, action_dim, device)
    units_B1 = _draws(torch.rand, generators, (1,), device)
    return Samples(actions_1SD, energy(actions_1SD), units_B1.squeeze(1))


@functools.lru_cache(maxsize=8)
def cells(side: int, action_dim: int, device: torch.device) -> Tensor:
    """The lattice's middles (1, S, D), normalised; cached, so callers must not change them."""
    line = (torch.arange(side, device=device) + 0.5) * (2 * BOUND / side) - BOUND
    return torch.cartesian_prod(*[line] * action_dim).view(1, -1, action_dim)


def _warmed(
    actions_BSD: Tensor,
    config: InferenceConfig,
    warm: Warm | None,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The first samples replaced by draws around the previous action, in rows that have one."""
    S, D = actions_BSD.shape[1:]
    W = round(config.warm_start * S)
    if warm is None or W == 0:
        return actions_BSD
    normals_BWD = _draws(torch.randn, generators, (W, D), actions_BSD.device)
    near_BWD = (warm.centre.unsqueeze(1) + warm.spread * normals_BWD).clamp(-BOUND, BOUND)
    first_BWD = torch.where(near_BWD.isnan().any(-1, True), actions_BSD[:, :W], near_BWD)
    return torch.cat([first_BWD, actions_BSD[:, W:]], 1)


def _draws(
    draw: Callable[..., Tensor],
    generators: Sequence[torch.Generator],
    shape: tuple[int, ...],
    device: torch.device,
) -> Tensor:
    """(B, *shape) on the device, row b by `draw` from generators[b]."""
    return torch.stack([draw(shape, generator=g, device=g.device) for g in generators]).to(device)

"""From energies to samples: candidates over the bounds, searched by one of several samplers.

`dfo` is the derivative-free optimiser and `langevin` the gradient-based sampler of Florence et al.
2021. `lattice` scores a fixed lattice of actions instead: for one action of two dimensions it is
the whole density, it costs one pass for all observations under a product energy, and its weights
are exact, where resampling and weighing by the same energy again sharpens what it finds. Chunks of
actions are searched jointly by the first two, or one part after the other by any of the three
where the model has an energy for each part (ibc/energy/autoregressive.py).

Row b's random numbers all come from generators[b], so its result does not depend on the other
rows. They are drawn where the generator lives and moved to the device.

Legend: B batch, S samples per observation, W warm ones among them, D action dimensions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ibc.config.checks import check
from ibc.config.implicit import InferenceConfig
from ibc.data.normalizer import BOUND
from ibc.sampling import dfo as _dfo
from ibc.sampling import langevin as _langevin
from ibc.sampling.readout import Samples


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
) -> Samples:
    """Samples by the configured search; `energy` maps (B, S, D) to (B, S)."""
    if config.searches == "lattice":
        return lattice(energy, config.lattice, generators, device, action_dim)
    find = dfo if config.searches == "dfo" else langevin
    return find(energy, action_dim, config, generators, device, warm)


def lattice(
    energy: Callable[[Tensor], Tensor],
    side: int,
    generators: Sequence[torch.Generator],
    device: torch.device,
    action_dim: int = 2,
) -> Samples:
    """The middles of `side` cells along each of one or two axes, the same for every row."""
    check(action_dim in (1, 2), "a lattice has one or two dimensions", action_dim)
    actions_1SD = _middles(side, action_dim, device)
    units = [torch.rand(1, generator=g, device=g.device) for g in generators]
    return Samples(actions_1SD, energy(actions_1SD), torch.cat(units).to(device))


@functools.lru_cache(maxsize=8)
def _middles(side: int, action_dim: int, device: torch.device) -> Tensor:
    """The lattice (1, S, D), which nobody may change."""
    line = (torch.arange(side, device=device) + 0.5) * (2 * BOUND / side) - BOUND
    if action_dim == 1:
        return line[None, :, None]
    return torch.cartesian_prod(line, line).unsqueeze(0)


def dfo(
    energy: Callable[[Tensor], Tensor],
    action_dim: int,
    config: InferenceConfig,
    generators: Sequence[torch.Generator],
    device: torch.device,
    warm: Warm | None = None,
) -> Samples:
    """Sample over the bounds, then weigh, resample and perturb `iterations` - 1 times."""
    S, D, rounds = config.samples, action_dim, config.iterations - 1
    units, normals = [], []
    for generator in generators:
        draws = S * D + rounds * S + 1
        units.append(torch.rand(draws, generator=generator, device=generator.device))
        normals.append(torch.randn(rounds, S, D, generator=generator, device=generator.device))
    units_BX = torch.stack(units).to(device)
    actions_BSD = units_BX[:, : S * D].reshape(-1, S, D) * (2 * BOUND) - BOUND
    actions_BSD, energies_BS, _ = _dfo.chain(
        energy,
        _warmed(actions_BSD, config, warm, generators),
        units_BX[:, S * D : -1].reshape(len(units), rounds, S),
        torch.stack(normals).to(device),
        noise=config.noise,
        shrink=config.shrink,
        clip=config.clip,
    )
    return Samples(actions_BSD, energies_BS, units_BX[:, -1])


def langevin(
    energy: Callable[[Tensor], Tensor],
    action_dim: int,
    config: InferenceConfig,
    generators: Sequence[torch.Generator],
    device: torch.device,
    warm: Warm | None = None,
) -> Samples:
    """Sample over the bounds and run a Langevin chain from each.

    Chains of the standard form end as draws from the density, and are read as such; those of
    Google's form, which settle near minima, are weighed by their energy as Google does.
    """
    S, D = config.samples, action_dim
    units = [torch.rand(S * D + 1, generator=g, device=g.device) for g in generators]
    units_BX = torch.stack(units).to(device)
    actions_BSD = units_BX[:, :-1].reshape(-1, S, D) * (2 * BOUND) - BOUND
    chain = _langevin.chain(
        energy,
        _warmed(actions_BSD, config, warm, generators),
        config.langevin,
        lambda: _normals(generators, S, D).to(device),
        clip=config.clip,
    )
    drawn = config.langevin.form == "standard"
    return Samples(chain.actions, chain.energies, units_BX[:, -1], drawn)


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
    normals_BWD = _normals(generators, W, D).to(actions_BSD.device)
    near_BWD = (warm.centre.unsqueeze(1) + warm.spread * normals_BWD).clamp(-BOUND, BOUND)
    first_BWD = torch.where(near_BWD.isnan().any(-1, True), actions_BSD[:, :W], near_BWD)
    return torch.cat([first_BWD, actions_BSD[:, W:]], 1)


def _normals(generators: Sequence[torch.Generator], count: int, action_dim: int) -> Tensor:
    shape = (count, action_dim)
    return torch.stack([torch.randn(shape, generator=g, device=g.device) for g in generators])

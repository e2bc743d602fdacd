"""Langevin chains: actions moved down the gradient of the energy, with noise.

    standard:  a <- a - s dE/da + sqrt(2 s) noise N(0, 1)
    google:    a <- a - clip(s (dE/da / 2 + noise N(0, 1)), limit)

With noise 1 and small steps s the standard form draws from exp(-E) (the unadjusted Langevin
algorithm). Google's form, which the published runs used, scales the noise by the step instead of
its root: its chains settle near minima.

Legend: B batch, S samples per observation, D action dimensions.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ibc.config.implicit import LangevinConfig
from ibc.data.normalizer import BOUND
from ibc.energy.models import Energy, slope


class Chain(NamedTuple):
    """The final samples (B, S, D), their energies (B, S), and metrics.

    chain_energy_drop: mean energy before less after. chain_gradient_first, _last: mean largest
    |dE/da| of an axis before and after. chain_move: mean distance moved. chain_at_bounds: share of
    samples that ended with an axis at its bound.
    """

    actions: Tensor
    energies: Tensor
    statistics: dict[str, Tensor]


def chain(
    energy: Energy,
    start_BSD: Tensor,
    config: LangevinConfig,
    normal: Callable[[], Tensor],
    *,
    clip: bool = True,
) -> Chain:
    """Run the chain from start_BSD; `normal` gives the next standard normal numbers (B, S, D).

    No gradient goes through the chain. `energy` maps (B, S, D) to (B, S) and must not keep a graph
    of its own (detach the observation). clip: keep the samples inside the bounds after every step.
    """
    actions_BSD = start_BSD.detach()
    limit = math.inf if config.limit is None else config.limit
    energies_BS, gradient_BSD = first_BS, first_BSD = slope(energy, actions_BSD)
    for step in config.step_sizes():
        if config.form == "google":
            move_BSD = step * (0.5 * gradient_BSD + config.noise * normal())
            actions_BSD = actions_BSD - move_BSD.clamp(-limit, limit)
        else:
            drift_BSD = (step * gradient_BSD).clamp(-limit, limit)
            scatter_BSD = math.sqrt(2.0 * step) * config.noise * normal()
            actions_BSD = actions_BSD - drift_BSD + scatter_BSD
        if clip:
            actions_BSD = actions_BSD.clamp(-BOUND, BOUND)
        energies_BS, gradient_BSD = slope(energy, actions_BSD)
    statistics = {
        "chain_energy_drop": (first_BS - energies_BS).mean(),
        "chain_gradient_first": first_BSD.abs().amax(-1).mean(),
        "chain_gradient_last": gradient_BSD.abs().amax(-1).mean(),
        "chain_move": (actions_BSD - start_BSD).norm(dim=-1).mean(),
        "chain_at_bounds": (actions_BSD.abs() >= BOUND).any(-1).float().mean(),
    }
    return Chain(actions_BSD, energies_BS, statistics)

"""Autoregressive energies: a chunk of actions scored part by part.

Searching all D dimensions of a chunk at once fails beyond a handful: the samples thin out. The
chain rule cuts the chunk into parts,

    p(a | x) = prod_k p(a_k | x, a_<k),    p(a_k | x, a_<k) ~ exp(-E_k(x, a_<k; a_k)),

one action step each ("steps") or, as in Florence et al. 2021, one dimension each ("dimensions").
Every part has an energy model of its own, to which the earlier parts are a piece of the
observation: in training the demonstrated ones, in the search those found so far.

InfoNCE leaves each energy free by a constant that depends on (x, a_<k). So energies of parts with
different beginnings cannot be compared, and the search settles a part, by the same readouts as
for a single action, before it goes on to the next. With the readout "sample" and the lattice
that is a draw from the chunk's density.

Legend: B batch, F features, P earlier columns of the chunk, X steps between these, D = 2 H action
dimensions.
"""

import torch
from torch import Tensor, nn

from ibc.config.implicit import SIZES, EnergyConfig
from ibc.energy.models import EnergyModel, build_energy

PER_STEP = 10.0  # a typical step from action to action is a tenth of what the bounds are to a side


def parts(conditionals: str, action_horizon: int) -> list[slice]:
    """The columns of a chunk (B, D) that each energy model scores; one part if "joint"."""
    D = 2 * action_horizon
    size = SIZES.get(conditionals, D)
    return [slice(at, at + size) for at in range(0, D, size)]


def build(features: int, action_horizon: int, config: EnergyConfig) -> EnergyModel | nn.ModuleList:
    """The energy model, or a list of one for each part."""
    if config.conditionals == "joint":
        return build_energy(features, 2 * action_horizon, config)
    return nn.ModuleList(
        build_energy(features + told(part.start), part.stop - part.start, config)
        for part in parts(config.conditionals, action_horizon)
    )


def told(earlier: int) -> int:
    """How many numbers tell of so many earlier columns: they themselves and the steps they make."""
    return earlier + max(0, earlier - 2)


def condition(features_BF: Tensor, earlier_BP: Tensor) -> Tensor:
    """What a part is conditioned on: the features, the earlier columns, and the steps they make.

    The steps, from one action to the next, are small beside the bounds but say where a chunk is
    bound for, so they go in enlarged.
    """
    if not earlier_BP.shape[1]:
        return features_BF
    steps_BX = (earlier_BP[:, 2:] - earlier_BP[:, :-2]) * PER_STEP
    parts = [features_BF, earlier_BP, steps_BX]
    return torch.cat([part for part in parts if part.shape[1]], 1)

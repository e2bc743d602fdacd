"""Autoregressive energies: a chunk of actions scored part by part.

Searching all D dimensions of a chunk at once fails beyond a handful: the samples are too sparse.
The chain rule cuts the chunk into parts,

    p(a | x) = prod_k p(a_k | x, a_<k),    p(a_k | x, a_<k) ~ exp(-E_k(x, a_<k; a_k)),

one action step each ("steps") or, as in Florence et al. 2021, one dimension each ("dimensions").
Every part has its own energy model, conditioned on the earlier parts as on the observation: in
training on the demonstrated ones, in the search on those found so far.

InfoNCE determines each energy up to a constant that depends on (x, a_<k). So energies of parts with
different beginnings cannot be compared, and the search settles a part, by the same readouts as for
a single action, before the next. With the readout "sample" and the lattice this draws from the
chunk's density.

Legend: B batch, F features, P earlier columns of the chunk, X steps between these, D = 2 H action
dimensions.
"""

import torch
from torch import Tensor, nn

from ibc.config.implicit import EnergyConfig
from ibc.energy.models import EnergyModel, build_energy

SIZES = {"steps": 2, "dimensions": 1}  # columns of a part
PER_STEP = 10.0  # one over a typical step from action to action, in normalised units


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
        build_energy(features + condition_size(part.start), part.stop - part.start, config)
        for part in parts(config.conditionals, action_horizon)
    )


def condition_size(earlier: int) -> int:
    """How many numbers `condition` appends: the earlier columns and the steps between them."""
    return earlier + max(0, earlier - 2)


def condition(features_BF: Tensor, earlier_BP: Tensor) -> Tensor:
    """What a part is conditioned on: the features, the earlier columns, and the steps between them.

    The steps from action to action show the chunk's direction; small in normalised units, they are
    scaled up.
    """
    if not earlier_BP.shape[1]:
        return features_BF
    steps_BX = (earlier_BP[:, 2:] - earlier_BP[:, :-2]) * PER_STEP
    parts = [features_BF, earlier_BP, steps_BX]
    return torch.cat([part for part in parts if part.shape[1]], 1)

"""Autoregressive energies: a chunk of actions scored part by part.

Searching all D dimensions of a chunk at once fails beyond a handful: the samples are too sparse.
The chain rule cuts the chunk into parts,

    p(a | x) = prod_k p(a_k | x, a_<k),    p(a_k | x, a_<k) ~ exp(-E_k(x, a_<k; a_k)),

one action step each ("steps") or, as in Florence et al. 2021, one dimension each ("dimensions").
Every part has its own energy model, conditioned on the earlier parts: in training on the
demonstrated ones, in the search on those found so far. InfoNCE determines each energy up to a
constant that depends on (x, a_<k), so the search settles a part before the next.

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
        build_energy(features + part.start + max(0, part.start - 2), part.stop - part.start, config)
        for part in parts(config.conditionals, action_horizon)
    )


def condition(features_BF: Tensor, earlier_BP: Tensor) -> Tensor:
    """What a part is conditioned on: the features, the earlier columns, and the steps between them.

    The steps show the chunk's direction; small in normalised units, they are scaled up.
    """
    if not earlier_BP.shape[1]:
        return features_BF
    steps_BX = (earlier_BP[:, 2:] - earlier_BP[:, :-2]) * PER_STEP
    return torch.cat([features_BF, earlier_BP, steps_BX], 1)

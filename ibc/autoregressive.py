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

Legend: B batch, F features, P earlier dimensions of the chunk, D = 2 H action dimensions.
"""

import torch
from torch import Tensor, nn

from ibc.energy import EnergyConfig, EnergyModel, build_energy

SIZES = {"steps": 2, "dimensions": 1}


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
        build_energy(features + part.start, part.stop - part.start, config)
        for part in parts(config.conditionals, action_horizon)
    )


def condition(features_BF: Tensor, earlier_BP: Tensor) -> Tensor:
    """What a part is conditioned on, (B, F + P): the features and the earlier parts."""
    return torch.cat([features_BF, earlier_BP], 1) if earlier_BP.shape[1] else features_BF

"""From energies to one action: candidates over the bounds, and the reading of one out of them.

`dfo` is the derivative-free optimiser of Florence et al. 2021. `lattice` scores a fixed
lattice of actions instead: for one action of two dimensions it is the whole density, it costs one
pass for all observations under a product energy, and its weights are exact, where resampling and
weighing by the same energy again sharpens what it finds.

Legend: B batch, S samples per observation, D action dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ibc.checks import check_choice, check_float, check_int
from ibc.normalize import BOUND

READOUTS = ("argmax", "sample", "softmax_mean", "mean_shift")


@dataclass(frozen=True)
class InferenceConfig:
    """How an action is found.

    sampler: "lattice" (lattice x lattice actions; for action_horizon 1) or "dfo" with `samples`
    per observation and `iterations` evaluations of all of them; noise is its standard deviation,
    in normalised action units, after the first resampling, multiplied by shrink after each.
    readout: the "argmax" (lowest energy), a "sample" from softmax(-energy), the mean under it
    ("softmax_mean"), or such a sample moved to the mean of its neighbourhood ("mean_shift"), a
    Gaussian of `bandwidth` px.
    """

    sampler: Literal["lattice", "dfo"] = "lattice"
    lattice: int = 51
    samples: int = 256
    iterations: int = 3
    noise: float = 0.33
    shrink: float = 0.5
    readout: Literal["argmax", "sample", "softmax_mean", "mean_shift"] = "mean_shift"
    bandwidth: float = 10.0

    def __post_init__(self) -> None:
        check_choice("inference.sampler", self.sampler, ("lattice", "dfo"))
        check_int("inference.lattice", self.lattice, 2, 1000)
        check_int("inference.samples", self.samples, 1, 1_000_000)
        check_int("inference.iterations", self.iterations, 1, 100)
        check_float("inference.noise", self.noise, 0.0, 2.0)
        check_float("inference.shrink", self.shrink, 0.0, 1.0)
        check_choice("inference.readout", self.readout, READOUTS)
        check_float("inference.bandwidth", self.bandwidth, 0.0, 512.0, open_low=True)


class Samples(NamedTuple):
    """Actions (B, S, D), or (1, S, D) for all rows; energies (B, S); a uniform number (B,)."""

    actions: Tensor
    energies: Tensor
    unit: Tensor


def lattice(
    energy: Callable[[Tensor], Tensor],
    side: int,
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Samples:
    """The middles of side x side cells over the bounds, the same for every row."""
    line = (torch.arange(side, device=device) + 0.5) * (2 * BOUND / side) - BOUND
    actions_1SD = torch.cartesian_prod(line, line).unsqueeze(0)
    units = [torch.rand(1, generator=g, device=g.device) for g in generators]
    return Samples(actions_1SD, energy(actions_1SD), torch.cat(units).to(device))


def dfo(
    energy: Callable[[Tensor], Tensor],
    action_dim: int,
    config: InferenceConfig,
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Samples:
    """Sample, weigh, resample, perturb, clip; `energy` maps (B, S, D) to (B, S).

    Row b's random numbers all come from generators[b], so its result does not depend on the other
    rows. They are drawn where the generator lives and moved to the device.
    """
    S, D, rounds = config.samples, action_dim, config.iterations - 1
    units, normals = [], []
    for generator in generators:
        draws = S * D + rounds * S + 1
        units.append(torch.rand(draws, generator=generator, device=generator.device))
        normals.append(torch.randn(rounds, S, D, generator=generator, device=generator.device))
    units_BX = torch.stack(units).to(device)
    normals_BRSD = torch.stack(normals).to(device)

    actions_BSD = units_BX[:, : S * D].reshape(-1, S, D) * (2 * BOUND) - BOUND
    energies_BS = energy(actions_BSD)
    scale = config.noise
    for r in range(rounds):
        picks_BS = resample(energies_BS, units_BX[:, S * D + r * S : S * D + (r + 1) * S])
        actions_BSD = actions_BSD.gather(1, picks_BS.unsqueeze(-1).expand(-1, -1, D))
        actions_BSD = (actions_BSD + scale * normals_BRSD[:, r]).clamp_(-BOUND, BOUND)
        energies_BS = energy(actions_BSD)
        scale *= config.shrink
    return Samples(actions_BSD, energies_BS, units_BX[:, -1])


def resample(energies_BS: Tensor, unit_BX: Tensor) -> Tensor:
    """Indices (B, X) drawn with replacement from softmax(-energy), by the inverse of its sum."""
    # In float64 the running sum of thousands of weights still ends where it should.
    cumulative_BS = torch.softmax(-energies_BS.double(), 1).cumsum(1)
    target_BX = unit_BX.double() * cumulative_BS[:, -1:]
    return torch.searchsorted(cumulative_BS, target_BX, right=True).clamp_(
        max=energies_BS.shape[1] - 1
    )


def read_out(samples: Samples, readout: str, bandwidth_D: Tensor) -> Tensor:
    """One action (B, D) for each row out of the samples; bandwidth_D in normalised units.

    The mode of a density of human moves is slower than its mean, for the scatter of a move grows
    with its size, so that "argmax" creeps and stops; the mean falls between two ways around the
    block. "mean_shift" picks one of the ways by a draw and takes the mean of that one.
    """
    energies_BS = samples.energies
    actions_BSD = samples.actions.expand(len(energies_BS), -1, -1)
    if readout == "softmax_mean":
        return torch.bmm(torch.softmax(-energies_BS, 1).unsqueeze(1), actions_BSD).squeeze(1)
    if readout == "argmax":
        picks_B1 = energies_BS.argmin(1, keepdim=True)
    else:
        picks_B1 = resample(energies_BS, samples.unit.unsqueeze(1))
    picked_B1D = actions_BSD.gather(1, picks_B1.unsqueeze(-1).expand(-1, -1, actions_BSD.shape[2]))
    if readout != "mean_shift":
        return picked_B1D.squeeze(1)
    squares_BS = ((actions_BSD - picked_B1D) / bandwidth_D).square().sum(-1)
    weights_BS = torch.softmax(-energies_BS - 0.5 * squares_BS, 1)
    return torch.bmm(weights_BS.unsqueeze(1), actions_BSD).squeeze(1)

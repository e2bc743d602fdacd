"""Derivative-free optimisation of the action under the energy (Florence et al. 2021, Alg. 1).

Legend: B batch, S samples per observation, D action dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ibc.checks import check, check_choice, check_float, check_int
from ibc.normalize import BOUND


@dataclass(frozen=True)
class InferenceConfig:
    """The sampler's settings; noise in normalised action units (bounds +-1).

    samples per observation; iterations = evaluations of all samples; noise: standard deviation
    after the first resampling, multiplied by shrink after every further one; readout: one action
    out of the final samples: "argmax" (lowest energy), a "sample" from softmax(-energy), or the
    mean under it ("softmax_mean").
    """

    samples: int = 256
    iterations: int = 3
    noise: float = 0.33
    shrink: float = 0.5
    readout: Literal["argmax", "sample", "softmax_mean"] = "softmax_mean"

    def __post_init__(self) -> None:
        check_int("inference.samples", self.samples, 1, 1_000_000)
        check_int("inference.iterations", self.iterations, 1, 100)
        check_float("inference.noise", self.noise, 0.0, 2.0)
        check_float("inference.shrink", self.shrink, 0.0, 1.0)
        check_choice("inference.readout", self.readout, ("argmax", "sample", "softmax_mean"))


class Samples(NamedTuple):
    """The last round (B, S, D), its energies (B, S), and a uniform number (B,) for `read_out`."""

    actions: Tensor
    energies: Tensor
    unit: Tensor


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
    check(len(generators) > 0, "there must be a generator for every row", "none")
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


def read_out(samples: Samples, readout: str) -> Tensor:
    """One action (B, D) for each row out of the last samples."""
    actions_BSD, energies_BS, unit_B = samples
    if readout == "softmax_mean":
        return (torch.softmax(-energies_BS, 1).unsqueeze(-1) * actions_BSD).sum(1)
    if readout == "argmax":
        picks_B1 = energies_BS.argmin(1, keepdim=True)
    else:
        picks_B1 = resample(energies_BS, unit_B.unsqueeze(1))
    return actions_BSD.gather(1, picks_B1.unsqueeze(-1).expand(-1, -1, actions_BSD.shape[-1]))[:, 0]

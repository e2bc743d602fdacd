"""Derivative-free optimisation of the action under the energy (Florence et al. 2021, Alg. 1)."""

from dataclasses import dataclass
from typing import Literal

from ibc.checks import check_choice, check_float, check_int


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

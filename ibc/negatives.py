"""Counter-example samplers, each with its exact log density."""

from dataclasses import dataclass
from typing import Literal

from ibc.checks import check, check_choice, check_float, check_int


@dataclass(frozen=True)
class NegativesConfig:
    """Where counter-examples come from; all lengths in normalised action units (bounds +-1).

    sampler: "uniform" over the bounds, or "mixture" of uniform and Gaussians around a centre.
    uniform_share: of the mixture, the probability of a uniform draw.
    centre: the mixture's centre, the (moved) "positive" or the "agent".
    scales: standard deviations of the mixture's Gaussians, equally likely.
    """

    sampler: Literal["uniform", "mixture"] = "uniform"
    count: int = 64
    uniform_share: float = 0.5
    centre: Literal["positive", "agent"] = "positive"
    scales: tuple[float, ...] = (0.3, 0.1, 0.03)

    def __post_init__(self) -> None:
        check_choice("negatives.sampler", self.sampler, ("uniform", "mixture"))
        check_choice("negatives.centre", self.centre, ("positive", "agent"))
        check_int("negatives.count", self.count, 1, 65536)
        check_float("negatives.uniform_share", self.uniform_share, 0.0, 1.0, open_low=True)
        check(1 <= len(self.scales) <= 8, "negatives.scales must hold 1 to 8 lengths", self.scales)
        for scale in self.scales:
            check_float("negatives.scales", scale, 0.0, 0.5, open_low=True)

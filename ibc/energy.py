"""EnergyModel: encode the observation once, score N actions."""

from dataclasses import dataclass

from ibc.checks import check_float, check_int


@dataclass(frozen=True)
class EnergyConfig:
    """The late-fusion head: `depth` hidden layers of `width` units over (features, action)."""

    width: int = 256
    depth: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_int("energy.width", self.width, 1, 8192)
        check_int("energy.depth", self.depth, 1, 32)
        check_float("energy.dropout", self.dropout, 0.0, 0.9)

"""One normaliser for actions, positions, negatives and samples; saved with the weights."""

from dataclasses import dataclass
from typing import Literal

from ibc.checks import check, check_choice, check_float


@dataclass(frozen=True)
class ActionConfig:
    """The space in which actions are compared.

    frame: "board" takes actions as they are, "agent" relative to the newest agent position.
    bounds: what maps to [-1, 1]: the data's range with `margin` (a share of the range) on each
    side, the whole board, or +-`window` px around the agent (positives outside are clipped).
    """

    frame: Literal["board", "agent"] = "agent"
    bounds: Literal["data", "board", "window"] = "window"
    margin: float = 0.05
    window: float = 100.0

    def __post_init__(self) -> None:
        check_choice("action.frame", self.frame, ("board", "agent"))
        check_choice("action.bounds", self.bounds, ("data", "board", "window"))
        check_float("action.margin", self.margin, 0.0, 1.0)
        check_float("action.window", self.window, 0.0, 512.0, open_low=True)
        check(
            self.frame == "agent" or self.bounds != "window",
            'action.bounds "window" needs action.frame "agent"',
            f'action.frame "{self.frame}"',
        )

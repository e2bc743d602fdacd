"""The space in which actions are compared."""

from dataclasses import dataclass
from typing import Literal

from ibc.config.checks import check, check_float, check_options

BOARD_PX = 512.0


@dataclass(frozen=True)
class ActionConfig:
    """The space in which actions are compared.

    frame: "board" takes actions as they are, "agent" relative to the newest agent position.
    bounds: what maps to [-1, 1]: the range of the "data" with `margin` (a share of the range) on
    each side, the range of each step of the chunk by itself ("steps"), the whole "board", or a
    "window" of +-`window` px around the agent (positives outside are clipped).

    Chunks: later actions lie farther from the newest agent position, so take "steps" for an
    action_horizon above 2. A window of 100 px clips 0.1 % of the human demonstrations' windows for
    one action, 20 % for 8 and 47 % for 16. "data" clips none, but gives the first of 16 actions,
    which matters most, a deviation of 0.06 where the last has 0.25.
    """

    frame: Literal["board", "agent"] = "agent"
    bounds: Literal["data", "steps", "board", "window"] = "window"
    margin: float = 0.05
    window: float = 100.0

    def __post_init__(self) -> None:
        check_options("action", self)
        check_float("action.margin", self.margin, 0.0, 1.0)
        check_float("action.window", self.window, 0.0, BOARD_PX, open_low=True)
        check(
            self.frame == "agent" or self.bounds != "window",
            'action.bounds "window" needs action.frame "agent"',
            f'action.frame "{self.frame}"',
        )

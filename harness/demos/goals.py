"""Where the episodes of data sets end, compared with one another and with the world's goal."""

import math

from envs.physics.geometry import GOAL_POSE
from harness.core.errors import UserError
from ibc.data import demos as ibc_demos
from ibc.data.demos import Demos

SAME_PX, SAME_RAD = 60.0, 0.5
NEAR_PX, NEAR_RAD = 20.0, 0.25  # at which the block still covers about half of the goal


def check_goals(
    demos: Demos, at_goal: str | None = None, px: float = SAME_PX, rad: float = SAME_RAD
) -> None:
    """UserError where data sets end at different poses or, with `at_goal`, not at the goal.

    at_goal: the rule that asks for the goal, to begin the error with. px, rad: how far apart poses
    may be. A set whose episodes have no common end is passed over.
    """
    known = [goal for goal in ibc_demos.goals(demos) if goal is not None]
    compared = known if at_goal is None else [GOAL_POSE, *known]
    for x, y, angle in compared:
        for other_x, other_y, other in compared:
            turn = abs(math.remainder(angle - other, 2 * math.pi))
            if math.hypot(x - other_x, y - other_y) > px or turn > rad:
                rule = at_goal or "all data sets must have one goal"
                ends = "; ".join(map(pose, known))
                raise UserError(f"{rule}; the episodes of {demos.path} end around {ends}")


def pose(given: tuple[float, float, float]) -> str:
    """Return a block's pose in words."""
    x, y, angle = given
    return f"({x:.0f}, {y:.0f}) px, {angle:.2f} rad"

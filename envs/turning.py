"""The demonstrator's first rule: a T far from the goal's angle is turned to it, by one push.

The plans that follow then start from one angle, whatever the start was, which leaves much less to
be learned from them: what to do depends on two numbers instead of three.
"""

import math

import numpy as np

from envs import strokes
from envs.plan import IMPOSSIBLE, Plan, Style, into_wall, off_board
from envs.routes import Ways
from envs.strokes import Floats


def must_turn(pose: Floats, current: Plan | None, style: Style) -> bool:
    """Return whether the T at a pose (3,) is to be turned; a turn that has begun is finished."""
    begun = current is not None and current.turns
    return abs(float(pose[2])) > (style.turn_until if begun else style.turn_from)


class Turner:
    """Chooses the push that turns the T to the goal's angle in the least time."""

    def __init__(self, style: Style) -> None:
        self._style = style
        face, offset = strokes.contact_grid(style.spacing)
        far = np.abs(strokes.lever(face, offset)) >= style.turn_arm
        self._face, self._offset = face[far], offset[far]
        self._twist = strokes.twist(self._face, self._offset)

    def turn(self, pose: Floats, ways: Ways, current: Plan | None) -> Plan:
        """Return the cheapest turning plan from a pose (3,); see `Style.keep` for `current`."""
        style, face, offset, spin = self._style, self._face, self._offset, self._twist[:, 2]
        length = (-pose[2] * np.sign(spin)) % (2 * math.pi) / np.abs(spin)
        after = strokes.moved(pose, strokes.motion(self._twist * length[:, None]))
        cost = style.time_to_reach(ways.lengths(face, offset))
        cost += style.time_to_push(face, offset, length)
        cost += style.turn_shift_cost * np.hypot(after[:, 0], after[:, 1])
        cost += IMPOSSIBLE * (off_board(pose, face, offset) + 1.0 * into_wall(pose, after))
        judged = cost.copy()
        if current is not None and current.turns:
            same = (face == current.face[0]) & (offset == current.offset[0])
            judged -= style.keep * same
        k = int(np.argmin(judged))
        chosen = slice(k, k + 1)
        return Plan(face[chosen], offset[chosen], length[chosen], float(cost[k]), turns=True)

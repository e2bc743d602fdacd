"""A plan of pushes, and what its parts cost in control steps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.expert import pushes
from envs.expert.pushes import Floats, Ints
from envs.physics.dynamics import BOARD

Flags = npt.NDArray[np.bool_]
PUSH_SPEED, TRAVEL_SPEED = 11.0, 15.0  # px of the agent per step
APPROACH_COST = 4.0  # steps, of a change to another contact
IMPOSSIBLE = 300.0  # steps, of a push into a wall or from a contact off the board
_WALL = 8.0  # px from the board's edge, where the T's corners touch a wall


@dataclass(frozen=True)
class Plan:
    """K pushes: faces (K,), offsets (K,) and lengths (K,) in px; their cost in steps.

    `turns`: its one push only turns the T to the goal's angle.
    """

    face: Ints
    offset: Floats
    length: Floats
    cost: float
    turns: bool = False


def time_to_reach(path: Floats) -> Floats:
    """Return the steps (...) that paths of a length (...) in px take."""
    return path / TRAVEL_SPEED + APPROACH_COST * (path > 3)


def time_to_push(face: Ints, offset: Floats, length: Floats) -> Floats:
    """Return the steps (...) that pushes of a length (...) in px take."""
    return length * pushes.agent_speed(face, offset) / PUSH_SPEED


def off_board(pose: Floats, face: Ints, offset: Floats) -> Flags:
    """Return whether (...) the agent cannot stand at contacts (...) because the board ends."""
    stand = pushes.to_board(pose, pushes.agent_point(face, offset))
    return np.asarray(((stand < 1) | (stand > BOARD - 1)).any(axis=-1), dtype=np.bool_)


def into_wall(pose: Floats, after: Floats) -> Flags:
    """Return whether (...) the T is farther in a wall at poses `after` (..., 3) than at `pose`."""
    corners = pushes.to_board(after, pushes.HULL_POINTS)
    now = pushes.to_board(pose, pushes.HULL_POINTS)
    depth = np.maximum(_WALL - corners, corners - (511 - _WALL)).max(axis=(-2, -1))
    allowed = max(float(np.maximum(_WALL - now, now - (511 - _WALL)).max()), 0.0) + 0.1
    deeper: Flags = depth > allowed
    return deeper

"""What a plan of the demonstrator is, how it moves, and what its moves cost in control steps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.expert import pushes
from envs.expert.pushes import Floats, Ints
from envs.physics.dynamics import BOARD

Flags = npt.NDArray[np.bool_]
IMPOSSIBLE = 300.0  # steps: the cost of a stroke into a wall or a contact off the board
_WALL = 8.0  # px from the board's edge, where the T's corners touch a wall


@dataclass(frozen=True)
class Style:
    """How the demonstrator moves and what it weighs; speeds in px a step, costs in steps."""

    push_speed: float = 11.0
    travel_speed: float = 15.0
    approach_cost: float = 4.0  # of changing over to another contact
    keep: float = 4.0  # by which a new plan must beat the one being carried out
    # Turning first: see envs/expert/planner.py.
    turn_from: float = 0.35  # rad
    turn_until: float = 0.06  # rad
    turn_arm: float = 38.0  # px: the least lever of a turning push
    turn_shift_cost: float = 0.2  # of each px that the T is off the goal after the turn
    # Two strokes to the goal: see envs/expert/planner.py.
    faces: tuple[str, ...] = ("bar top", "stem right", "stem left", "stem tip")
    spacing: float = 12.0  # px between the contacts of the grid
    lengths: tuple[float, ...] = (
        *(1.5, 3, 5, 8, 12, 17, 23, 30),
        *(38, 48, 60, 75, 95, 120, 150, 180),
    )
    distance_cost: float = 0.8  # of each px of distance left
    miss_cost: float = 30.0  # of not being at the goal after the planned strokes
    hit_distance: float = 2.5  # px: the scale on which a distance counts as a miss

    def __post_init__(self) -> None:
        for name in ("push_speed", "travel_speed", "spacing", "hit_distance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not self.faces or not set(self.faces) <= set(pushes.FACE_NAMES):
            raise ValueError(f"faces must be some of {pushes.FACE_NAMES}, got {self.faces}")

    def time_to_reach(self, way: Floats) -> Floats:
        """Return the steps (...) that ways of a length (...) in px take."""
        return way / self.travel_speed + self.approach_cost * (way > 3)

    def time_to_push(self, face: Ints, offset: Floats, length: Floats) -> Floats:
        """Return the steps (...) that strokes of a length (...) in px take."""
        return length * pushes.agent_speed(face, offset) / self.push_speed


@dataclass(frozen=True)
class Plan:
    """Some strokes (arrays of their number): faces, offsets, lengths (px); the cost in steps.

    `turns` says that its one stroke is to turn the T, not to bring it to the goal.
    """

    face: Ints
    offset: Floats
    length: Floats
    cost: float
    turns: bool = False


def off_board(pose: Floats, face: Ints, offset: Floats) -> Flags:
    """Return whether (...) the agent cannot stand at contacts (...) because the board ends."""
    stand = pushes.to_board(pose, pushes.agent_point(face, offset))
    return np.asarray(((stand < 1) | (stand > BOARD - 1)).any(axis=-1), dtype=np.bool_)


def into_wall(pose: Floats, after: Floats) -> Flags:
    """Return whether (...) the T of poses `after` (..., 3) is farther in a wall than at `pose`."""
    corners = pushes.to_board(after, pushes.HULL_POINTS)
    now = pushes.to_board(pose, pushes.HULL_POINTS)
    depth = np.maximum(_WALL - corners, corners - (511 - _WALL)).max(axis=(-2, -1))
    allowed = max(float(np.maximum(_WALL - now, now - (511 - _WALL)).max()), 0.0) + 0.1
    deeper: Flags = depth > allowed
    return deeper

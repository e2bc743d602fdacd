"""Pushes on the T as rigid motions in closed form.

There is no friction and a free block stops at once, so an agent that keeps its place on one face of
the T and pushes along the face's normal turns the T about a fixed point: a constant twist, whose
motion is an exponential on SE(2).

A pose (..., 3) is the T's centre of gravity and angle in the goal's frame (px, px, rad): zero is
the goal. Points of the T are px in the block's frame. A push is a face, an offset along it (px) and
a length (px by which the face moves along its normal).
"""

import math

import numpy as np
import numpy.typing as npt

from envs.physics.dynamics import AGENT_RADIUS, CENTRE_OF_GRAVITY
from envs.physics.geometry import GOAL_POSE, OUTLINE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Per face: name, a point on it, the direction of offsets, the inward normal, and the allowed
# offsets, at which the agent's disc touches this face alone.
_FACES = (
    ("bar top", (0, 0), (1, 0), (0, 1), (-54, 54)),
    ("bar right end", (60, 0), (0, 1), (-1, 0), (6, 24)),
    ("bar left end", (-60, 0), (0, 1), (1, 0), (6, 24)),
    ("under bar right", (0, 30), (1, 0), (0, -1), (32, 56)),
    ("under bar left", (0, 30), (1, 0), (0, -1), (-56, -32)),
    ("stem right", (15, 0), (0, 1), (-1, 0), (46, 114)),
    ("stem left", (-15, 0), (0, 1), (1, 0), (46, 114)),
    ("stem tip", (0, 120), (1, 0), (0, -1), (-10, 10)),
)
FACE_NAMES = tuple(face[0] for face in _FACES)
FACE_POINT = np.array([face[1] for face in _FACES], dtype=np.float64)
FACE_ALONG = np.array([face[2] for face in _FACES], dtype=np.float64)
FACE_NORMAL = np.array([face[3] for face in _FACES], dtype=np.float64)
FACE_LOW, FACE_HIGH = np.array([face[4] for face in _FACES], dtype=np.float64).T
MOMENT = 3000.0  # of the block, whose mass is 1
TURN_RADIUS = 48.0  # px: the weight of one radian in distances
_CENTRE = np.array(CENTRE_OF_GRAVITY)
_GOAL_ANGLE = GOAL_POSE[2]


def _rotation(angle: float) -> Floats:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


_GOAL_TURN = _rotation(_GOAL_ANGLE)
_GOAL_CENTRE = np.array(GOAL_POSE[:2]) + _GOAL_TURN @ _CENTRE

# The corners that can touch a wall.
HULL_POINTS = OUTLINE[[0, 1, 2, 4, 5, 7]]


def contact_grid(spacing: float) -> tuple[Ints, Floats]:
    """Return faces (C,) and offsets (C,) about `spacing` px apart, each face's middle included."""
    offsets = [
        np.linspace(low, high, max(2, 2 * round((high - low) / spacing / 2)) + 1)
        for low, high in zip(FACE_LOW, FACE_HIGH, strict=True)
    ]
    faces = np.repeat(np.arange(len(offsets)), [len(each) for each in offsets])
    return faces, np.concatenate(offsets)


def contact_point(face: Ints, offset: Floats) -> Floats:
    """Return the point (..., 2) of the T that is pushed."""
    return FACE_POINT[face] + offset[..., None] * FACE_ALONG[face]


def agent_point(face: Ints, offset: Floats, gap: float = 0.0) -> Floats:
    """Return the agent's centre (..., 2) when it is `gap` px off the contact."""
    return contact_point(face, offset) - FACE_NORMAL[face] * (AGENT_RADIUS + gap)


def lever(face: Ints, offset: Floats) -> Floats:
    """Return the signed lever arm (...) in px of pushes about the centre of gravity."""
    arm, normal = contact_point(face, offset) - _CENTRE, FACE_NORMAL[face]
    turn: Floats = arm[..., 0] * normal[..., 1] - arm[..., 1] * normal[..., 0]
    return turn


def twist(face: Ints, offset: Floats) -> Floats:
    """Return the T's twist (..., 3) per px of push.

    An impulse J along the normal n at the lever l gives the velocity J n and the spin J l / moment.
    """
    arm, normal = lever(face, offset), FACE_NORMAL[face]
    share = 1.0 / (1.0 + arm**2 / MOMENT)
    spin = arm / MOMENT * share
    return np.stack([normal[..., 0] * share, normal[..., 1] * share, spin], axis=-1)


def agent_speed(face: Ints, offset: Floats) -> Floats:
    """Return the px (...) that the agent moves per px of push when it keeps its place."""
    twists = twist(face, offset)
    arm = agent_point(face, offset) - _CENTRE
    across = np.stack([-arm[..., 1], arm[..., 0]], axis=-1)
    speed: Floats = np.linalg.norm(twists[..., :2] + twists[..., 2:] * across, axis=-1)
    return speed


def motion(twists: Floats) -> Floats:
    """Return the displacement (..., 3) in the T's own frame after a twist (..., 3) of unit time."""
    angle = twists[..., 2]
    safe = np.where(np.abs(angle) < 1e-6, 1.0, angle)
    along = np.where(np.abs(angle) < 1e-6, 1.0, np.sin(safe) / safe)
    across = np.where(np.abs(angle) < 1e-6, angle / 2, (1.0 - np.cos(safe)) / safe)
    x, y = twists[..., 0], twists[..., 1]
    return np.stack([along * x - across * y, across * x + along * y, angle], axis=-1)


def moved(pose: Floats, displacement: Floats) -> Floats:
    """Return the pose (..., 3) after a displacement (..., 3) in the T's own frame."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = displacement[..., 0], displacement[..., 1]
    new_x = pose[..., 0] + cos * x - sin * y
    new_y = pose[..., 1] + sin * x + cos * y
    return np.stack([new_x, new_y, pose[..., 2] + displacement[..., 2]], axis=-1)


def relative_to(origin: Floats, pose: Floats) -> Floats:
    """Return a pose (3,) in the frame of another (3,)."""
    cos, sin = math.cos(origin[2]), math.sin(origin[2])
    x, y, angle = pose - origin
    turn = (angle + math.pi) % (2 * math.pi) - math.pi
    return np.array([cos * x + sin * y, cos * y - sin * x, turn])


def pushed(pose: Floats, face: Ints, offset: Floats, length: Floats) -> Floats:
    """Return the pose (..., 3) after pushes of `length` (...) px."""
    return moved(pose, motion(twist(face, offset) * length[..., None]))


def errors(pose: Floats) -> Floats:
    """Return the pose's distance to the goal by component (..., 3), all in px."""
    turn = 2 * TURN_RADIUS * np.sin(pose[..., 2] / 2)
    return np.stack([pose[..., 0], pose[..., 1], turn], axis=-1)


def distance(pose: Floats) -> Floats:
    """Return the distance (...) to the goal in px; coverage 0.95 is reached at about 2."""
    length: Floats = np.linalg.norm(errors(pose), axis=-1)
    return length


def observe(state: Floats) -> tuple[Floats, Floats]:
    """Return the pose (3,) of a state (5,), and the agent (2,) in the block's frame."""
    turn = _rotation(state[4])
    centre = (state[2:4] + turn @ _CENTRE - _GOAL_CENTRE) @ _GOAL_TURN
    angle = (state[4] - _GOAL_ANGLE + math.pi) % (2 * math.pi) - math.pi
    return np.array([centre[0], centre[1], angle]), (state[:2] - state[2:4]) @ turn


def to_board(pose: Floats, points: Floats) -> Floats:
    """Return the block's points (K, 2) on the board (..., K, 2), px, for poses (..., 3)."""
    centre = _GOAL_CENTRE + pose[..., :2] @ _GOAL_TURN.T
    angle = pose[..., 2:] + _GOAL_ANGLE
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = points[:, 0] - _CENTRE[0], points[:, 1] - _CENTRE[1]
    return np.stack(
        [centre[..., 0:1] + cos * x - sin * y, centre[..., 1:2] + sin * x + cos * y], axis=-1
    )

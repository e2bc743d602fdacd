"""Smooth frames of any size for videos and windows; observations are drawn in render.py."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from envs.dynamics import BOARD, WALLS
from envs.geometry import GOAL_POSE
from envs.raster import (
    AGENT,
    AGENT_CORE,
    AGENT_RADII,
    BLOCK,
    EDGE_RADIUS,
    GOAL,
    OUTLINE,
    PALETTE,
    WALL,
)

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
Distance = Callable[[Floats, Floats], Floats]  # of points x, y (px) to a shape, negative inside

ACTION_COLOUR = (255, 0, 0)
SMALLEST = 32


def video_frame(
    state: npt.ArrayLike, size: int = 512, action: npt.ArrayLike | None = None
) -> Frame:
    """Return a frame (size, size, 3), RGB, with smooth edges, of a state (5,): px and rad.

    `size` is even (video codecs ask for it) and at least 32 px. `action` (2,), a target in px on
    the 512 px board, is marked with a red cross. Raises ValueError for another size or shape.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < SMALLEST or size % 2:
        raise ValueError(f"size must be an even int of at least {SMALLEST}, got {size!r}")
    agent_x, agent_y, *block = _finite("state", state, 5)
    frame = _board(size).copy()
    block_x, block_y, angle = block
    middle = (block_x - 60 * math.sin(angle), block_y + 60 * math.cos(angle))
    tee = _tee(block_x, block_y, angle)
    _paint(frame, middle, 90, tee, PALETTE[BLOCK])
    _paint(frame, middle, 90, lambda x, y: np.abs(tee(x, y)) - EDGE_RADIUS, PALETTE[OUTLINE])
    for radius, colour in zip(AGENT_RADII, (AGENT, AGENT_CORE), strict=True):
        disc = _disc(agent_x, agent_y, radius)
        _paint(frame, (agent_x, agent_y), radius, disc, PALETTE[colour])
    if action is not None:
        x, y = _finite("action", action, 2)
        _paint(frame, (x, y), 10, _cross(x, y), ACTION_COLOUR)
    return frame


def _finite(name: str, value: npt.ArrayLike, count: int) -> list[float]:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{name} must hold {count} finite numbers, got {array}")
    numbers: list[float] = array.tolist()
    return numbers


@functools.lru_cache(maxsize=8)
def _board(size: int) -> Frame:
    """Return the board alone: the goal and the walls."""
    frame = np.full((size, size, 3), 255, dtype=np.uint8)
    _paint(frame, (BOARD / 2, BOARD / 2), BOARD, _tee(*GOAL_POSE), PALETTE[GOAL])
    (near, _), far = WALLS[1][0], WALLS[1][1][0]
    half, centre = (far - near) / 2, (far + near) / 2

    def walls(x: Floats, y: Floats) -> Floats:
        from_centre = np.maximum(np.abs(x - centre), np.abs(y - centre))
        return np.asarray(np.abs(from_centre - half) - EDGE_RADIUS)

    _paint(frame, (BOARD / 2, BOARD / 2), BOARD, walls, PALETTE[WALL])
    frame.flags.writeable = False
    return frame


def _paint(
    frame: Frame,
    centre: tuple[float, float],
    reach: float,
    distance: Distance,
    colour: tuple[int, int, int],
) -> None:
    """Blend `colour` over the pixels of `frame` that lie in a shape within `reach` of `centre`."""
    size = len(frame)
    scale = size / BOARD
    left, top, right, bottom = (
        min(max(math.floor((edge + sign * (reach + 3)) * scale), 0), size)
        for sign in (-1, 1)
        for edge in centre
    )
    x = (np.arange(left, right) + 0.5) / scale
    y = ((np.arange(top, bottom) + 0.5) / scale)[:, None]
    share = np.clip(0.5 - distance(x, y) * scale, 0, 1)[..., None]
    under = frame[top:bottom, left:right]
    frame[top:bottom, left:right] = np.rint(under * (1 - share) + np.array(colour) * share)


def _tee(x0: float, y0: float, angle: float) -> Distance:
    cos, sin = math.cos(angle), math.sin(angle)

    def distance(x: Floats, y: Floats) -> Floats:
        across = np.abs(cos * (x - x0) + sin * (y - y0))
        along = cos * (y - y0) - sin * (x - x0)
        bar = np.maximum(across - 60, np.abs(along - 15) - 15)
        # The stem from inside the bar: without a seam where the two meet.
        stem = np.maximum(across - 15, np.abs(along - 67.5) - 52.5)
        return np.asarray(np.minimum(bar, stem))

    return distance


def _disc(x0: float, y0: float, radius: float) -> Distance:
    return lambda x, y: np.asarray(np.hypot(x - x0, y - y0) - radius)


def _cross(x0: float, y0: float) -> Distance:
    def distance(x: Floats, y: Floats) -> Floats:
        dx, dy = np.abs(x - x0), np.abs(y - y0)
        return np.asarray(np.minimum(np.maximum(dx - 9, dy - 2), np.maximum(dx - 2, dy - 9)))

    return distance

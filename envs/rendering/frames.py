"""Smooth frames of any size for videos and windows; see observations.py for observations."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from envs.argument_checks import check_vector
from envs.physics.dynamics import BOARD, WALLS
from envs.physics.geometry import GOAL_POSE
from envs.rendering.raster import (
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
Colour = tuple[int, int, int]
ACTION_COLOUR = (255, 0, 0)
SMALLEST = 32


def video_frame(
    state: npt.ArrayLike, size: int = 512, action: npt.ArrayLike | None = None
) -> Frame:
    """Return an RGB frame (size, size, 3) with smooth edges of a state (5,): px and rad.

    `size`: even (for video codecs), at least 32 px. `action` (2,), a target in px on the 512 px
    board, is marked with a red cross. ValueError for another size or shape.
    """
    frame = board(size)
    draw_block(frame, state)
    draw_agent(frame, state)
    if action is not None:
        x, y = check_vector("action", action, 2)
        paint(frame, (x, y), 10, _cross(x, y, 9, 2), ACTION_COLOUR)
    return frame


def board(size: int) -> Frame:
    """Return the board alone (size, size, 3): the goal and the walls."""
    if isinstance(size, bool) or not isinstance(size, int) or size < SMALLEST or size % 2:
        raise ValueError(f"size must be an even int of at least {SMALLEST}, got {size!r}")
    return _board(size).copy()


def draw_block(frame: Frame, state: npt.ArrayLike, opacity: float = 1.0) -> None:
    """Draw a state's T on a square frame; `opacity` applies to its inside."""
    _, _, x, y, angle = check_vector("state", state, 5)
    middle = (x - 60 * math.sin(angle), y + 60 * math.cos(angle))
    tee = _tee(x, y, angle)
    paint(frame, middle, 90, tee, PALETTE[BLOCK], opacity)
    paint(frame, middle, 90, lambda x, y: np.abs(tee(x, y)) - EDGE_RADIUS, PALETTE[OUTLINE])


def draw_agent(frame: Frame, state: npt.ArrayLike) -> None:
    """Draw a state's agent on a square frame."""
    x, y, *_ = check_vector("state", state, 5)
    for radius, colour in zip(AGENT_RADII, (AGENT, AGENT_CORE), strict=True):
        draw_disc(frame, (x, y), radius, PALETTE[colour])


def draw_target(frame: Frame, place: npt.ArrayLike, colour: Colour) -> None:
    """Mark a place (2,) px with a cross that a white edge sets off."""
    x, y = check_vector("place", place, 2)
    paint(frame, (x, y), 13, _cross(x, y, 12, 4.5), (255, 255, 255))
    paint(frame, (x, y), 11, _cross(x, y, 10, 2.5), colour)


def draw_disc(
    frame: Frame, place: tuple[float, float], radius: float, colour: Colour, opacity: float = 1.0
) -> None:
    """Fill a disc around a place, px on the board."""
    x, y = place
    paint(frame, place, radius, lambda u, v: np.hypot(u - x, v - y) - radius, colour, opacity)


def draw_line(
    frame: Frame, ends: npt.ArrayLike, radius: float, colour: Colour, opacity: float = 1.0
) -> None:
    """Draw a line with round ends from place to place, ends (2, 2) px."""
    (x0, y0), (x1, y1) = np.asarray(ends, dtype=np.float64).tolist()
    dx, dy = x1 - x0, y1 - y0
    square = max(dx * dx + dy * dy, 1e-12)

    def distance(x: Floats, y: Floats) -> Floats:
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / square, 0.0, 1.0)
        return np.asarray(np.hypot(x - x0 - along * dx, y - y0 - along * dy) - radius)

    reach = max(abs(dx), abs(dy)) / 2 + radius
    paint(frame, ((x0 + x1) / 2, (y0 + y1) / 2), reach, distance, colour, opacity)


@functools.lru_cache(maxsize=8)
def _board(size: int) -> Frame:
    frame = np.full((size, size, 3), 255, dtype=np.uint8)
    paint(frame, (BOARD / 2, BOARD / 2), BOARD, _tee(*GOAL_POSE), PALETTE[GOAL])
    (near, _), far = WALLS[1][0], WALLS[1][1][0]
    half, centre = (far - near) / 2, (far + near) / 2

    def walls(x: Floats, y: Floats) -> Floats:
        from_centre = np.maximum(np.abs(x - centre), np.abs(y - centre))
        return np.asarray(np.abs(from_centre - half) - EDGE_RADIUS)

    paint(frame, (BOARD / 2, BOARD / 2), BOARD, walls, PALETTE[WALL])
    frame.flags.writeable = False
    return frame


def paint(
    frame: Frame,
    centre: tuple[float, float],
    reach: float,
    distance: Distance,
    colour: Colour,
    opacity: float = 1.0,
) -> None:
    """Blend `colour` over the pixels of a square frame that a shape covers.

    The shape lies within `reach` of `centre`, in px on the board.
    """
    size = len(frame)
    scale = size / BOARD
    left, top, right, bottom = (
        min(max(math.floor((edge + sign * (reach + 3)) * scale), 0), size)
        for sign in (-1, 1)
        for edge in centre
    )
    x = (np.arange(left, right) + 0.5) / scale
    y = ((np.arange(top, bottom) + 0.5) / scale)[:, None]
    share = np.clip(0.5 - distance(x, y) * scale, 0, 1)[..., None] * opacity
    under = frame[top:bottom, left:right]
    frame[top:bottom, left:right] = np.rint(under * (1 - share) + np.array(colour) * share)


def _tee(x0: float, y0: float, angle: float) -> Distance:
    cos, sin = math.cos(angle), math.sin(angle)

    def distance(x: Floats, y: Floats) -> Floats:
        across = np.abs(cos * (x - x0) + sin * (y - y0))
        along = cos * (y - y0) - sin * (x - x0)
        bar = np.maximum(across - 60, np.abs(along - 15) - 15)
        # The stem begins inside the bar: no seam between the two.
        stem = np.maximum(across - 15, np.abs(along - 67.5) - 52.5)
        return np.asarray(np.minimum(bar, stem))

    return distance


def _cross(x0: float, y0: float, long: float, thick: float) -> Distance:
    def distance(x: Floats, y: Floats) -> Floats:
        dx, dy = np.abs(x - x0), np.abs(y - y0)
        level, upright = np.maximum(dx - long, dy - thick), np.maximum(dx - thick, dy - long)
        return np.asarray(np.minimum(level, upright))

    return distance

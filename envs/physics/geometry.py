"""The T's shape in closed form: corners, keypoints and the exact share of the goal it covers."""

import math

import numpy as np
import numpy.typing as npt

from envs.physics.dynamics import BAR, STEM

GOAL_POSE = (256.0, 256.0, math.pi / 4)
GOAL_AREA = 6300.0
SUCCESS_COVERAGE = 0.95


# Nine points on the block in its own frame (px): the medians of the recorded ones.
BLOCK_KEYPOINTS = np.array(
    [
        (9.2698, 90.0410),
        (-60.9835, -1.1867),
        (60.9128, -1.3934),
        (-0.2705, 25.5436),
        (-14.0649, 122.8159),
        (39.0027, 32.8574),
        (-39.9664, 32.7297),
        (-16.8243, 62.8632),
        (23.5415, -1.7003),
    ]
)
_KEYPOINTS_U, _KEYPOINTS_V = np.ascontiguousarray(BLOCK_KEYPOINTS.T)


# The outline of the T (8 corners, px, in its own frame), one turn in a fixed sense.
OUTLINE = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)],
    dtype=np.float64,
)


# The T's smallest enclosing circle: centre in its own frame and radius (px).
_CIRCLE_Y = 45.9375
_CIRCLE_RADIUS = 75.576
_GOAL_X, _GOAL_Y, _GOAL_ANGLE = GOAL_POSE
_GOAL_COS, _GOAL_SIN = math.cos(_GOAL_ANGLE), math.sin(_GOAL_ANGLE)
_CORNERS = tuple((float(x), float(y)) for x, y in OUTLINE)


# The goal's rectangles in its own frame: x from, x to, y from, y to.
_GOAL_BOXES = tuple(
    (min(x), max(x), min(y), max(y)) for x, y in (zip(*BAR, strict=True), zip(*STEM, strict=True))
)


def coverage(x: float, y: float, angle: float) -> float:
    """Return the share of the goal, in [0, 1], that the block at (x, y) px, angle rad covers.

    By Green's theorem the common area is the sum, over the edges of the block's outline, of the
    integral of clip(y) dx within each of the goal's two rectangles. In the goal's frame these are
    upright: the bar from (-60, 0) to (60, 30), the stem from (-15, 30) to (15, 120).
    """
    turn = angle - _GOAL_ANGLE
    cos, sin = math.cos(turn), math.sin(turn)
    # The block's position in the goal's frame.
    dx, dy = x - _GOAL_X, y - _GOAL_Y
    left, down = _GOAL_COS * dx + _GOAL_SIN * dy, _GOAL_COS * dy - _GOAL_SIN * dx
    if math.hypot(left - sin * _CIRCLE_Y, down + cos * _CIRCLE_Y - _CIRCLE_Y) > 2 * _CIRCLE_RADIUS:
        return 0.0
    outline = [(left + cos * u - sin * v, down + sin * u + cos * v) for u, v in _CORNERS]
    area = 0.0
    x0, y0 = outline[-1]
    for x1, y1 in outline:
        # Above the goal's upper edge, y = 0, and beside its bar an edge adds nothing.
        if y0 > 0.0 or y1 > 0.0:
            first, last, sign = (x0, x1, -1.0) if x0 < x1 else (x1, x0, 1.0)
            start = first if first > -60.0 else -60.0
            end = last if last < 60.0 else 60.0
            if start < end:
                slope = (y1 - y0) / (x1 - x0)
                from_y, to_y = y0 + slope * (start - x0), y0 + slope * (end - x0)
                area += sign * (end - start) * _mean_of_clipped(from_y, to_y, 0.0, 30.0)
                if y0 > 30.0 or y1 > 30.0:
                    start = first if first > -15.0 else -15.0
                    end = last if last < 15.0 else 15.0
                    if start < end:
                        from_y, to_y = y0 + slope * (start - x0), y0 + slope * (end - x0)
                        area += sign * (end - start) * _mean_of_clipped(from_y, to_y, 30.0, 120.0)
        x0, y0 = x1, y1
    return min(max(area / GOAL_AREA, 0.0), 1.0)


def _mean_of_clipped(start: float, end: float, low: float, high: float) -> float:
    """Return the mean of clip(t, low, high) - low for t from `start` to `end`."""
    if start > end:
        start, end = end, start
    if start >= high:
        return high - low
    if start >= low and end <= high:
        return 0.5 * (start + end) - low
    if end <= low:
        return 0.0
    inner = start if start > low else low
    outer = end if end < high else high
    sloping = (outer - inner) * (0.5 * (inner + outer) - low)
    return (sloping + (end - outer) * (high - low)) / (end - start)


def coverage_many(poses: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the coverage (N,) of poses (N, 3): x, y (px), angle (rad); see `coverage`."""
    poses_N3 = np.asarray(poses, dtype=np.float64)
    if poses_N3.ndim != 2 or poses_N3.shape[1] != 3:
        raise ValueError(f"poses must have the shape (N, 3), got {poses_N3.shape}")
    turn = poses_N3[:, 2:] - _GOAL_ANGLE
    cos, sin = np.cos(turn), np.sin(turn)
    dx, dy = poses_N3[:, :1] - _GOAL_X, poses_N3[:, 1:2] - _GOAL_Y
    u, v = OUTLINE[:, 0], OUTLINE[:, 1]
    x1_N8 = _GOAL_COS * dx + _GOAL_SIN * dy + cos * u - sin * v
    y1_N8 = _GOAL_COS * dy - _GOAL_SIN * dx + sin * u + cos * v
    x0_N8, y0_N8 = np.roll(x1_N8, 1, axis=1), np.roll(y1_N8, 1, axis=1)
    run = x1_N8 - x0_N8
    slope = (y1_N8 - y0_N8) / np.where(run == 0, 1.0, run)
    area_N = np.zeros(len(poses_N3))
    for west, east, top, bottom in _GOAL_BOXES:
        start, end = np.clip(x0_N8, west, east), np.clip(x1_N8, west, east)
        from_y, to_y = y0_N8 + slope * (start - x0_N8), y0_N8 + slope * (end - x0_N8)
        lower, upper = np.minimum(from_y, to_y), np.maximum(from_y, to_y)
        inner, outer = np.clip(lower, top, bottom), np.clip(upper, top, bottom)
        rise = upper - lower
        above = np.maximum(upper - np.maximum(lower, bottom), 0.0)
        sloping = (outer - inner) * (0.5 * (inner + outer) - top) + above * (bottom - top)
        flat = np.clip(0.5 * (lower + upper), top, bottom) - top
        mean = np.where(rise > 1e-9, sloping / np.where(rise > 1e-9, rise, 1.0), flat)
        area_N += ((start - end) * mean).sum(axis=1)
    return np.clip(area_N / GOAL_AREA, 0.0, 1.0)


def corners(pose: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the T's eight corners (..., 8, 2) in px for block poses (..., 3): x, y, angle."""
    poses = np.asarray(pose, dtype=np.float64)
    cos, sin = np.cos(poses[..., 2:]), np.sin(poses[..., 2:])
    u, v = OUTLINE[:, 0], OUTLINE[:, 1]
    x = poses[..., 0:1] + cos * u - sin * v
    y = poses[..., 1:2] + sin * u + cos * v
    return np.stack([x, y], axis=-1)


def keypoints(state: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return keypoints (..., 20) in px of states (..., 5): nine of the block, then the agent."""
    states = np.asarray(state, dtype=np.float64)
    if states.shape[-1:] != (5,):
        raise ValueError(f"states must have the shape (..., 5), got {states.shape}")
    points = np.empty((*states.shape[:-1], 20))
    cos, sin = np.cos(states[..., 4:]), np.sin(states[..., 4:])
    points[..., 0:18:2] = states[..., 2:3] + cos * _KEYPOINTS_U - sin * _KEYPOINTS_V
    points[..., 1:18:2] = states[..., 3:4] + sin * _KEYPOINTS_U + cos * _KEYPOINTS_V
    points[..., 18:] = states[..., :2]
    return points

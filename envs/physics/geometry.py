"""The T's geometry in closed form: corners, keypoints and the exact coverage of the goal."""

import math

import numpy as np
import numpy.typing as npt

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

# The outline of the T: 8 corners in order, px, in its own frame.
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
        # An edge above the goal (y < 0) or beside its bar adds nothing.
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

"""The T's closed form against shapely and against the recorded keypoints."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from envs.physics.dynamics import DT, World
from envs.physics.geometry import GOAL_AREA, GOAL_POSE, corners, coverage, keypoints

GOAL = Polygon(corners(GOAL_POSE))
angles = st.floats(-10, 10) | st.sampled_from(
    [GOAL_POSE[2] + k * math.pi / 4 + d for k in range(8) for d in (0, 1e-15, -1e-12, 1e-9, 1e-6)]
)


def by_shapely(x: float, y: float, angle: float) -> float:
    return Polygon(corners((x, y, angle))).intersection(GOAL).area / GOAL.area


def test_the_goal_has_its_area() -> None:
    assert pytest.approx(GOAL_AREA) == GOAL.area
    assert coverage(*GOAL_POSE) == 1


@settings(max_examples=500, deadline=None)
@given(st.floats(-100, 612), st.floats(-100, 612), angles)
def test_coverage_is_shapelys_anywhere(x: float, y: float, angle: float) -> None:
    share = coverage(x, y, angle)
    assert 0 <= share <= 1
    assert share == pytest.approx(by_shapely(x, y, angle), abs=1e-9)


@settings(max_examples=500, deadline=None)
@given(
    st.floats(-150, 150) | st.sampled_from([0.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0]),
    st.floats(-150, 150) | st.sampled_from([0.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0]),
    angles,
)
def test_coverage_is_shapelys_near_the_goal(u: float, v: float, angle: float) -> None:
    # Offsets along the goal's own axes: edges fall on edges.
    cos, sin = math.cos(GOAL_POSE[2]), math.sin(GOAL_POSE[2])
    x, y = GOAL_POSE[0] + cos * u - sin * v, GOAL_POSE[1] + sin * u + cos * v
    assert coverage(x, y, angle) == pytest.approx(by_shapely(x, y, angle), abs=1e-9)


def pressed(states: np.ndarray) -> np.ndarray:
    """Whether the agent or a wall touches the block, so that it is not at rest."""
    x, y, block_x, block_y, angle = states.T
    cos, sin = np.cos(angle), np.sin(angle)
    across = np.abs(cos * (x - block_x) + sin * (y - block_y))
    along = cos * (y - block_y) - sin * (x - block_x)
    bar = np.hypot(np.maximum(across - 60, 0), np.maximum(np.abs(along - 15) - 15, 0))
    stem = np.hypot(np.maximum(across - 15, 0), np.maximum(np.abs(along - 75) - 45, 0))
    inner = corners(states[:, 2:])
    at_wall = (inner.min(axis=(1, 2)) < 8) | (inner.max(axis=(1, 2)) > 503)
    return (np.minimum(bar, stem) <= 15) | at_wall


def test_keypoints_are_the_recorded_ones(human: SimpleNamespace) -> None:
    states = human.state.astype(np.float64)
    recorded = human.keypoint.reshape(len(states), 9, 2)
    error = np.abs(keypoints(states)[:, :18].reshape(-1, 9, 2) - recorded).max(axis=(1, 2))
    touched = pressed(states)
    assert 0.4 < touched.mean() < 0.6
    assert error[~touched].max() < 1.5e-4
    # The recording put each state back and let it settle for two substeps before it looked.
    world, settled = World(), []
    for row in np.flatnonzero(touched)[::16]:
        world.set_state(states[row])
        for _ in range(2):
            world._live().space.step(DT)
        settled.append(np.abs(keypoints(world.state)[:18].reshape(9, 2) - recorded[row]).max())
    assert np.percentile(settled, 90) < 1e-3
    assert np.median(error[touched]) < 0.01


def test_keypoints_keep_leading_axes() -> None:
    states = np.random.default_rng(0).uniform(0, 5, (2, 3, 5))
    together = keypoints(states)
    assert together.shape == (2, 3, 20)
    assert np.array_equal(together[1, 2], keypoints(states[1, 2]))
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 5\), got \(4,\)"):
        keypoints(np.zeros(4))


def test_corners_turn_with_the_block() -> None:
    assert corners((10, 20, 0))[0].tolist() == [-50, 20]
    assert corners((10, 20, math.pi / 2))[0] == pytest.approx([10, -40])
    assert corners(np.zeros((4, 3))).shape == (4, 8, 2)

"""The mirror symmetry: it holds in the exact world, for every observation and every action."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from envs.physics.dynamics import World
from envs.physics.geometry import BLOCK_KEYPOINTS, coverage, keypoints
from envs.rendering.observations import render_observations
from ibc.config.action import ActionConfig
from ibc.data import symmetry
from ibc.data.normalizer import Normalizer

# They start beside a wall, and the walls are no mirror images of each other.
BESIDE_A_WALL = (65, 89, 149, 156, 192, 200)


@pytest.fixture(scope="module")
def states():
    rng = np.random.default_rng(0)
    found = rng.uniform(100, 412, (50, 5))
    found[:, 4] = rng.uniform(0, 2 * math.pi, 50)
    return found


def mirrored(name, values):
    return symmetry.mirror({name: torch.from_numpy(values)})[name].numpy()


def test_the_mirrored_human_demonstrations_replay_to_the_mirrored_states(human_data: Path):
    group = zarr.open_group(human_data, mode="r")
    actions = np.asarray(group["data/action"], np.float64)
    targets = mirrored("action", actions)
    ends = np.asarray(group["meta/episode_ends"]).tolist()
    apart = []
    for episode, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if episode % 4 and episode not in BESIDE_A_WALL:
            continue  # a quarter of them tells it
        world, other = World(), World()
        world.reset(episode)
        world.set_state(world.state)
        other.set_state(mirrored("state", world.state))
        largest = 0.0
        for step in range(start, end):
            world.drive(*actions[step])
            other.drive(*targets[step])
            difference = mirrored("state", world.state) - other.state
            difference[4] = math.remainder(difference[4], 2 * math.pi)
            largest = max(largest, float(np.abs(difference).max()))
        if largest > 1e-9:
            apart.append(episode)
    assert tuple(apart) == BESIDE_A_WALL


def test_twice_is_the_same_and_the_goal_is_its_own_mirror_image(states):
    assert np.allclose(mirrored("state", mirrored("state", states)), states, atol=1e-9)
    goal = np.array([[0.0, 512.0, 256.0, 256.0, math.pi / 4]])
    assert np.allclose(mirrored("state", goal), goal)
    for state, other in zip(states, mirrored("state", states), strict=True):
        assert coverage(*other[2:]) == pytest.approx(coverage(*state[2:]), abs=1e-9)


def test_keypoints_are_those_of_the_mirrored_pose(states):
    assert np.array_equal(symmetry.BLOCK_KEYPOINTS, BLOCK_KEYPOINTS)
    expected = keypoints(mirrored("state", states))
    assert np.allclose(mirrored("keypoints", keypoints(states)), expected, atol=1e-9)
    short = keypoints(states).astype(np.float32)
    assert np.abs(mirrored("keypoints", short) - expected).max() < 1e-3


def test_images_are_those_of_the_mirrored_state(states):
    ours = mirrored("image", render_observations(states)).astype(int)
    drawn = render_observations(mirrored("state", states)).astype(int)
    # Lines are drawn from one corner to the other, so a twentieth of the pixels lies at an edge.
    assert (ours != drawn).any(-1).mean() < 0.06
    assert np.abs(ours - drawn).mean() < 1.0


@pytest.mark.parametrize("frame", ["agent", "board"])
@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_normalised_actions_are_mirrored_as_in_px(frame, shape):
    rng = torch.Generator().manual_seed(0)
    low = -torch.rand(shape, generator=rng) * 50 - 10 + 250 * (frame == "board")
    high = torch.rand(shape, generator=rng) * 50 + 10 + 250 * (frame == "board")
    bounds = "steps" if len(shape) == 2 else "data"
    normalizer = Normalizer(ActionConfig(frame=frame, bounds=bounds), low, high)
    actions = 230 + 50 * torch.rand(8, 3, 2, generator=rng)
    agent = 240 + 20 * torch.rand(8, 2, generator=rng)
    other = symmetry.mirror({"action": actions, "agent_pos": agent})
    expected = normalizer.encode(other["action"], other["agent_pos"])
    reflect = symmetry.Reflection(normalizer, 3)
    encoded = normalizer.encode(actions, agent)
    assert torch.allclose(reflect(encoded, slice(0, 6)), expected, atol=1e-5)
    assert torch.allclose(reflect(encoded[:, 2:4], slice(2, 4)), expected[:, 2:4], atol=1e-5)

"""A toy data set: small enough to train on in a second."""

import numpy as np
import pytest

from ibc.data.demos import Demos


@pytest.fixture(scope="session")
def toy_demos() -> Demos:
    """Twelve episodes of 30 steps in which the agent walks to the block and images show both."""
    rng = np.random.default_rng(0)
    episodes, length = 12, 30
    state = np.empty((episodes, length, 5), np.float32)
    action = np.empty((episodes, length, 2), np.float32)
    for e in range(episodes):
        agent, block = rng.uniform(60, 450, (2, 2))
        angle = rng.uniform(0, 2 * np.pi)
        for t in range(length):
            target = agent + (block - agent) * 0.2
            state[e, t] = [*agent, *block, angle]
            action[e, t] = target
            agent = target
    state, action = state.reshape(-1, 5), action.reshape(-1, 2)
    spread = np.tile(rng.uniform(-60, 60, (9, 2)).astype(np.float32), (len(state), 1, 1))
    keypoints = np.concatenate(
        [(state[:, None, 2:4] + spread).reshape(len(state), 18), state[:, :2]], 1
    )
    images = np.full((len(state), 96, 96, 3), 255, np.uint8)
    for image, (ax, ay, bx, by, _) in zip(images, state * (96 / 512), strict=True):
        for x, y, channel in ((ax, ay, 0), (bx, by, 2)):
            image[max(int(y) - 3, 0) : int(y) + 3, max(int(x) - 3, 0) : int(x) + 3, channel] = 0
    return Demos(
        path="toy",
        fingerprint="toy",
        action=action,
        state=state,
        keypoints=keypoints.astype(np.float32),
        episode_ends=np.arange(1, episodes + 1) * length,
        images=images,
        pixels=None,
    )

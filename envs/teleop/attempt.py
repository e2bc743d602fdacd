"""One attempt at a demonstration: the simulation, the pointer and the recorded steps."""

import math

import numpy as np
import numpy.typing as npt

from envs.dataset.recording import Rows
from envs.physics.dynamics import BOARD, World
from envs.physics.geometry import SUCCESS_COVERAGE, coverage, keypoints
from envs.rendering.observations import Renderer

NEAR = 30.0  # px between pointer and agent at which the agent begins to follow
Point = tuple[float, float]  # px on the 512 px board


class Attempt:
    """An episode from the legacy reset of `seed`, which runs only while the pointer leads.

    The pointer leads (`led`) from when it comes near the agent until `release`. `target` is that of
    the last step, or None.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.led = False
        self.target: Point | None = None
        self._world = World()
        self._world.reset(seed)
        self._renderer = Renderer()
        self._states: list[npt.NDArray[np.float64]] = []
        self._actions: list[npt.NDArray[np.float32]] = []
        self._contacts: list[int] = []
        self._images: list[npt.NDArray[np.uint8]] = []
        self.coverage = coverage(*self._world.state[2:])

    @property
    def state(self) -> npt.NDArray[np.float64]:
        """The current state (5,): px and rad."""
        return self._world.state

    @property
    def steps(self) -> int:
        """The number of control steps taken."""
        return len(self._actions)

    @property
    def solved(self) -> bool:
        """Whether coverage is above 0.95 after the last step."""
        return self.steps > 0 and self.coverage > SUCCESS_COVERAGE

    def follow(self, pointer: Point | None) -> None:
        """Take one control step of 0.1 s towards the pointer (px), if it leads."""
        if pointer is None:
            return
        x, y = (min(max(at, 0.0), BOARD) for at in pointer)
        state = self._world.state
        self.led = self.led or math.hypot(x - state[0], y - state[1]) < NEAR
        if not self.led:
            return
        # The action is carried out as it is stored, in float32: a replay is exact.
        action = np.array([x, y], dtype=np.float32)
        self._states.append(state)
        self._actions.append(action)
        self._contacts.append(self._world.contacts)
        self._images.append(self._renderer.observation(state))
        self._world.step(action)
        self.target = x, y
        self.coverage = coverage(*self._world.state[2:])

    def release(self) -> None:
        """Pause until the pointer comes near again."""
        self.led = False

    def rows(self) -> Rows:
        """Return the arrays of the episode so far, float32; see envs/dataset/recording.py.

        Row t holds the observation before step t and its target.
        """
        states = np.array(self._states)
        return {
            "state": states.astype(np.float32),
            "action": np.array(self._actions),
            "keypoint": keypoints(states)[:, :18].reshape(-1, 9, 2).astype(np.float32),
            "img": np.array(self._images, dtype=np.float32),
            "n_contacts": np.array(self._contacts, dtype=np.float32)[:, None],
        }

"""One attempt at a demonstration: the world, the pointer that leads the agent, what is recorded."""

import math

import numpy as np
import numpy.typing as npt

from envs.dataset.recording import Rows
from envs.physics.dynamics import BOARD, World
from envs.physics.geometry import SUCCESS_COVERAGE, coverage, keypoints
from envs.rendering.observations import Renderer

NEAR = 30.0  # px between pointer and agent from which on the agent follows
Point = tuple[float, float]  # px on the 512 px board


class Attempt:
    """Starts at the legacy reset of `seed`; the world moves only while the pointer leads.

    The pointer leads from when it has come near the agent until `release`. `coverage`, `best` (the
    highest so far), `target` (of the last step, or None) and `led` are there to be read.
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
        self.coverage = self.best = coverage(*self._world.state[2:])

    @property
    def state(self) -> npt.NDArray[np.float64]:
        """The state (5,) of this moment: px and rad."""
        return self._world.state

    @property
    def steps(self) -> int:
        """How many control steps were taken."""
        return len(self._actions)

    @property
    def solved(self) -> bool:
        """Whether the goal's coverage is above 0.95 after the last step."""
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
        # What is stored is what is carried out, float32: so a replay is exact.
        action = np.array([x, y], dtype=np.float32)
        self._states.append(state)
        self._actions.append(action)
        self._contacts.append(self._world.contacts)
        self._images.append(self._renderer.observation(state))
        self._world.step(action)
        self.target = x, y
        self.coverage = coverage(*self._world.state[2:])
        self.best = max(self.best, self.coverage)

    def release(self) -> None:
        """Let the world wait until the pointer comes near again."""
        self.led = False

    def rows(self) -> Rows:
        """Return the arrays of the episode so far, as recordings have them: float32.

        Row t holds what was seen before step t and its target; n_contacts is how many of the
        block's two parts the agent touches then.
        """
        states = np.array(self._states)
        return {
            "state": states.astype(np.float32),
            "action": np.array(self._actions),
            "keypoint": keypoints(states)[:, :18].reshape(-1, 9, 2).astype(np.float32),
            "img": np.array(self._images, dtype=np.float32),
            "n_contacts": np.array(self._contacts, dtype=np.float32)[:, None],
        }

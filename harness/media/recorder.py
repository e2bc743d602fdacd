"""The recorded steps of an episode, and their plain frames."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.physics.dynamics import CONTROL_HZ
from envs.rendering.frames import video_frame

SIZE = 384
Frame = NDArray[np.uint8]
Floats = NDArray[np.float64]


class Step(NamedTuple):
    """A state (5,), the action (2,) px taken there (None at the last state), and the coverage."""

    state: Floats
    action: Floats | None
    coverage: float


Steps = list[Step]


class Recorder:
    """The `video` callback of `evaluate_block`: keeps the steps of chosen seeds."""

    def __init__(self, seeds: Iterable[int]) -> None:
        self.steps: dict[int, Steps] = {seed: [] for seed in seeds}

    def __call__(self, seed: int, state: Floats, action: Floats | None, coverage: float) -> None:
        """Record a step of a chosen seed."""
        if seed in self.steps:
            self.steps[seed].append(Step(state, action, coverage))


def episode_frames(steps: Iterable[Step], size: int = SIZE) -> Iterator[Frame]:
    """Yield a frame (size, size, 3) per state, its action marked."""
    for step in steps:
        yield video_frame(step.state, size=size, action=step.action)


def held(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames, at least one, and then the last one for a second more."""
    for frame in frames:
        yield frame
    yield from itertools.repeat(frame, CONTROL_HZ)

"""What is recorded of an episode while it is rolled out."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.rendering.frames import video_frame

CONTROL_HZ = 10
SIZE = 384
HOLD_FRAMES = 10  # the last picture stays for a second
Frame = NDArray[np.uint8]
Floats = NDArray[np.float64]


class Step(NamedTuple):
    """A state (5,) that an episode passed, the action (2,) px taken there, None at the last one."""

    state: Floats
    action: Floats | None
    coverage: float


Steps = list[Step]


class Recorder:
    """Keeps the states and actions of chosen episodes; it is `evaluate_block`'s `video`."""

    def __init__(self, seeds: Iterable[int]) -> None:
        self.steps: dict[int, Steps] = {seed: [] for seed in seeds}

    def __call__(
        self,
        seed: int,
        state: Floats,
        action: Floats | None,
        coverage: float,
    ) -> None:
        """Note a step, and nothing of episodes that are not chosen."""
        if seed in self.steps:
            self.steps[seed].append(Step(state, action, coverage))


def episode_frames(steps: Iterable[Step], size: int = SIZE) -> Iterator[Frame]:
    """Yield the pictures (size, size, 3) of an episode's states, its action marked on each."""
    for step in steps:
        yield video_frame(step.state, size=size, action=step.action)


def held(frames: Iterable[Frame], count: int = HOLD_FRAMES) -> Iterator[Frame]:
    """Yield the frames, and the last one `count` times more."""
    frame = None
    for frame in frames:
        yield frame
    if frame is not None:
        yield from itertools.repeat(frame, count)

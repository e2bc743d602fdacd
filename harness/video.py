"""Episodes as mp4 files: the board with the action marked, played at the control rate."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from envs.video import video_frame
from harness.files import sync_folder, temporary_beside

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


def write_video(path: Path, frames: Iterable[Frame], fps: int = CONTROL_HZ) -> None:
    """Write frames uint8 (height, width, 3) as H.264 in an mp4 file, which appears when whole.

    ValueError for no frames, sizes that differ or are odd (H.264 halves the colours); an existing
    file is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with av.open(temporary, "w", format="mp4") as container:
            _encode(container, frames, fps, path)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _encode(container: Any, frames: Iterable[Frame], fps: int, path: Path) -> None:
    stream, shape = None, None
    for frame in frames:
        if stream is None:
            shape = frame.shape
            if (
                frame.dtype != np.uint8
                or len(shape) != 3
                or shape[2] != 3
                or any(side % 2 for side in shape[:2])
            ):
                raise ValueError(
                    f"a video's frames are uint8 (height, width, 3) of even sizes, given "
                    f"{frame.dtype} {shape}"
                )
            stream = container.add_stream("libx264", rate=fps)
            stream.height, stream.width = shape[:2]
            stream.pix_fmt = "yuv420p"  # what every player shows
            stream.options = {"crf": "20", "preset": "veryfast"}
            stream.thread_count = 1
        if frame.shape != shape:
            raise ValueError(f"a video's frames have one size, given {shape} and {frame.shape}")
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
    if stream is None:
        raise ValueError(f"a video has at least one frame, given none for {path}")
    container.mux(stream.encode())


def free_path(path: Path) -> Path:
    """Return the path, or the first of `<stem>-2`, `<stem>-3`, ... that no file has yet."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


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

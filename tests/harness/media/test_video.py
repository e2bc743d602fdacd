"""Videos are H.264 that decodes to the frames, whole or absent, and start at once."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from envs.rendering.frames import video_frame
from harness.config.protocol import Protocol
from harness.evaluation.rollout import evaluate_block
from harness.media.recorder import Recorder, Step, episode_frames, held
from harness.media.video import HOLD_MS, write_animation, write_video


class Centre:
    def predict_action(self, obs: Any, generators: Any) -> Any:
        return obs["state"][:, :, :2] * 0 + 256.0


def test_an_episode_becomes_a_video(tmp_path: Path) -> None:
    recorder = Recorder([300_001])
    evaluate_block(Centre(), [300_000, 300_001], Protocol(max_episode_steps=8), video=recorder)
    steps = recorder.steps[300_001]
    assert len(steps) == 9
    path = tmp_path / "video.mp4"
    write_video(path, held(episode_frames(steps, size=128)))
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 9 + 10  # the last one stays for a second
    assert frames[0].shape == (128, 128, 3)
    state, action, _ = steps[3]
    drawn = video_frame(state, size=128, action=action).astype(int)
    assert np.abs(frames[3].astype(int) - drawn).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")  # a browser starts at once


def test_the_action_is_marked(tmp_path: Path) -> None:
    state = np.array([100.0, 100.0, 300.0, 300.0, 0.5])
    with_action, without = (
        next(episode_frames([Step(state, action, 0.0)], size=256))
        for action in (np.array([256.0, 100.0]), None)
    )
    changed = np.argwhere((with_action != without).any(-1))
    assert np.abs(changed.mean(0) - (50, 128)).max() < 2


def moving(count: int, size: int = 48) -> list[Any]:
    frames = []
    for i in range(count):
        frame = np.full((size, size, 3), 255, np.uint8)
        frame[10:20, i : i + 8] = (200, 30, 40)
        frames.append(frame)
    return frames


def read(path: Path) -> tuple[list[Any], list[int]]:
    frames, durations = [], []
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
            durations.append(image.info["duration"])
    return frames, durations


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_loop_shows_what_was_drawn(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"loop.{kind}"
    frames = moving(5)
    write_animation(path, frames, every=2)
    found, durations = read(path)
    assert len(found) == 5
    assert durations[-1] == HOLD_MS
    assert durations[0] == 200
    for a, b in zip(found, frames, strict=True):
        assert np.abs(a - b).mean() < 4
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_loop_too_large_loses_frames_but_not_its_end(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(16)]
    frames.append(np.full((32, 32, 3), 7, np.uint8))
    path = tmp_path / f"loop.{kind}"
    write_animation(path, frames, most_bytes=5_000)
    assert path.stat().st_size <= 5_000
    found, durations = read(path)
    assert 1 < len(found) < 17
    assert durations[0] in (200, 400, 800, 1600)
    assert np.abs(found[-1] - 7).mean() < 40


def test_what_cannot_be_made_small_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(4)]
    with pytest.raises(ValueError, match="at most 500 bytes, two frames are"):
        write_animation(tmp_path / "a.gif", frames, most_bytes=500)
    assert list(tmp_path.iterdir()) == []

"""Films are H.264 that decodes to what was drawn, whole or absent, never over one another."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from envs.rendering.frames import video_frame
from harness.config.protocol import Protocol
from harness.evaluation.rollout import evaluate_block
from harness.media.recorder import Recorder, Step, episode_frames, held
from harness.media.video import free_path, write_video


class Centre:
    def predict_action(self, obs: Any, generators: Any) -> Any:
        return obs["state"][:, :, :2] * 0 + 256.0


def test_an_episode_becomes_a_film(tmp_path: Path) -> None:
    recorder = Recorder([300_001])
    evaluate_block(Centre(), [300_000, 300_001], Protocol(max_episode_steps=8), video=recorder)
    steps = recorder.steps[300_001]
    assert len(steps) == 9
    path = tmp_path / "film.mp4"
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
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_the_action_is_marked(tmp_path: Path) -> None:
    state = np.array([100.0, 100.0, 300.0, 300.0, 0.5])
    with_action, without = (
        next(episode_frames([Step(state, action, 0.0)], size=256))
        for action in (np.array([256.0, 100.0]), None)
    )
    changed = np.argwhere((with_action != without).any(-1))
    assert np.abs(changed.mean(0) - (50, 128)).max() < 2


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((31, 32, 3), np.uint8)], "even sizes, given uint8 \\(31, 32, 3\\)"),
        ([np.zeros((32, 32, 3))], "given float64"),
        ([np.zeros((32, 32), np.uint8)], "given uint8"),
        ([np.zeros((32, 32, 3), np.uint8), np.zeros((34, 32, 3), np.uint8)], "one size"),
    ],
)
def test_frames_that_make_no_film(tmp_path: Path, frames: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "film.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "seed1-best.mp4"
    assert free_path(path) == path
    path.touch()
    (tmp_path / "seed1-best-2.mp4").touch()
    assert free_path(path).name == "seed1-best-3.mp4"

"""Loops play what was drawn, at its pace, in no more bytes than asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.media.video import HOLD_MS, best_kind, write_animation


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
    count = write_animation(path, frames, every=2)
    assert path.stat().st_size == count
    found, durations = read(path)
    assert len(found) == 5
    assert durations[-1] == HOLD_MS
    assert durations[0] == 200
    for a, b in zip(found, frames, strict=True):
        assert np.abs(a - b).mean() < 4
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert best_kind() == "webp"


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_loop_too_large_loses_frames_but_not_its_end(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(16)]
    frames.append(np.full((64, 64, 3), 7, np.uint8))
    path = tmp_path / f"loop.{kind}"
    assert write_animation(path, frames, most_bytes=20_000) <= 20_000
    found, durations = read(path)
    assert 1 < len(found) < 17
    assert durations[0] in (200, 400, 800, 1600)
    assert np.abs(found[-1] - 7).mean() < 40


@pytest.mark.parametrize(
    ("frames", "name", "message"),
    [
        ([], "a.gif", "at least one frame"),
        (moving(2), "a.png", "a .gif or a .webp file, given a.png"),
        ([*moving(1), *moving(1, 32)], "a.gif", "have one size"),
    ],
)
def test_what_is_no_loop(tmp_path: Path, frames: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_animation(tmp_path / name, frames)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_small_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(4)]
    with pytest.raises(ValueError, match="at most 500 bytes, two frames are"):
        write_animation(tmp_path / "a.gif", frames, most_bytes=500)
    assert list(tmp_path.iterdir()) == []

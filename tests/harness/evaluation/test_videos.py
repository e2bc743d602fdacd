"""Films are of the very episodes of the table: same seeds, same bits."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from harness.config.protocol import Protocol
from harness.core.errors import UserError
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import open_pool
from harness.evaluation.videos import GIF_SIZE, Videos, choose_episodes, record
from harness.media.legend import TITLED_STRIP, with_strip, with_title
from harness.media.overlay import describe
from harness.media.recorder import SIZE, Step
from harness.storage import table_schemas

STEPS = Protocol(max_episode_steps=6)


def decoded(path: Path) -> list[Any]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


@pytest.mark.parametrize(("overlay", "size"), [(None, 256), ("energy", None)])
def test_a_video_ends_as_its_row_says(
    tiny_results: Path, tmp_path: Path, overlay: str | None, size: int | None
) -> None:
    trial = next(path for path in sorted((tiny_results / "tiny" / "trials").iterdir()))
    source = Source(checkpoint=trial / "checkpoints" / "best")
    with open_pool(STEPS, 1) as pool:
        ((_, outcome),) = pool.run([Task(source, tuple(range(300_000, 300_003)))])
        rows = table_schemas.table("episodes", outcome.rows)
        videos = Videos(1, overlay, gif=True, size=size)
        files = list(record(videos, source, rows, tmp_path, pool))
        if overlay is None:  # a second time they are replaced
            assert list(record(videos, source, rows, tmp_path, pool)) == files
    assert sorted(files) == sorted(tmp_path.glob("seed*"))
    labels = choose_episodes(rows, 1)
    assert {path.name.split(".")[0] for path in files} == {
        f"seed{seed}-{label}" for seed, label in labels.items()
    }
    assert len(files) == 2 * len(labels)
    for row in rows.to_pylist():
        if row["env_seed"] not in labels:
            continue
        stem = tmp_path / f"seed{row['env_seed']}-{labels[row['env_seed']]}"
        frames = decoded(stem.with_suffix(".mp4"))
        assert len(frames) == row["length"] + 1 + 10
        with Image.open(stem.with_suffix(".gif")) as image:
            assert image.size[0] == (GIF_SIZE if overlay is None else SIZE)
            assert image.n_frames == row["length"] + 1
        # The strip under the board tells the coverage: it is drawn anew from the row.
        past = [Step(np.zeros(5), None, row["max_coverage"])] * row["length"]
        past.append(Step(np.zeros(5), None, row["final_coverage"]))
        title, side = f"seed {row['env_seed']}, {labels[row['env_seed']]}", size or SIZE
        board = np.zeros((side, side, 3), np.uint8)
        if overlay is None:
            assert frames[-1].shape == (side + TITLED_STRIP, side, 3)
            expected = with_title(board, past, title)
        else:
            expected = with_strip(board, past, describe(source.load(), title))
        assert np.abs(frames[-1][side:] - expected[side:].astype(int)).mean() < 4


def test_wrong_video_options() -> None:
    for videos, message in (
        (Videos(4), "--video takes 0 to 3 episodes, given 4"),
        (Videos(1, "depth"), "--overlay takes energy, given 'depth'"),
        (Videos(0, "energy"), "--overlay needs videos: --video N"),
        (Videos(0, gif=True), "--gif needs videos"),
        (Videos(0, size=256), "--video-size needs videos"),
        (Videos(1, size=94), "an even number of px from 96 to 1080, given 94"),
        (Videos(1, size=257), "given 257"),
    ):
        with pytest.raises(UserError, match=message):
            videos.check(3)
    Videos(3, "energy", gif=True).check(3)

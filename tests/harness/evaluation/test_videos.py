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
from harness.media.legend import with_strip
from harness.media.overlay import describe
from harness.media.recorder import SIZE, Step
from harness.storage import table_schemas

STEPS = Protocol(max_episode_steps=12)


def decoded(path: Path) -> list[Any]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


@pytest.mark.parametrize("overlay", [None, "energy"])
def test_a_video_ends_as_its_row_says(tiny_results: Path, tmp_path: Path, overlay: Any) -> None:
    trial = next(path for path in sorted((tiny_results / "tiny" / "trials").iterdir()))
    source = Source(checkpoint=trial / "checkpoints" / "best")
    with open_pool(STEPS, 1) as pool:
        ((_, outcome),) = pool.run([Task(source, tuple(range(300_000, 300_004)))])
        rows = table_schemas.table("episodes", outcome.rows)
        videos = Videos(1, overlay, gif=True)
        files = list(record(videos, source, rows, tmp_path, pool))
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
        if overlay is None:
            assert frames[-1].shape == (SIZE, SIZE, 3)
            continue
        # The strip under the board tells the coverage: it is drawn anew from the row.
        past = [Step(np.zeros(5), None, row["max_coverage"])] * row["length"]
        past.append(Step(np.zeros(5), None, row["final_coverage"]))
        title = f"seed {row['env_seed']}, {labels[row['env_seed']]}"
        board = np.zeros((SIZE, SIZE, 3), np.uint8)
        expected = with_strip(board, past, describe(source.load(), title))[SIZE:].astype(int)
        assert np.abs(frames[-1][SIZE:] - expected).mean() < 4


def test_wrong_video_options() -> None:
    for videos, message in (
        (Videos(4), "--video takes 0 to 3 episodes, given 4"),
        (Videos(1, "depth"), "--overlay takes energy, given 'depth'"),
        (Videos(0, "energy"), "--overlay needs videos: --video N"),
        (Videos(0, gif=True), "--gif needs videos"),
    ):
        with pytest.raises(UserError, match=message):
            videos.check(3)
    Videos(3, "energy", gif=True).check(3)

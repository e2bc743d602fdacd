"""Videos of an evaluation's episodes, which are rolled out again and recorded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from harness.config.protocol import blocks
from harness.core.errors import UserError
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import Pool
from harness.media import overlay as media_overlay
from harness.media.legend import with_title
from harness.media.recorder import SIZE, Frame, Step, episode_frames, held
from harness.media.video import write_animation, write_video

MAX_VIDEOS = 1000
GIF_SIZE = 192  # of a plain one at most: smaller, a legend could not be read
LEAST_SIZE, MOST_SIZE = 96, 1080  # px
GIF_FRAMES = 75  # at most


@dataclass(frozen=True)
class Videos:
    """Which videos to make: of the first `count` seeds, and of the best, median and worst one.

    overlay: "energy" draws the policy's energies and candidates. gif: a GIF beside each video.
    size: the side of the board in px, None for SIZE.
    """

    count: int = 0
    overlay: str | None = None
    gif: bool = False
    size: int | None = None

    def check(self, seeds: int) -> None:
        """UserError for options that so many seeds do not allow."""
        most = min(MAX_VIDEOS, seeds)
        if not 0 <= self.count <= most:
            raise UserError(f"--video takes 0 to {most} episodes, given {self.count}")
        if self.overlay not in (None, "energy"):
            raise UserError(f"--overlay takes energy, given {self.overlay[:60]!r}")
        given = {"--overlay": self.overlay, "--gif": self.gif, "--video-size": self.size}
        options = [option for option, value in given.items() if value]
        if self.count == 0 and options:
            raise UserError(f"{options[0]} needs videos: --video N, N at least 1")
        if self.size is not None and (self.size % 2 or not LEAST_SIZE <= self.size <= MOST_SIZE):
            rule = f"--video-size takes an even number of px from {LEAST_SIZE} to {MOST_SIZE}"
            raise UserError(f"{rule}, given {self.size}")


def record(
    videos: Videos, source: Source, episodes: pa.Table, folder: Path, pool: Pool
) -> Iterator[Path]:
    """Roll the blocks of the chosen episodes out again, and yield each file when it is written.

    episodes: one row for each seed of the evaluation. A failed episode has no video. A video of an
    earlier run with the same seed and label is replaced.
    """
    size = videos.size or SIZE
    labels = choose_episodes(episodes, videos.count) if videos.count else {}
    every = blocks(episodes["env_seed"].to_pylist(), pool.protocol.block_size)
    tasks = [Task(source, block) for block in every if not labels.keys().isdisjoint(block)]
    steps: dict[int, list[Step]] = {}
    for _, outcome in pool.run(tasks, labels):
        steps.update(outcome.steps)
    policy = source.load() if videos.overlay and labels else None
    for seed, label in labels.items():
        if not steps.get(seed):
            continue
        path = folder / f"seed{seed}-{label}.mp4"
        title = f"seed {seed}, {label}"
        write_video(path, held(_frames(policy, seed, steps[seed], title, size)))
        yield path
        if videos.gif:
            apart = max(1, -(-len(steps[seed]) // GIF_FRAMES))
            side = min(size, GIF_SIZE) if policy is None else size
            shown = list(_frames(policy, seed, steps[seed], title, side, apart))
            loop = path.with_suffix(".gif")
            write_animation(loop, shown, every=apart)
            yield loop


def _frames(
    policy: object, seed: int, steps: list[Step], title: str, size: int, every: int = 1
) -> Iterator[Frame]:
    """Return each `every`-th frame of an episode and its last; with a policy, its overlay too."""
    if policy is not None:
        return media_overlay.frames(policy, seed, steps, title, size, every)
    chosen = [at for at in range(len(steps)) if at % every == 0 or at == len(steps) - 1]
    boards = episode_frames([steps[at] for at in chosen], size)
    return (
        with_title(board, steps[: at + 1], title) for at, board in zip(chosen, boards, strict=True)
    )


def choose_episodes(episodes: pa.Table, count: int) -> dict[int, str]:
    """Return the first `count` seeds, and the best, median and worst one, with their labels."""
    seeds, scores = episodes["env_seed"].to_pylist(), episodes["score"].to_pylist()
    chosen = dict.fromkeys(seeds[:count], "first")
    ranked = sorted((s, -seed) for seed, s in zip(seeds, scores, strict=True) if s is not None)
    for label, at in (("worst", 0), ("median", len(ranked) // 2), ("best", len(ranked) - 1)):
        if ranked:
            chosen[-ranked[at][1]] = label
    return chosen

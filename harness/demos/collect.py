"""Demonstrations by the planner of envs.expert, in parallel on Ray actors, into a zarr store.

An episode depends on its seed alone. Every finished episode is saved in a folder beside the store,
and the store takes the first solved seeds in order: the result is the same for any number of
workers and of interruptions.
"""

import argparse
import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import envs
from envs.dataset import recording
from envs.expert import demonstrator
from envs.expert.demonstrator import Episode
from envs.seeds import EVALUATED, PLANNED, is_reserved
from harness.cluster.ray_session import ray_session
from harness.cluster.resources import available_cpus
from harness.core import errors, files
from harness.core.errors import UserError

Job = TypeVar("Job")


def command(given: argparse.Namespace) -> int:
    """Run `python -m harness.demos collect`."""
    if given.results is not None:
        raise UserError("--results needs --from-failures")
    first_seed = PLANNED.start if given.seed_start is None else given.seed_start
    collect(given.out, given.episodes, given.workers, first_seed)
    return errors.OK


def collect(
    out: Path,
    episodes: int,
    workers: int | None = None,
    first_seed: int = PLANNED.start,
    progress: bool = True,
) -> None:
    """Write `episodes` solved demonstrations, from `first_seed` upwards, to a new store.

    Unsolved starts (coverage never above 0.95) and reserved seeds are skipped. `workers` processes
    plan in parallel (None: one per core); a single one works without Ray. The same call resumes an
    interrupted collection. UserError for numbers out of range, a store that exists and a folder
    that cannot be written to.
    """
    workers = available_cpus() if workers is None else workers
    _check(out, episodes, workers, first_seed)
    console = Console(stderr=True, quiet=not progress)
    collection = _Collection(out.with_name(f"{out.name}.partial"), first_seed, episodes)
    if collection.solved:
        console.print(f"resuming after {collection.solved} solved episodes")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not progress) as bar:
        task = bar.add_task("episodes", total=episodes, completed=collection.solved)
        for seed, episode in plan(collection.next_seed, demonstrator.plan_episode, workers):
            collection.save(seed, episode)
            bar.update(task, completed=min(collection.solved, episodes))
    chosen = collection.result()
    rows = [{"state": episode.states, "action": episode.actions} for episode in chosen.values()]
    recording.write(out, rows, list(chosen))
    shutil.rmtree(collection.folder)
    tried = sum(not is_reserved(seed) for seed in range(first_seed, max(chosen) + 1))
    steps = sum(len(row["action"]) for row in rows)
    console.print(f"{out}: {episodes} episodes, {steps} steps; {tried - episodes} starts unsolved")


class _Collection:
    """The finished episodes, one file each in `folder`, and the seed to plan next."""

    def __init__(self, folder: Path, first_seed: int, episodes: int) -> None:
        self.folder, self._first, self._wanted = folder, first_seed, episodes
        self._finished: dict[int, Episode] = {}
        self._started: set[int] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            version, code = folder / "made-by.json", code_hash()
            if version.exists() and files.read_json(version) != code:
                shutil.rmtree(folder)  # another planner made these episodes
                folder.mkdir()
            files.write_json(code, version)
            files.remove_temporaries(folder)
        except OSError as error:
            raise UserError(f"the store's folder must be writable: {error}") from error
        for path in sorted(folder.glob("seed-*.npz")):
            if (episode := read_episode(path)) is not None:
                self._finished[int(path.stem.removeprefix("seed-"))] = episode

    @property
    def solved(self) -> int:
        """The number of solved starts from the first seed on."""
        return sum(e.success for seed, e in self._finished.items() if seed >= self._first)

    def next_seed(self) -> int | None:
        """Return the next seed to plan, or None if those under way may be enough."""
        wanted, seed = self._wanted, self._first
        while wanted > 0:
            if seed in EVALUATED:
                raise UserError(
                    f"{self._wanted} starts must lie below {EVALUATED.start}, where the seeds of "
                    f"evaluations begin; given the first, {self._first}"
                )
            if not is_reserved(seed):
                episode = self._finished.get(seed)
                if episode is None and seed not in self._started:
                    self._started.add(seed)
                    return seed
                wanted -= episode is None or episode.success
            seed += 1
        return None

    def save(self, seed: int, episode: Episode) -> None:
        """Write a finished episode to the disk."""
        save_episode(self.folder / f"seed-{seed}.npz", episode)
        self._finished[seed] = episode

    def result(self) -> dict[int, Episode]:
        """Return the first solved seeds, in order, with their episodes."""
        solved = sorted(s for s, e in self._finished.items() if e.success and s >= self._first)
        return {seed: self._finished[seed] for seed in solved[: self._wanted]}


def plan(
    next_job: Callable[[], Job | None], demonstrate: Callable[[Job], Episode], workers: int
) -> Iterator[tuple[Job, Episode]]:
    """Yield jobs with their episodes as they finish, made in this process or by Ray's."""
    if workers == 1:
        while (job := next_job()) is not None:
            yield job, demonstrate(job)
        return
    with ray_session(cpus=workers, gpus=0):
        import ray  # only now: Ray reads the session's environment when it is imported

        # Where a process dies, another one makes the same episode.
        remote: Any = ray.remote(num_cpus=1, max_retries=3)(demonstrate)
        running: dict[Any, Job] = {}
        while True:
            while len(running) < workers and (job := next_job()) is not None:
                running[remote.remote(job)] = job
            if not running:
                return
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), ray.get(done)


def save_episode(path: Path, episode: Episode) -> None:
    """Write a finished episode to the disk."""
    with files.atomic(path) as file:
        np.savez(file, **vars(episode))


def read_episode(path: Path) -> Episode | None:
    """Return a saved episode, or None for a damaged file, which is renamed."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            numbers = float(saved["max_coverage"]), bool(saved["success"])
            return Episode(saved["states"], saved["actions"], *numbers)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        files.quarantine(path)
        return None


def _check(out: Path, episodes: int, workers: int, first_seed: int) -> None:
    if episodes < 1:
        raise UserError(f"--episodes must be at least 1, given {episodes}")
    if workers < 1:
        raise UserError(f"--workers must be at least 1, given {workers}")
    if not 0 <= first_seed < 2**31:
        raise UserError(f"the first seed must lie between 0 and 2**31 - 1, given {first_seed}")
    if is_reserved(first_seed):
        raise UserError(
            "the first seed must not be one of the demonstrations' (0-205), the paper's "
            f"(100000-100049) or the evaluations' (from 200000 on), given {first_seed}"
        )
    if out.exists():
        raise UserError(f"--out must be a new store, {out} exists")


def code_hash() -> str:
    """Return a hash of the code that an episode depends on."""
    root = Path(envs.__file__).parent
    sources = sorted([*root.glob("physics/*.py"), *root.glob("expert/*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()

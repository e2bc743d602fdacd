"""Demonstrations made by envs.expert, in parallel on Ray actors, resumable, into a zarr store.

An episode depends on its seed alone, every finished one is kept at once in a folder beside the
store, and the store takes the first successful seeds in order: so any number of workers, and any
number of interruptions, give the same store.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import envs
from envs.dataset import recording
from envs.expert.demonstrator import Episode, plan_episode
from envs.seeds import EVALUATED, PLANNED, is_reserved
from harness.core import files
from harness.core.errors import UserError

FIRST_SEED = PLANNED.start
_SOURCES = ("dynamics", "geometry", "strokes", "routes", "plan", "turning", "planner", "expert")


def collect(
    out: Path,
    episodes: int,
    workers: int | None = None,
    first_seed: int = FIRST_SEED,
    progress: bool = True,
) -> None:
    """Write `episodes` successful demonstrations, from `first_seed` upwards, to a new store.

    Starts that are not solved (coverage never above 0.95) are left out, reserved seeds skipped.
    `workers` processes share the work (None: as many as the machine has cores); one works without
    Ray. Run again after an interruption, it goes on where it was. UserError for a bad number, a
    store that exists and a folder that cannot be written to.
    """
    if workers is None:
        from harness.cluster.resources import available_cpus

        workers = available_cpus()
    _check(out, episodes, workers, first_seed)
    console = Console(stderr=True, quiet=not progress)
    collection = _Collection(out.with_name(f"{out.name}.partial"), first_seed, episodes)
    if collection.tried and progress:
        console.print(f"going on after {collection.solved} finished episodes")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not progress) as bar:
        task = bar.add_task("episodes", total=episodes, completed=collection.solved)
        for seed, episode in _carry_out(collection.next_seed, workers):
            collection.keep(seed, episode)
            bar.update(task, completed=min(collection.solved, episodes))
    seeds, chosen = collection.result()
    rows = [{"state": episode.states, "action": episode.actions} for episode in chosen]
    recording.write(out, rows, seeds)
    collection.remove()
    tried = [seed for seed in range(first_seed, seeds[-1] + 1) if not is_reserved(seed)]
    failed = len(tried) - episodes
    steps = sum(len(episode.actions) for episode in chosen)
    console.print(f"{out}: {episodes} episodes, {steps} steps; {failed} starts were not solved")


class _Collection:
    """The episodes finished so far, each in a file of its own, and which seed comes next."""

    def __init__(self, folder: Path, first_seed: int, episodes: int) -> None:
        self._folder, self._first, self._wanted = folder, first_seed, episodes
        self._known: dict[int, Episode] = {}
        self._given: set[int] = set()
        made_by = hashlib.sha256(b"".join(_source(name) for name in _SOURCES)).hexdigest()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            about = folder / "made-by.json"
            if about.exists() and files.read_json(about) != made_by:
                shutil.rmtree(folder)  # another version's episodes are not this one's
                folder.mkdir()
            files.write_json(made_by, about)
            files.remove_temporaries(folder)
        except OSError as error:
            raise UserError(f"the store's folder must be writable: {error}") from error
        for path in sorted(folder.glob("seed-*.npz")):
            episode = _read_episode(path)
            if episode is not None:
                self._known[int(path.stem.removeprefix("seed-"))] = episode

    @property
    def tried(self) -> int:
        """How many starts are finished, solved or not."""
        return len(self._known)

    @property
    def solved(self) -> int:
        """How many starts from the first seed on are solved."""
        return sum(e.success for seed, e in self._known.items() if seed >= self._first)

    def next_seed(self) -> int | None:
        """Return the next seed to plan, or None while no further one may be needed."""
        wanted, seed = self._wanted, self._first
        while wanted > 0:
            if seed in EVALUATED:
                raise UserError(
                    f"{self._wanted} starts must lie below {EVALUATED.start}, from which on "
                    f"policies are evaluated; given the first, {self._first}"
                )
            if not is_reserved(seed):
                known = self._known.get(seed)
                if known is None and seed not in self._given:
                    self._given.add(seed)
                    return seed
                wanted -= known is None or known.success
            seed += 1
        return None

    def keep(self, seed: int, episode: Episode) -> None:
        """Keep a finished episode, on the disk before anything else."""
        with files.atomic(self._folder / f"seed-{seed}.npz") as file:
            np.savez(
                file,
                states=episode.states,
                actions=episode.actions,
                max_coverage=episode.max_coverage,
                success=episode.success,
            )
        self._known[seed] = episode

    def result(self) -> tuple[list[int], list[Episode]]:
        """Return the first wanted solved seeds and their episodes, in the order of the seeds."""
        solved = sorted(s for s, e in self._known.items() if e.success and s >= self._first)
        seeds = solved[: self._wanted]
        assert len(seeds) == self._wanted
        return seeds, [self._known[seed] for seed in seeds]

    def remove(self) -> None:
        """Remove the files: the store has them now."""
        shutil.rmtree(self._folder)


def _carry_out(next_seed: Callable[[], int | None], workers: int) -> Iterator[tuple[int, Episode]]:
    """Yield seeds and their episodes as they are finished, from this process or from actors."""
    if workers == 1:
        while (seed := next_seed()) is not None:
            yield seed, plan_episode(seed)
        return
    import ray  # a second or more, and not needed for one worker

    from harness.cluster.ray_session import ray_session

    with ray_session(cpus=workers):
        # A planner that dies is started again; an episode is the same whoever plans it.
        actor: Any = ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)(_Planner)
        idle = [actor.remote() for _ in range(workers)]
        busy: dict[Any, tuple[int, Any]] = {}
        while True:
            while idle and (seed := next_seed()) is not None:
                worker = idle.pop()
                busy[worker.plan.remote(seed)] = seed, worker
            if not busy:
                return
            (done, *_), _ = ray.wait(list(busy), num_returns=1)
            seed, worker = busy.pop(done)
            idle.append(worker)
            yield seed, ray.get(done)


class _Planner:
    """What an actor does."""

    def plan(self, seed: int) -> Episode:
        return plan_episode(seed)


def _read_episode(path: Path) -> Episode | None:
    """Return the kept episode, or None for a file that is not whole (it is set aside)."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Episode(
                kept["states"],
                kept["actions"],
                float(kept["max_coverage"]),
                bool(kept["success"]),
            )
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
        raise UserError(f"--out must be a new store, {out} is there already")


def _source(name: str) -> bytes:
    return (Path(envs.__file__).parent / f"{name}.py").read_bytes()

"""Corrections of a policy's failures (targeted DAgger): the planner goes on where a policy failed.

The policy is rolled out on starts that are neither selected nor reported on. Of each episode that
fails, the planner takes over at up to three states that the policy has visited:

- LEAD steps before the last progress, so that the policy sees how not to get stuck there;
- at a random step after it, so that the policy sees how to get out;
- at a random step before both, because what led to the failure may be earlier.

Progress is made where the episode's best coverage grows to within GAIN of its final value. So a
long stall counts as much as the approach, whereas uniformly drawn states would mostly lie in it.

Finished rollouts and corrections are saved in a folder beside the store. The result is the same for
any number of workers and of interruptions.
"""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from envs.dataset import recording
from envs.expert.demonstrator import Episode, continue_episode
from envs.physics.dynamics import World
from harness.cluster.resources import available_cpus
from harness.config.protocol import Protocol, blocks
from harness.core import errors, files, paths
from harness.core.errors import UserError
from harness.core.seeds import CORRECTION_SEEDS
from harness.demos import collect
from harness.demos.correction_marks import Mark, Marks
from harness.evaluation.policy_source import Block, Outcome, Source, Task
from harness.evaluation.pool import open_pool
from harness.media.recorder import Step
from harness.storage import lookup
from harness.storage.lookup import Checkpoint

GAIN = 0.01  # of coverage
LEAD = 10  # steps
VERSION = 1  # of the rule that chooses states; increase it when it changes


class NoFailuresError(UserError):
    """The policy succeeds on all starts."""


class Takeover(NamedTuple):
    """A visited state (5,) and the agent's velocity (2,), in float32, at a step of an episode."""

    seed: int
    step: int
    state: tuple[float, ...]
    agent_velocity: tuple[float, float]


def command(given: argparse.Namespace) -> int:
    """Run `python -m harness.demos collect --from-failures`."""
    first_seed = CORRECTION_SEEDS.start if given.seed_start is None else given.seed_start
    results = paths.RESULTS if given.results is None else given.results
    options = Options(
        given.from_failures, given.out, given.episodes, given.workers, first_seed, results
    )
    collect_corrections(options, Console(stderr=True))
    return errors.OK


@dataclass(frozen=True)
class Options:
    """The options of `python -m harness.demos collect --from-failures`.

    policy: a sweep (its best trial), a trial or a checkpoint's folder. episodes: on how many starts
    the policy is tried, from `first_seed` on.
    """

    policy: str
    out: Path
    episodes: int = 200
    workers: int | None = None
    first_seed: int = CORRECTION_SEEDS.start
    results: Path = paths.RESULTS

    def check(self) -> range:
        """Return the starts; UserError for numbers out of range and an existing store."""
        starts = range(self.first_seed, self.first_seed + self.episodes)
        if self.episodes < 1:
            raise UserError(f"--episodes must be at least 1, given {self.episodes}")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1, given {self.workers}")
        if starts[0] not in CORRECTION_SEEDS or starts[-1] not in CORRECTION_SEEDS:
            raise UserError(
                f"the starts of corrections must lie in {CORRECTION_SEEDS.start} to "
                f"{CORRECTION_SEEDS[-1]}, given {starts[0]} to {starts[-1]}"
            )
        if self.out.exists():
            raise UserError(f"--out must be a new store, {self.out} exists")
        return starts


def collect_corrections(options: Options, console: Console) -> None:
    """Write the solved corrections of a policy's failures to a new store.

    `workers` processes work in parallel (None: one per core); a single one works without Ray. The
    same call resumes an interrupted one. UserError for wrong input, for a policy without failures,
    and where the planner solves none.
    """
    starts = options.check()
    found = _checkpoint(options)
    policy = f"checkpoint {found.path}"
    if found.trial_dir is not None:
        policy = f"trial {found.trial_dir.name} of {found.sweep}, step {found.step}"
    console.print(f"corrections of {policy}", soft_wrap=True, markup=False, highlight=False)
    source = Source(checkpoint=found.path.resolve())
    source.load()  # a damaged checkpoint is refused before anything starts
    workers = available_cpus() if options.workers is None else options.workers
    protocol = Protocol()
    made_by = [VERSION, collect.code_hash(), found.policy_hash, found.config_hash, protocol.hash]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with (
        _partial(options.out, made_by) as folder,
        Progress(*columns, TimeRemainingColumn(), console=console, disable=console.quiet) as bar,
    ):
        failures = _roll(folder, source, starts, protocol, workers, bar)
        if not failures:
            raise NoFailuresError(
                f"corrections need a policy that fails, and {policy} succeeds on all "
                f"{len(starts)} starts from {starts[0]}"
            )
        takeovers = [takeover for episode in failures.values() for takeover in episode]
        episodes = _correct(folder, takeovers, workers, bar)
        solved = [(t, e) for t, e in zip(takeovers, episodes, strict=True) if e.success]
        if not solved:
            raise UserError(
                f"the planner must solve a correction, and it solves none of {len(takeovers)}"
            )
        marks = Marks(
            policy=policy,
            policy_hash=found.policy_hash,
            starts=(starts[0], len(starts)),
            failures=len(failures),
            episodes=tuple(Mark(t.seed, t.step, t.agent_velocity) for t, _ in solved),
        )
        rows = [{"state": e.states, "action": e.actions} for _, e in solved]
        seeds = [takeover.seed for takeover, _ in solved]
        recording.write(options.out, rows, seeds, attributes=marks.attributes())
    steps = sum(len(episode.actions) for _, episode in solved)
    unsolved = len(takeovers) - len(solved)
    for line in (
        f"{options.out}: {len(solved)} corrections, {steps} steps, of {len(failures)} failures on "
        f"{len(starts)} starts; {unsolved} corrections unsolved",
        str(marks),
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def takeover_steps(coverage: Sequence[float], seed: int) -> list[int]:
    """Return the steps of a failed episode where the planner takes over, see above.

    coverage: that of every state, the last included. The random steps depend on the seed alone.
    """
    best = np.maximum.accumulate(coverage)
    stall = int(np.argmax(best >= best[-1] - GAIN))
    before = max(stall - LEAD, 0)
    random = np.random.default_rng(seed)
    steps = {before, int(random.integers(stall, len(best)))}
    if before > 0:
        steps.add(int(random.integers(before)))
    return sorted(steps)


def demonstrate(takeover: Takeover) -> Episode:
    """Return the planner's continuation."""
    return continue_episode(takeover.state, takeover.agent_velocity)


def takeovers_of(seed: int, steps: Sequence[Step]) -> list[Takeover]:
    """Return the takeovers of a failed episode, whose actions are stepped again from its reset."""
    chosen = takeover_steps([step.coverage for step in steps], seed)
    world = World()
    world.reset(seed)
    found = []
    for number, step in enumerate(steps):
        if number in chosen:
            # As they are stored, so that the stored correction replays exactly.
            state = tuple(world.state.astype(np.float32).tolist())
            x, y = world.agent_velocity.astype(np.float32).tolist()
            found.append(Takeover(seed, number, state, (x, y)))
        if step.action is not None:
            world.step(step.action)
    return found


def _checkpoint(options: Options) -> Checkpoint:
    """Return the checkpoint that --from-failures names."""
    results = options.results.expanduser().absolute()
    sweeps = {folder.name for folder in lookup.sweeps(results)}
    try:
        if options.policy in sweeps:
            return lookup.resolve("best", results, options.policy)
        return lookup.resolve(options.policy, results)
    except UserError as error:
        raise UserError(f"--from-failures {options.policy}: {error}") from error


@contextmanager
def _partial(out: Path, made_by: list[Any]) -> Iterator[Path]:
    """Hold the folder of unfinished work, which is removed once the store is there."""
    folder = out.with_name(f"{out.name}.partial")
    lock = out.with_name(f".{folder.name}.lock")
    with ExitStack() as stack:
        try:
            if not stack.enter_context(files.lock(lock)):
                raise UserError(f"one process at a time collects to {out}, another does")
            if out.exists():
                raise UserError(f"--out must be a new store, {out} exists")
            version = folder / "made-by.json"
            if folder.exists() and files.read_json_or(version) != made_by:
                shutil.rmtree(folder)  # of another policy, planner or rule
            files.write_json(made_by, version)
            files.remove_temporaries(folder)
        except OSError as error:
            raise UserError(f"the store's folder must be writable: {error}") from error
        yield folder
        shutil.rmtree(folder)
        lock.unlink()


def _roll(
    folder: Path,
    source: Source,
    starts: range,
    protocol: Protocol,
    workers: int,
    bar: Progress,
) -> dict[int, list[Takeover]]:
    """Return the takeovers of the failed starts, in order; finished blocks are read from files."""
    every = blocks(starts, protocol.block_size)
    failures: dict[int, list[Takeover]] = {}
    left = []
    for block in every:
        saved = files.read_json_or(_block_file(folder, block))
        if saved is None:
            left.append(Task(source, block))
        else:
            failures |= {int(seed): _takeovers(found) for seed, found in saved.items()}
    done = len(starts) - sum(len(task.block) for task in left)
    task = bar.add_task("starts", total=len(starts), completed=done)
    if left:
        with open_pool(protocol, min(workers, len(left)), bar.refresh) as pool:
            for (_, block, _), outcome in pool.run(left, starts):
                found = _failures(outcome)
                files.write_json(found, _block_file(folder, block))
                failures |= found
                bar.advance(task, len(block))
    return {seed: failures[seed] for seed in sorted(failures)}


def _takeovers(saved: list[Any]) -> list[Takeover]:
    return [Takeover(seed, step, tuple(state), tuple(v)) for seed, step, state, v in saved]


def _block_file(folder: Path, block: Block) -> Path:
    return folder / f"starts-{block[0]}-{block[-1]}.json"


def _failures(outcome: Outcome) -> dict[int, list[Takeover]]:
    errors = [row for row in outcome.rows if row["error"] is not None]
    if errors:
        raise UserError(
            f"the policy must act on every start, on seed {errors[0]['env_seed']} it ended with: "
            f"{errors[0]['error']}"
        )
    failed = [row["env_seed"] for row in outcome.rows if not row["success"]]
    return {seed: takeovers_of(seed, outcome.steps[seed]) for seed in failed}


def _correct(folder: Path, takeovers: list[Takeover], workers: int, bar: Progress) -> list[Episode]:
    """Return the planner's episodes, in the order of the takeovers; finished ones are read."""
    file = {t: folder / f"seed-{t.seed}-step-{t.step}.npz" for t in takeovers}
    episodes = {
        takeover: episode
        for takeover, path in file.items()
        if path.exists() and (episode := collect.read_episode(path)) is not None
    }
    task = bar.add_task("corrections", total=len(takeovers), completed=len(episodes))
    left = iter([takeover for takeover in takeovers if takeover not in episodes])
    missing = len(takeovers) - len(episodes)
    if missing:
        planned = collect.plan(lambda: next(left, None), demonstrate, min(workers, missing))
        for takeover, episode in planned:
            collect.save_episode(file[takeover], episode)
            episodes[takeover] = episode
            bar.advance(task)
    return [episodes[takeover] for takeover in takeovers]

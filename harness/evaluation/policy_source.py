"""Where a policy is loaded from, and how one process rolls it out on a block of seeds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.config.protocol import Protocol
from harness.core.text import one_line
from harness.evaluation import factories, rollout
from harness.evaluation.rollout import Predicts
from harness.media.recorder import Recorder, Steps
from ibc.policies.factory import load_policy

Block = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where a policy is loaded from: a checkpoint, or a factory seen from `folder`.

    factory: as --policy takes it; arguments: its names and values, as --policy-arg takes them. This
    is sent to the workers; each loads the policy once.
    """

    checkpoint: Path | None = None
    factory: str | None = None
    folder: Path | None = None
    arguments: factories.Arguments = ()

    def load(self) -> Predicts:
        """Return the policy; UserError or ValueError when it is absent or damaged."""
        if self.checkpoint is not None:
            return load_policy(self.checkpoint)
        return factories.load(self.factory or "", self.folder, self.arguments)


class Task(NamedTuple):
    """A policy and a block of environment seeds for its rollouts, the first or a repeated one."""

    source: Source
    block: Block
    repeat: int = 0


@dataclass(frozen=True)
class Outcome:
    """A block's rows, and the steps of the recorded episodes by seed."""

    rows: list[dict[str, Any]]
    steps: dict[int, Steps]


def roll(
    policy: Predicts, seeds: Sequence[int], protocol: Protocol, record: Iterable[int] = ()
) -> Outcome:
    """Evaluate one block and record the episodes of the seeds in `record`.

    An error outside of the policy becomes the error of all rows, so that other blocks go on.
    """
    recorder = Recorder(set(record) & set(seeds))
    try:
        rows = rollout.evaluate_block(policy, seeds, protocol, video=recorder)
    except Exception as error:
        return failed(seeds, protocol, rollout.error_text(error))
    return Outcome(rows, recorder.steps)


def failed(seeds: Iterable[int], protocol: Protocol, text: str) -> Outcome:
    """Return the rows of a block that failed as a whole."""
    common = {**rollout.rules(protocol), "error": one_line(text)}
    return Outcome([{**common, "env_seed": seed} for seed in seeds], {})


class Worker:
    """Rolls blocks out in this process; keeps the last policy loaded."""

    workers = 1

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.loaded: tuple[Source, Predicts] | None = None

    def run(
        self, tasks: Iterable[Task], record: Iterable[int] = ()
    ) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task with its outcome."""
        for task in tasks:
            yield task, self.roll(task, record)

    def roll(self, task: Task, record: Iterable[int]) -> Outcome:
        """Evaluate a block and record the episodes of the seeds in `record`."""
        if self.loaded is None or self.loaded[0] != task.source:
            self.loaded = None  # free the old policy before loading the new one
            self.loaded = task.source, task.source.load()
        policy = self.loaded[1]
        if task.source.factory is not None:
            start_block(policy, task)
        return roll(policy, task.block, replace(self.protocol, repeat=task.repeat), record)


def start_block(policy: Predicts, task: Task) -> None:
    """Bring a policy of another project to the same state in every process and run.

    Its `reset()`, where it has one, is called; the global generators of torch, numpy and Python are
    seeded from the block's environment seeds, for policies that draw from them.
    """
    factories.seed_everything(task.repeat, *task.block)
    reset = getattr(policy, "reset", None)
    if callable(reset):
        reset()

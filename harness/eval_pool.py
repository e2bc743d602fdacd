"""Blocks of seeds handed to workers: in this process for one, on Ray actors for more."""

import importlib
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch

from harness import evaluate
from harness.errors import UserError, one_line
from harness.evaluate import Predicts, Protocol
from harness.video import Recorder, Steps
from ibc.policy import load_policy

MAX_ATTEMPTS = 3

Block = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where a policy comes from: a checkpoint's folder, or `module:factory` as seen from `folder`.

    It is what travels to the workers; each loads the policy once.
    """

    checkpoint: Path | None = None
    factory: str | None = None
    folder: Path | None = None

    def load(self) -> Predicts:
        """Return the policy; UserError or ValueError when there is none or it is not whole."""
        if self.checkpoint is not None:
            return load_policy(self.checkpoint)
        assert self.factory is not None
        return self._made_by_factory(self.factory)

    def _made_by_factory(self, factory: str) -> Predicts:
        module_name, _, name = factory.partition(":")
        if not module_name or not name.isidentifier():
            raise UserError(f"--policy takes module:factory, given {factory[:120]!r}")
        if self.folder is not None and str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise UserError(f"--policy takes module:factory, and {factory!r}: {error}") from error
        make = getattr(module, name, None)
        if not callable(make):
            raise UserError(f"--policy takes module:factory, and {module_name} has no {name}()")
        policy: Predicts = make()
        if not callable(getattr(policy, "predict_action", None)):
            raise UserError(
                f"--policy must make an object with predict_action(obs, generators), and "
                f"{factory} made a {type(policy).__name__}"
            )
        return policy


class Task(NamedTuple):
    """A policy and the block of seeds that it is to be rolled out from."""

    source: Source
    block: Block


@dataclass(frozen=True)
class Outcome:
    """A block's rows, and the steps of the episodes that were recorded."""

    rows: list[dict[str, Any]]
    steps: dict[int, Steps]


def roll(
    policy: Predicts, seeds: Sequence[int], protocol: Protocol, record: Iterable[int] = ()
) -> Outcome:
    """Evaluate one block and record the episodes of the seeds in `record`.

    A fault outside of the policy becomes every row's error too: other blocks must not be lost.
    """
    recorder = Recorder(set(record) & set(seeds))
    try:
        rows = evaluate.evaluate_block(policy, seeds, protocol, video=recorder)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return _failed(seeds, protocol, text)
    return Outcome(rows, recorder.steps)


def _failed(seeds: Iterable[int], protocol: Protocol, text: str) -> Outcome:
    error = one_line(text)
    common = {"protocol_hash": protocol.hash, "error": error}
    return Outcome([{**common, "env_seed": seed} for seed in seeds], {})


class Pool:
    """Workers that evaluate blocks, of one policy or of many; a context manager.

    One worker is this process, without Ray. Every worker has one thread, so that any number of
    them computes the same bits. `tick` is called about once a second while blocks are under way.
    """

    def __init__(
        self, protocol: Protocol, workers: int, tick: Callable[[], None] = lambda: None
    ) -> None:
        self.protocol, self.workers, self.tick = protocol, workers, tick
        self._stack = ExitStack()
        self._idle: list[Any] = []
        self._here = _Worker(protocol)

    def __enter__(self) -> Self:
        if self.workers == 1:
            self._stack.enter_context(_one_thread())
        else:
            from harness.workers import ray_session

            self._stack.enter_context(ray_session(cpus=self.workers, gpus=0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._idle.clear()
        self._stack.close()

    def run(
        self, tasks: Sequence[Task], record: Iterable[int] = ()
    ) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task with its outcome as it is done; each once, in no particular order."""
        record = frozenset(record)
        if self.workers > 1:
            yield from self._on_ray(tasks, record)
            return
        for task in tasks:
            yield task, self._here.roll(task, record)

    def _on_ray(
        self, tasks: Sequence[Task], record: frozenset[int]
    ) -> Iterator[tuple[Task, Outcome]]:
        import ray
        from ray.exceptions import RayError

        waiting = deque((task, 1) for task in tasks)
        running: dict[Any, tuple[Any, Task, int]] = {}
        while waiting or running:
            while waiting and len(running) < self.workers:
                task, attempt = waiting.popleft()
                actor = self._idle.pop() if self._idle else self._new_actor()
                reference = actor.roll.remote(task, tuple(record.intersection(task.block)))
                running[reference] = actor, task, attempt
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            self.tick()
            for reference in done:
                actor, task, attempt = running.pop(reference)
                try:
                    outcome = ray.get(reference)
                except RayError as error:
                    # The actor is gone with whatever killed it; a fresh one redoes the block.
                    if attempt < MAX_ATTEMPTS:
                        waiting.append((task, attempt + 1))
                        continue
                    text = f"its worker died {attempt} times (out of memory?): {error}"
                    outcome = _failed(task.block, self.protocol, text[:300])
                else:
                    self._idle.append(actor)
                yield task, outcome

    def _new_actor(self) -> Any:
        import ray

        made = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        return made.remote(self.protocol)


class _Worker:
    """Rolls blocks out with the policy it has loaded, and loads another where a task asks so."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._loaded: tuple[Source, Predicts] | None = None

    def roll(self, task: Task, record: Iterable[int]) -> Outcome:
        if self._loaded is None or self._loaded[0] != task.source:
            self._loaded = None  # the old policy goes before the new one comes
            self._loaded = task.source, task.source.load()
        return roll(self._loaded[1], task.block, self.protocol, record)


class _Actor(_Worker):
    """A worker in a process of Ray's."""

    def __init__(self, protocol: Protocol) -> None:
        torch.set_num_threads(1)
        super().__init__(protocol)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

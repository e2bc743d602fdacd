"""Blocks of seeds and who rolls them out: this process, or a crew of Ray actors."""

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch

from harness import evaluate
from harness.errors import UserError, one_line
from harness.evaluate import Predicts, Protocol
from harness.video import Recorder, Steps
from ibc.policy import load_policy

if TYPE_CHECKING:
    from harness.eval_crew import Crew

Block = tuple[int, ...]

_CREW = "harness.eval_crew"  # imports Ray, so it is imported where workers are wanted


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
        return failed(seeds, protocol, text)
    return Outcome(rows, recorder.steps)


def failed(seeds: Iterable[int], protocol: Protocol, text: str) -> Outcome:
    """Return the rows of a block that came to nothing."""
    common = {"protocol_hash": protocol.hash, "error": one_line(text)}
    return Outcome([{**common, "env_seed": seed} for seed in seeds], {})


class Pool:
    """Workers that evaluate blocks, of one policy or of many; a context manager.

    One worker is this process, without Ray. Every worker has one thread, so that any number of
    them computes the same bits. `tick` is called about once a second while blocks are under way.
    With an address, the workers are anywhere in that cluster, all its CPUs where None are asked
    for; UserError when it has fewer.
    """

    def __init__(
        self,
        protocol: Protocol,
        workers: int | None,
        tick: Callable[[], None] = lambda: None,
        *,
        address: str | None = None,
    ) -> None:
        self.protocol, self.tick, self.address = protocol, tick, address
        self.workers = 1 if workers is None else workers
        self._asked = workers
        self._stack = ExitStack()
        self._crew: Crew | None = None
        self._here = Worker(protocol)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.address is None and self.workers == 1:
                stack.enter_context(_one_thread())
            else:
                from harness.workers import ray_session

                cpus = self.workers if self.address is None else None
                stack.enter_context(
                    ray_session(cpus=cpus, gpus=0, address=self.address, running=_CREW)
                )
                # Imports Ray, which reads the session's token and address only then.
                from harness.eval_crew import Crew

                self._crew = Crew(self.protocol, self._asked, self.tick, far=bool(self.address))
                self.workers = self._crew.workers
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._crew = None
        self._stack.close()

    def run(
        self, tasks: Sequence[Task], record: Iterable[int] = ()
    ) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task with its outcome as it is done; each once, in no particular order."""
        record = frozenset(record)
        if self._crew is not None:
            yield from self._crew.run(tasks, record)
            return
        for task in tasks:
            yield task, self._here.roll(task, record)


class Worker:
    """Rolls blocks out with the policy it has loaded, and loads another where a task asks so."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._loaded: tuple[Source, Predicts] | None = None

    def roll(self, task: Task, record: Iterable[int]) -> Outcome:
        """Evaluate a block, and record the episodes of the seeds in `record`."""
        if self._loaded is None or self._loaded[0] != task.source:
            self._loaded = None  # the old policy goes before the new one comes
            self._loaded = task.source, self.load(task.source)
        return roll(self._loaded[1], task.block, self.protocol, record)

    def load(self, source: Source) -> Predicts:
        """Return the policy of a source."""
        return source.load()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""What is evaluated, in blocks of seeds, and how one process rolls a block out."""

import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.config.protocol import Protocol
from harness.core.errors import UserError
from harness.core.text import one_line
from harness.evaluation import rollout
from harness.evaluation.rollout import Predicts
from harness.media.recorder import Recorder, Steps
from ibc.policies.factory import load_policy

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
        rows = rollout.evaluate_block(policy, seeds, protocol, video=recorder)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return failed(seeds, protocol, text)
    return Outcome(rows, recorder.steps)


def failed(seeds: Iterable[int], protocol: Protocol, text: str) -> Outcome:
    """Return the rows of a block that came to nothing."""
    common = {"protocol_hash": protocol.hash, "error": one_line(text)}
    return Outcome([{**common, "env_seed": seed} for seed in seeds], {})


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

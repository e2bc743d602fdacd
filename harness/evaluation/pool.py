"""The workers of an evaluation: this process, or Ray actors on this machine or in a cluster.

Actors that fail are replaced. A block is given only to a worker that has started, so one that
cannot start yet (its node is gone) delays nothing. Ray reads its environment when it is imported,
so it is imported inside functions, after `ray_session` has set that.
"""

import logging
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness.cluster.ray_session import ray_session
from harness.config.protocol import Protocol
from harness.core.errors import UserError
from harness.core.text import one_line
from harness.evaluation.policy_source import Outcome, Source, Task, Worker, failed
from ibc.policies.factory import load_policy

MAX_ATTEMPTS = 3
PATIENCE_SECONDS = 300.0  # to wait for a node
LOOK_SECONDS = 5.0  # between two checks of the cluster


class _Block(NamedTuple):
    actor: Any
    task: Task
    attempt: int
    nodes_lost: int


class RayWorkers:
    """Workers of one CPU each in the connected Ray.

    workers: how many; None takes all CPUs. elsewhere: they may be on other machines. A worker that
    fails costs its block one of MAX_ATTEMPTS, unless its whole node is gone. UserError when workers
    cannot start, when there are fewer CPUs than workers, or when the cluster has had no CPU for
    `patience` seconds.
    """

    def __init__(
        self,
        protocol: Protocol,
        workers: int | None,
        tick: Any,
        *,
        elsewhere: bool = False,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        self.protocol, self.tick, self.patience = protocol, tick, patience
        self.elsewhere = elsewhere
        cpus = math.floor(_cpus())
        if elsewhere and not 1 <= (workers or cpus) <= cpus:
            raise UserError(
                f"--workers must be 1 to the {cpus} CPUs of the cluster, given {workers or cpus}"
            )
        self.workers = workers or cpus
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._sent: dict[Source, Any] = {}
        self._failed_starts = 0
        self._alive_at = self._looked_at = time.monotonic()

    def run(
        self, tasks: Iterable[Task], record: Iterable[int] = ()
    ) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task with its outcome as it is done; each once, in no particular order."""
        import ray
        from ray.exceptions import RayError

        record = set(record)
        waiting = deque((task, 1) for task in tasks)
        running: dict[Any, _Block] = {}
        while waiting or running:
            alive = len(self._idle) + len(self._starting) + len(running)
            for _ in range(min(self.workers, len(waiting) + len(running)) - alive):
                self._start()
            while waiting and self._idle:
                actor, (task, attempt) = self._idle.pop(), waiting.popleft()
                recorded = tuple(record.intersection(task.block))
                reference = actor.roll.remote(task, recorded, self._files(task.source))
                running[reference] = _Block(actor, task, attempt, _nodes_lost())
            ready, _ = ray.wait([*running, *self._starting], num_returns=1, timeout=1.0)
            self.tick()
            self._check_cluster()
            for reference in ready:
                if reference in self._starting:
                    self._admit(reference)
                    continue
                block = running.pop(reference)
                try:
                    outcome = ray.get(reference)
                except RayError as error:
                    # The actor is gone; another one repeats the block.
                    attempt = block.attempt + (_nodes_lost() == block.nodes_lost)
                    if attempt <= MAX_ATTEMPTS:
                        waiting.append((block.task, attempt))
                        continue
                    text = f"its worker died {block.attempt} times (out of memory?): {error}"
                    protocol = replace(self.protocol, repeat=block.task.repeat)
                    outcome = failed(block.task.block, protocol, text[:300])
                else:
                    self._idle.append(block.actor)
                yield block.task, outcome

    def _start(self) -> None:
        import ray

        made = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        # Spread over the nodes, so that the loss of one costs few workers.
        actor: Any = made.options(scheduling_strategy="SPREAD").remote(self.protocol)
        self._starting[actor.ready.remote()] = actor

    def _admit(self, reference: Any) -> None:
        import ray
        from ray.exceptions import RayError

        actor = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts > MAX_ATTEMPTS * self.workers:
                rule = "an evaluation's workers must start (the project is installed on each node)"
                text = f"{self._failed_starts} in a row did not: {one_line(error)[-300:]}"
                raise UserError(f"{rule}, {text}") from error
        else:
            self._failed_starts = 0
            self._idle.append(actor)

    def _check_cluster(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < min(LOOK_SECONDS, self.patience):
            return
        self._looked_at = now
        if _cpus() > 0:
            self._alive_at = now
        elif now - self._alive_at > self.patience:
            raise UserError(
                f"the cluster must have a living CPU, and for {self.patience:.0f} s it had none; "
                "what is done is kept, run the same command again to continue"
            )

    def _files(self, source: Source) -> list[Any]:
        """Return the checkpoint's files for another machine; in a list, Ray sends them lazily."""
        if not self.elsewhere or source.checkpoint is None:
            return []
        import ray

        if source not in self._sent:
            paths = [path for path in source.checkpoint.iterdir() if path.is_file()]
            wanted = [path for path in paths if not path.name.startswith("training_state")]
            self._sent[source] = ray.put({path.name: path.read_bytes() for path in wanted})
        return [self._sent[source]]


Pool = Worker | RayWorkers


@contextmanager
def open_pool(
    protocol: Protocol,
    workers: int | None,
    tick: Callable[[], None] = lambda: None,
    *,
    address: str | None = None,
) -> Iterator[Pool]:
    """Open workers that evaluate blocks, of one policy or of many.

    One worker is this process, without Ray. Every worker has one thread, so that any number of
    them computes the same bits. `tick` is called about once a second while blocks are evaluated.
    address: a Ray cluster, whose CPUs are all used where `workers` is None; UserError when it has
    fewer than `workers`.
    """
    if address is None and workers in (None, 1):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield Worker(protocol)
        finally:
            torch.set_num_threads(threads)
        return
    cpus = None if address else workers
    with ray_session(cpus=cpus, gpus=0, address=address, preload=__name__):
        yield RayWorkers(protocol, workers, tick, elsewhere=address is not None)


class _Actor(Worker):
    """A worker in a process of Ray."""

    def __init__(self, protocol: Protocol) -> None:
        torch.set_num_threads(1)
        super().__init__(protocol)

    def ready(self) -> None:
        """Return when the process has started and imported its modules."""

    def roll(self, task: Task, record: Iterable[int], files: Sequence[Any] = ()) -> Outcome:
        """Evaluate a block; files: those of a checkpoint that this machine does not have."""
        if files and (self.loaded is None or self.loaded[0] != task.source):
            import ray

            self.loaded = None
            with tempfile.TemporaryDirectory(prefix="ibc-harness-checkpoint-") as folder:
                for name, content in ray.get(files[0]).items():
                    (Path(folder) / name).write_bytes(content)
                self.loaded = task.source, load_policy(Path(folder))
        return super().roll(task, record)


def _nodes() -> list[Any]:
    import ray

    return list(ray.nodes())  # type: ignore[no-untyped-call]


def _cpus() -> float:
    return float(sum(n["Resources"].get("CPU", 0.0) for n in _nodes() if n["Alive"]))


def _nodes_lost() -> int:
    return sum(not node["Alive"] for node in _nodes())

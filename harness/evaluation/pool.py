"""The workers of an evaluation: this process, or Ray actors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self

import torch

from harness.cluster.ray_session import ray_session
from harness.config.protocol import Protocol
from harness.evaluation.policy_source import Outcome, Task, Worker
from harness.evaluation.ray_actors import RayWorkers


class Pool:
    """Workers that evaluate blocks, of one policy or of many; a context manager.

    One worker is this process, without Ray. Every worker has one thread, so that any number of
    them computes the same bits. `tick` is called about once a second while blocks are evaluated.
    address: a Ray cluster, whose CPUs are all used where `workers` is None; UserError when it has
    fewer than `workers`.
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
        self._remote: RayWorkers | None = None
        self._local = Worker(protocol)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.address is None and self.workers == 1:
                stack.enter_context(_one_thread())
            else:
                cpus = self.workers if self.address is None else None
                module = RayWorkers.__module__
                session = ray_session(cpus=cpus, gpus=0, address=self.address, preload=module)
                stack.enter_context(session)
                elsewhere = self.address is not None
                self._remote = RayWorkers(
                    self.protocol, self._asked, self.tick, elsewhere=elsewhere
                )
                self.workers = self._remote.workers
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._remote = None
        self._stack.close()

    def run(
        self, tasks: Sequence[Task], record: Iterable[int] = ()
    ) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task with its outcome when it is done; each once, in no particular order."""
        record = frozenset(record)
        if self._remote is not None:
            yield from self._remote.run(tasks, record)
            return
        for task in tasks:
            yield task, self._local.roll(task, record)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Who rolls blocks out: this process, or Ray actors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import torch

from harness.config.protocol import Protocol
from harness.evaluation.policy_source import Outcome, Task, Worker
from harness.evaluation.ray_actors import Crew

_CREW = "harness.evaluation.ray_actors"  # imports Ray, so it is imported where workers are wanted


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
                from harness.cluster.ray_session import ray_session

                cpus = self.workers if self.address is None else None
                stack.enter_context(
                    ray_session(cpus=cpus, gpus=0, address=self.address, running=_CREW)
                )
                # Imports Ray, which reads the session's token and address only then.
                from harness.evaluation.ray_actors import Crew

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


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

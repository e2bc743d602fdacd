"""The workers of an evaluation: this process, or Ray actors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from harness.cluster.ray_session import ray_session
from harness.config.protocol import Protocol
from harness.evaluation.policy_source import Worker
from harness.evaluation.ray_actors import RayWorkers

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
    with ray_session(cpus=cpus, gpus=0, address=address, preload=RayWorkers.__module__):
        yield RayWorkers(protocol, workers, tick, elsewhere=address is not None)

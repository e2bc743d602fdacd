"""Limits repeated work, such as saving checkpoints, to a share of the run time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throttle:
    """Rate-limits an action to a share of run time, by how long it took the last time."""

    def __init__(self) -> None:
        self._ended = time.perf_counter()
        self._seconds = 0.0

    def due(self, share: float) -> bool:
        """Return whether the action, run again now, stays within this share of the time."""
        return (time.perf_counter() - self._ended) * share >= self._seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure the body, which performs the action; one that fails is due again at once."""
        began = time.perf_counter()
        yield
        self._ended = time.perf_counter()
        self._seconds = self._ended - began

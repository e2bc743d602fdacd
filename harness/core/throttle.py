"""Work that is repeated beside a training and may take no more than a share of its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Says when something is due again, by how long it took the last time; at first it is."""

    def __init__(self) -> None:
        self._ended = time.perf_counter()
        self._seconds = 0.0

    def due(self, share: float) -> bool:
        """Whether doing it again now keeps it within this share of the time."""
        return (time.perf_counter() - self._ended) * share >= self._seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Note how long the body takes, in which it is done."""
        began = time.perf_counter()
        yield
        self._ended = time.perf_counter()
        self._seconds = self._ended - began

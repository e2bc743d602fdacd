"""Notices workers that do not move and cannot say so, on this machine or beyond their time."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 1.0
# Stopped for so long, as by a signal that nobody takes back.
STOPPED_SECONDS = 30.0
# A worker ends itself at its trial's limit; one that does not even do this is ended then.
GRACE_SECONDS = 60.0


@dataclass
class _Watched:
    began: float
    pid: int | None = None
    stopped: float = 0.0  # seconds that it was seen stopped, one after the other


class Watchdog:
    """Knows the workers at work and says which of them are to be killed.

    limit: the seconds that a trial may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._watched: dict[str, _Watched] = {}
        self._looked = time.monotonic()

    def start(self, key: str) -> None:
        """A worker begins."""
        self._watched[key] = _Watched(time.monotonic())

    def here(self, key: str, pid: int) -> None:
        """It is this process of this machine."""
        if key in self._watched:
            self._watched[key].pid = pid

    def end(self, key: str) -> None:
        """A worker is done."""
        self._watched.pop(key, None)

    def look(self) -> list[tuple[str, int | None, bool]]:
        """Return (key, process, whether it is late) of each worker to be killed, each once.

        The others are stopped.
        """
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK_SECONDS:
            return []
        self._looked = now
        found = []
        for key, worker in list(self._watched.items()):
            # A pause of this very process (a closed laptop, Ctrl-Z) is not held against others.
            still = worker.pid is not None and is_stopped(worker.pid)
            worker.stopped = worker.stopped + min(passed, 2 * LOOK_SECONDS) if still else 0.0
            late = now - worker.began > self.limit + GRACE_SECONDS
            if late or worker.stopped >= STOPPED_SECONDS:
                self.end(key)
                found.append((key, worker.pid, late))
        return found


def is_stopped(pid: int) -> bool:
    """Return whether a process of this machine is stopped by a signal."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] == "T"


def kill(pid: int) -> None:
    """End a process of this user on this machine, if there still is one."""
    try:
        os.kill(pid, 9)
    except (ProcessLookupError, PermissionError):
        return

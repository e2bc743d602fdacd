"""Processes of this machine: out of memory, stopped, killed."""

import errno
import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

HINT = (
    "fewer trials at once (--cpus-per-trial), a machine with more memory, or a smaller "
    "train.batch_size or train.micro_batch help"
)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_WHOLE_MACHINE = Path("/proc/vmstat")


# Messages of torch on a CPU and on a GPU, and of Ray for a worker that its memory monitor killed.
_MESSAGES = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "OutOfMemoryError",
    "running low on memory",
)


def ran_out(error: BaseException | str) -> bool:
    """Return whether an exception, or its text, reports that memory ran out."""
    if isinstance(error, str):
        # Ray lists "OOM killer" as one possible cause for every worker that vanished.
        return any(message in error for message in _MESSAGES)
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and ran_out(str(error))
    )


def kills() -> int:
    """Return how many processes the system has killed for lack of memory.

    Counted in this process's control group, or on the whole machine without one; 0 where the
    system does not report it. Only an increase of the number carries information.
    """
    for path in (*_groups(), _WHOLE_MACHINE):
        try:
            words = path.read_text().split()
        except OSError:
            continue
        if "oom_kill" in words[:-1]:
            return int(words[words.index("oom_kill") + 1])
    return 0


def _groups() -> list[Path]:
    """Return the files that may count the kills in this process's control group."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for inside in (group.lstrip("/"), ""):  # in a container, its own group is the root
            if controllers == "":
                found.append(_CONTROL_GROUPS / inside / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(_CONTROL_GROUPS / "memory" / inside / "memory.oom_control")
    return found


def is_stopped(pid: int) -> bool:
    """Return whether a process of this machine is stopped by a signal."""
    return _state_and_parent(pid)[0] == "T"


def children(pids: Collection[int]) -> list[int]:
    """Return the processes of this machine whose parent is one of these."""
    parents = {str(pid) for pid in pids}
    found = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in found if _state_and_parent(pid)[1] in parents]


def _state_and_parent(pid: int) -> tuple[str, str]:
    """Return two fields of a process's stat, empty where it has ended."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return "", ""
    return state, parent


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    """Send a signal to a process of this user on this machine, if it still exists."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)

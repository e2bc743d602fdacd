"""Processes of this machine: out of memory, stopped, killed."""

import errno
import os
from pathlib import Path

HINT = (
    "fewer trials at once (--cpus-per-trial), a machine with more memory, or a smaller "
    "train.batch_size or train.micro_batch help"
)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_WHOLE_MACHINE = Path("/proc/vmstat")


# What torch says on a CPU, on a GPU, and what Ray says of a worker that its memory monitor killed.
_SAYINGS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "OutOfMemoryError",
    "running low on memory",
)


def ran_out(error: BaseException | str) -> bool:
    """Return whether an exception, or the text of one, says that memory ran out."""
    if isinstance(error, str):
        # A worker that vanished is said to have been killed by "OOM killer" perhaps: no news.
        return any(saying in error for saying in _SAYINGS)
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and ran_out(str(error))
    )


def kills() -> int:
    """Return how many processes the system has killed for memory where this one runs.

    Counted in this process's control group, or on the whole machine where there is none; 0 where
    the system does not say. Only a rise of the number means anything.
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

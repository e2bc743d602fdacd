"""Ends this process when a process that its local Ray session consists of dies or hangs.

Ray itself would wait for it for ever, or end this process with a line of its internals. A worker
that hangs is killed: Ray reports it as dead, and its work is done by another one.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from harness.core import processes
from harness.core.errors import AGAIN, SOME_FAILED

LOOK_SECONDS = 1.0
# A process that a signal has stopped for so long counts as hanging; Ray's own checks take longer.
STOPPED_SECONDS = 15.0
WORKER_SECONDS = 35.0  # the same of a worker; a sweep kills those of its trials before, in words


# What reports the end of this process, once its standard input ends or has a line ("" at a good
# end): Ray's part in C++ ends this process without a word when the raylet closes its socket.
_GUARD = """
IFS= read -r said || { kill -KILL "$@" 2>/dev/null; said=$0; }
[ -z "$said" ] || printf '%s\\n' "$said" >&2
"""


@contextmanager
def watched(pids: Mapping[int, str], clean_up: Callable[[], None]) -> Iterator[None]:
    """Watch processes, given with their names, and their children in the body.

    When one dies or hangs: one line on stderr, clean_up(), and this process ends with exit code 1.
    A child that hangs is killed. When this process is killed, these are killed too. After the body,
    what is stopped is continued, so that it can end.
    """
    command = ["/bin/sh", "-c", _GUARD, _line("processes have ended"), *map(str, pids)]
    with ExitStack() as stack:
        guard = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        stack.callback(guard.communicate, "\n")

        def end(what: str) -> None:
            _end(what, guard, clean_up)

        files = {}
        for pid, name in pids.items():
            try:
                files[os.pidfd_open(pid)] = pid, name
            except ProcessLookupError:
                end(f"{name} has died")
        for file in files:
            stack.callback(os.close, file)
        done, wake = os.pipe()
        thread = threading.Thread(target=_watch, args=(files, done, end), daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(wake)  # makes `done` readable
            thread.join()
            os.close(done)
            for pid in filter(processes.is_stopped, (*pids, *processes.children(pids))):
                processes.kill(pid, signal.SIGCONT)


def _watch(files: Mapping[int, tuple[int, str]], done: int, end: Callable[[str], None]) -> None:
    poll = select.poll()
    for file in (*files, done):
        poll.register(file)
    names: dict[int, str] = dict(files.values())
    stopped: dict[int, float] = {}  # for how many seconds in a row, by pid
    looked = time.monotonic()
    while True:
        ready = [file for file, _ in poll.poll(1000 * LOOK_SECONDS)]
        if done in ready:
            return
        for file in ready:
            end(f"{files[file][1]} has died")
        # The cut keeps a pause of this process (a closed laptop, Ctrl-Z) from counting.
        passed, looked = min(time.monotonic() - looked, 2 * LOOK_SECONDS), time.monotonic()
        seen = filter(processes.is_stopped, (*names, *processes.children(names)))
        stopped = {pid: stopped.get(pid, 0.0) + passed for pid in seen}
        for pid, seconds in stopped.items():
            if pid not in names and seconds >= WORKER_SECONDS:
                processes.kill(pid)
            elif pid in names and seconds >= STOPPED_SECONDS:
                end(f"{names[pid]} has been stopped for {STOPPED_SECONDS:.0f} s")


def _end(what: str, guard: "subprocess.Popen[str]", clean_up: Callable[[], None]) -> None:
    line = _line(f"process {what}")
    guard.communicate(f"{line}\n")
    if guard.returncode:  # a signal to the whole group has ended it
        print(line, file=sys.stderr, flush=True)
    # What follows from it in Ray is of no use to the user, and its own shutdown would wait.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    clean_up()
    os._exit(SOME_FAILED)


def _line(what: str) -> str:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a live table hides it
    return f"{show_cursor}error: Ray's {what}; {AGAIN}"

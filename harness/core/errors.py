"""Errors for the user in one line, and the exit codes of commands.

0: success, 1: some trials or seeds failed, 2: bad input, 129, 130 or 143: interrupted by SIGHUP,
SIGINT or SIGTERM, can be resumed.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from harness.core.text import one_line

OK = 0
SOME_FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
_SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "the terminal has gone",
}
AGAIN = "run the same command again to continue"
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
FREE_SPACE = f"free disk space (and inodes) and {AGAIN}"
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = frozenset({"envs", "harness", "ibc"})


class UserError(ValueError):
    """A mistake in the input: the rule, then what was given."""


@dataclass
class _Interrupts:
    """The signals of this process so far, and whether they are held back."""

    received: list[int] = field(default_factory=list)
    held_back: bool = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Unwind the stack at the first signal; at a later SIGINT exit at once."""
        if self.received:
            if signum == signal.SIGINT:
                os._exit(INTERRUPTED)
            return
        self.received.append(signum)
        if not self.held_back:
            # Also for SIGTERM: KeyboardInterrupt is the only exception that leaves Ray's waits.
            raise KeyboardInterrupt


_interrupts = _Interrupts()


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Make the first signal that `run` handles unwind after the body, not within it.

    For starting other processes: one that is interrupted half way can leave some behind.
    """
    _interrupts.held_back = True
    try:
        yield
    finally:
        _interrupts.held_back = False
        if _interrupts.received:
            raise KeyboardInterrupt


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage."""
        raise UserError(f"{message} (--help lists the options)")


def run(main: Callable[[], int]) -> int:
    """Call `main` and return the process's exit code.

    A mistake in the input prints one line on stderr and returns 2: any UserError, or a ValueError
    that this project's own code raised. A ValueError from inside a library is a bug and keeps its
    traceback. A file without the rights that the command needs prints one line and returns 2, a
    full disk prints one line and returns 1. The first SIGINT, SIGTERM or SIGHUP
    unwinds the stack as KeyboardInterrupt, the next SIGINT exits at once.
    """
    global _interrupts
    interrupts = _interrupts = _Interrupts()
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signals = [each for each in _SIGNALS if not (nohup and each == signal.SIGHUP)]
    previous = [signal.signal(each, interrupts.handle) for each in signals]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this process (`>&-`)
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the end
    try:
        code = main()
        sys.stdout.flush()
        return code
    except ValueError as error:
        if not _is_users(error):
            raise
        _print_error(f"error: {one_line(error)}")
        return BAD_INPUT
    except KeyboardInterrupt:
        signum = next(iter(interrupts.received), signal.SIGINT)
        _print_error(f"{_SIGNALS[signal.Signals(signum)]}; {AGAIN}")
        return 128 + signum
    except BrokenPipeError:
        _discard_output()  # the reader has gone (`| head`)
        return BROKEN_PIPE
    except OSError as error:
        if error.errno in _NO_ACCESS and error.filename is not None:
            rule = "what a command reads must be readable, and what it writes writable"
            given = os.path.abspath(os.fsdecode(error.filename))  # noqa: PTH100 - as it was named
            _print_error(f"error: {one_line(f'{rule}; {given}: {error.strerror}')}")
            return BAD_INPUT
        if not lacked_room(error):
            raise
        _print_error(f"error: {one_line(error)}; {FREE_SPACE}")
        return SOME_FAILED
    finally:
        # After a signal our handlers stay: with Python's own, a second Ctrl-C during the exit
        # would change the exit code.
        if not interrupts.received:
            for signum, handler in zip(signals, previous, strict=True):
                signal.signal(signum, handler)


def lacked_room(error: BaseException) -> bool:
    """Return whether an exception reports a full disk, also one that a library has worded."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    return any(os.strerror(each) in str(error) for each in _NO_ROOM)


def _is_users(error: ValueError) -> bool:
    if isinstance(error, UserError):
        return True
    traceback = error.__traceback__
    if type(error) is not ValueError or traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    source = Path(traceback.tb_frame.f_code.co_filename).resolve()
    try:
        inside = source.relative_to(_ROOT).parts
    except ValueError:
        return False
    return len(inside) == 1 or inside[0] in _PACKAGES


def _print_error(text: str) -> None:
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, or the terminal has gone
        _discard_output()
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _discard_output() -> None:
    """Send what is left of stdout nowhere; otherwise Python's flush at exit fails once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

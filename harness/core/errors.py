"""Errors for the user in one line, and the exit codes of commands.

0: success, 1: some trials or seeds failed, 2: bad input, 130 or 143: interrupted, can be resumed.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from harness.core.text import one_line

OK = 0
SOME_FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = frozenset({"envs", "harness", "ibc"})


class UserError(ValueError):
    """A mistake in the input: the rule, then what was given."""


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage."""
        raise UserError(f"{message} (--help lists the options)")


def run(main: Callable[[], int]) -> int:
    """Call `main` and return the process's exit code.

    A mistake in the input prints one line on stderr and returns 2: any UserError, or a ValueError
    that this project's own code raised. A ValueError from inside a library is a bug and keeps its
    traceback. A full disk prints one line and returns 1. The first SIGINT or SIGTERM unwinds the
    stack as KeyboardInterrupt, the next SIGINT exits at once.
    """
    received: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if received:
            if signum == signal.SIGINT:
                os._exit(INTERRUPTED)
            return
        received.append(signum)
        # Also for SIGTERM: KeyboardInterrupt is the only exception that leaves Ray's waits.
        raise KeyboardInterrupt

    signals = signal.SIGINT, signal.SIGTERM
    previous = [signal.signal(signum, interrupt) for signum in signals]
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
        terminated = received == [signal.SIGTERM]
        cause = "terminated" if terminated else "interrupted"
        _print_error(f"{cause}; run the same command again to continue")
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`). Without this, Python's flush at exit fails once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        _print_error(
            f"error: {one_line(error)}; free disk space and run the same command again to continue"
        )
        return SOME_FAILED
    finally:
        # After a signal our handlers stay: with Python's own, a second Ctrl-C during the exit
        # would change the exit code.
        if not received:
            for signum, handler in zip(signals, previous, strict=True):
                signal.signal(signum, handler)


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
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)

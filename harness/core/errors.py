"""What a command tells its user when it cannot go on, and the exit code that says so.

0 all well, 1 some trials or seeds failed, 2 bad input, 130/143 interrupted and resumable.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from harness.core.text import one_line

OK = 0
SOME_FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_OWN_CODE = Path(__file__).resolve().parents[2]
_WINGS = frozenset({"envs", "harness", "ibc"})


class UserError(ValueError):
    """A mistake in what the user gave: the rule first, then what was given."""


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage."""
        raise UserError(f"{message} (--help lists the options)")


def run(main: Callable[[], int]) -> int:
    """Call `main` and return the process's exit code.

    A user's mistake becomes one line on stderr and 2: any UserError, or a ValueError that this
    project's own code raised. A ValueError from inside a library is a bug and keeps its traceback.
    A full disk is one line and 1: nothing that was written before is lost.
    The first SIGINT or SIGTERM unwinds the stack as KeyboardInterrupt, the next SIGINT leaves at
    once.
    """
    arrived: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if arrived:
            if signum == signal.SIGINT:
                os._exit(INTERRUPTED)
            return
        arrived.append(signum)
        # Also for SIGTERM: of all exceptions, Ray's waits let only this one through.
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
        _say(f"error: {one_line(error)}")
        return BAD_INPUT
    except KeyboardInterrupt:
        terminated = arrived == [signal.SIGTERM]
        word = "terminated" if terminated else "interrupted"
        _say(f"{word}; run the same command again to continue")
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        # The reader left (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _say(f"error: {one_line(error)}; make room and run the same command again to continue")
        return SOME_FAILED
    finally:
        # After one signal ours stay: Python's own would turn a second Ctrl-C that comes while the
        # process ends into another exit code.
        if not arrived:
            for signum, handler in zip(signals, previous, strict=True):
                signal.signal(signum, handler)


def _is_users(error: ValueError) -> bool:
    return isinstance(error, UserError) or (
        type(error) is ValueError and _raised_by_own_code(error.__traceback__)
    )


def _raised_by_own_code(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    source = Path(traceback.tb_frame.f_code.co_filename).resolve()
    try:
        inside = source.relative_to(_OWN_CODE).parts
    except ValueError:
        return False
    # A dataclass's generated __init__ never raises itself, so the wings' files are all there is.
    return len(inside) == 1 or inside[0] in _WINGS


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)

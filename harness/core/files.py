"""Files that are whole or absent: atomic writes, JSON, locks, torn files set aside.

What is read may come from strangers. A reader leaves out what it cannot read and says so; only the
holder of a folder's lock renames a torn file in it.
"""

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from harness.core.errors import AGAIN, UserError
from harness.core.text import one_line
from ibc.data.plain_files import open_folder, open_plain

MAX_JSON_BYTES = 64 * 2**20  # the plan of 10,000 trials has 40 MB
# A value takes at least one of these characters, and at most a hundred bytes of memory.
MAX_JSON_VALUES, _SEPARATORS = 4_000_000, (b",", b"[", b"{")
LOG, LEFT_OUT = "harness.core.files", "left out"  # the logger, and how its warnings may begin
_log = logging.getLogger(LOG)
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{12}")


# The folders of a results folder's layout (docs/RESULTS.md): no link in or below them is followed.
_LAYOUT = {"trials", "tables", "episodes", "checkpoints", "evaluations", "pictures"}
# What flock raises where the file system has no locks (some network file systems).
_WITHOUT_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}
_locked: list[tuple[Path, IO[str]]] = []  # the locks that this process holds, with their files


class TornFileError(UserError):
    """A file that was read whole and is truncated, partly overwritten, or of another format."""


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` once all of its content is on the disk.

    After an exception, a kill or a full disk, `path` is the old file or the new one. Missing
    folders are made. OSError from the file system is passed on; UserError as of `check_in_place`.
    """
    check_in_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """Return an unused hidden name in the folder of `path`, so that a rename to it is atomic."""
    # 60 characters of the name keep it below the 255 bytes that file systems allow.
    return path.parent / f".{path.name[:60]}.tmp-{secrets.token_hex(6)}"


def remove_temporaries(folder: Path) -> list[Path]:
    """Remove the temporary files of killed writers under `folder`; return the removed paths.

    Only for the folder's only writer (the holder of its lock).
    """
    found = sorted(path for path in folder.rglob(".*") if _TEMPORARY.fullmatch(path.name))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return found


@contextmanager
def lock(path: Path, *, wait: float = 0.0) -> Iterator[bool]:
    """Hold a lock file; yields False where another process still holds it after `wait` seconds.

    The system releases the lock when its process dies. Missing folders are made; OSError from the
    file system is passed on, UserError for one without locks. The holder sets torn files in the
    folder aside, see `read_or`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open_folder(path.parent, _root(path.parent)) as parent:
        try:
            descriptor = os.open(path.name, flags, 0o666, dir_fd=parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
    with open(descriptor, "a") as file:  # noqa: PTH123 - a descriptor has no path
        while not (held := _try_lock(file)) and time.monotonic() < deadline:
            time.sleep(0.1)
        entry = path.absolute(), file
        if held:
            _locked.append(entry)
        try:
            yield held
        finally:
            if held:
                _locked.remove(entry)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        raise UserError(
            f"{file.name} must lie on a file system that has locks, this one does not: "
            f"{error.strerror}"
        ) from error
    return True


def check_in_place(path: Path) -> None:
    """UserError when a folder above `path`, whose lock this process holds, is another one by now.

    A folder that was moved or deleted would otherwise be made again, without the lock.
    """
    for lock_path, file in _locked:
        if not path.absolute().is_relative_to(lock_path.parent):
            continue
        try:
            same = os.path.samestat(os.fstat(file.fileno()), lock_path.lstat())
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise UserError(
                "a results folder must stay where it is while a command works in it, and "
                f"{lock_path.parent} was moved or deleted; put it back and {AGAIN}"
            )


def check_writable(folder: Path) -> None:
    """Make a folder of results; UserError when no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_beside(folder / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"results must be writable before anything starts: {error}") from error


def sync_folder(folder: Path) -> None:
    """Write the names in `folder` to the disk, so that a rename survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def quarantine(path: Path, problem: str = "is torn") -> None:
    """Rename a file or folder that cannot be used to `<name>.torn`, and log a warning.

    A further one is `<name>.torn-2`, and so on. A path that is gone, or that cannot be renamed,
    stays as it is.
    """
    number, target = 1, path.with_name(f"{path.name}.torn")
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.torn-{number}")
    try:
        path.rename(target)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("%s %s and left out (it cannot be renamed: %s)", path, problem, error)
        return
    _log.warning("%s %s: set aside as %s, its work counts as not done", path, problem, target.name)


def write_json(value: object, path: Path) -> None:
    """Write plain values as JSON, atomically; ValueError for NaN, infinity or other objects."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name} takes plain finite values only: {error}") from error
    with atomic(path) as file:
        file.write(text.encode("utf-8", "surrogatepass") + b"\n")


def open_file(path: Path, most: int) -> AbstractContextManager[BufferedReader]:
    """Open a regular file of at most so many bytes; of results, no link to it is followed.

    ValueError for anything else, OSError as of `open`.
    """
    return open_plain(path, most, _root(path.parent))


def read_bytes(path: Path, most: int) -> bytes:
    """Return the whole content of a file that `open_file` opens."""
    with open_file(path, most) as file:
        return file.read(most)


def entries(folder: Path) -> list[str]:
    """Return the sorted names in a folder of results, [] where there is none or it is a link.

    For the holder of a lock above it, UserError for one that cannot be read.
    """
    try:
        with open_folder(folder, _root(folder)) as descriptor:
            return sorted(os.listdir(descriptor))  # noqa: PTH208 - a descriptor has no path
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            without_access(folder, error)
        else:
            leave_out(folder, error)
        return []


def _root(folder: Path) -> Path:
    """Return the folder above which links are the user's own: a sweep's, or the file's own."""
    for above in reversed((folder, *folder.parents[:4])):
        if above.name in _LAYOUT:
            return above.parent
    return folder


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; TornFileError when it is not whole JSON."""
    content = read_bytes(path, MAX_JSON_BYTES)
    if sum(map(content.count, _SEPARATORS)) > MAX_JSON_VALUES:
        raise ValueError(f"{path} must hold at most {MAX_JSON_VALUES:,} values, it holds more")
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TornFileError(f"{path} is not whole JSON: {error}") from error


def read_or(default: Any, read: Callable[..., Any], path: Path, *arguments: Any) -> Any:
    """Return read(path, *arguments), or `default` where the file is absent or cannot be used.

    The holder of a lock above the file sets a torn one aside (`quarantine`), and raises UserError
    for one that it cannot read. Others leave it as it is, and say so.
    """
    try:
        return read(path, *arguments)
    except FileNotFoundError:
        return default
    except TornFileError as error:
        if _owned(path):
            quarantine(path)
        else:
            leave_out(path, error)
        return default
    except (OSError, ValueError, MemoryError) as error:
        without_access(path, error)
        return default


def _owned(path: Path) -> bool:
    """Return whether this process holds the lock of a folder above."""
    return any(path.absolute().is_relative_to(held.parent) for held, _ in _locked)


def without_access(path: Path, error: Exception) -> None:
    """Leave a file or folder out that cannot be read; UserError for the holder of a lock above.

    What the holder derives would lack the rows that lie there.
    """
    if _owned(path):
        raise UserError(_reason(path, error)) from error
    leave_out(path, error)


def leave_out(path: Path, error: Exception) -> None:
    """Log a warning that a reader goes on without this file; reading commands then end with 1."""
    _log.warning("%s: %s", LEFT_OUT, _reason(path, error))


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror or error}"
    return one_line(error) if str(path) in str(error) else one_line(f"{path}: {error!r}")


def read_json_or(path: Path, default: Any = None) -> Any:
    """Return the content of a JSON file of our own, `default` where it is absent or torn."""
    try:
        return read_json(path)
    except (FileNotFoundError, TornFileError):
        return default


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")

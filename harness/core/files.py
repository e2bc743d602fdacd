"""Files that are whole or absent: atomic writes, JSON, locks, torn files set aside."""

import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.core.errors import UserError

MAX_JSON_BYTES = 256 * 2**20
_log = logging.getLogger("harness.core.files")
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{12}")


class TornFileError(UserError):
    """A result file that is truncated, partly overwritten, or of another format."""


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` once all of its content is on the disk.

    After an exception, a kill or a full disk, `path` is the old file or the new one. Missing
    folders are made. OSError from the file system is passed on.
    """
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
    file system is passed on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with path.open("a") as file:
        while not (held := _try_lock(file)) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield held


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; TornFileError when it is not whole JSON."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ValueError(f"{path} must be at most {MAX_JSON_BYTES} bytes, it has {size}")
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TornFileError(f"{path} is not whole JSON: {error}") from error


def read_or(
    default: Any, read: Callable[..., Any], path: Path, *arguments: Any, set_aside: bool = False
) -> Any:
    """Return read(path, *arguments), or `default` where the file is absent or torn.

    set_aside: a torn file is renamed, see `quarantine`. Other errors of `read` are passed on.
    """
    try:
        return read(path, *arguments)
    except FileNotFoundError:
        return default
    except TornFileError:
        if set_aside:
            quarantine(path)
        return default


def read_json_or(path: Path, default: Any = None) -> Any:
    """Return the content of a JSON file, or `default` where it is absent or torn."""
    return read_or(default, read_json, path)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")

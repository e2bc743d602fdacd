"""Files that are whole or absent: atomic writes, JSON, names that cannot leave their folder."""

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.core.errors import UserError

MAX_JSON_BYTES = 256 * 2**20
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{12}")


class TornFileError(UserError):
    """A result file that is not whole: cut short, overwritten in part, or of another format."""


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its name once all of it is on the disk.

    Whatever happens in between (an exception, a kill, a full disk), `path` is the old file or the
    new one. Missing folders are made. OSError from the file system is passed on.
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
    """Return a fresh hidden name in the folder of `path`, on the same file system for a rename."""
    # 60 characters of the name keep the whole below the 255 bytes that file systems allow.
    return path.parent / f".{path.name[:60]}.tmp-{secrets.token_hex(6)}"


def remove_temporaries(folder: Path) -> list[Path]:
    """Remove what killed writers left anywhere under `folder`; return the paths removed.

    Only for a process that knows it is the folder's only writer (the holder of a sweep's lock).
    """
    found = sorted(path for path in folder.rglob(".*") if _TEMPORARY.fullmatch(path.name))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return found


@contextmanager
def unless_held(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock for a moment; yields False where another process works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: without it a rename may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def quarantine(path: Path) -> Path:
    """Rename an unreadable file to `<name>.torn` (or `.torn-2`, ...) and return the new path."""
    number = 1
    while True:
        target = path.with_name(f"{path.name}.torn" + (f"-{number}" if number > 1 else ""))
        if not target.exists():
            path.rename(target)
            return target
        number += 1


def write_json(value: object, path: Path) -> None:
    """Write plain values as JSON, atomically; ValueError for a NaN, infinity or other object."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name} takes plain finite values only: {error}") from error
    with atomic(path) as file:
        file.write(text.encode("utf-8", "surrogatepass") + b"\n")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; TornFileError names the file when it is not whole JSON."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ValueError(f"{path} must be at most {MAX_JSON_BYTES} bytes, it has {size}")
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TornFileError(f"{path} is not whole JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")

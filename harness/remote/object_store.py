"""Objects on a store that pyarrow supports (s3, gs, abfs, hdfs), with retries."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from harness.core.errors import UserError
from harness.core.text import one_line

MAX_OBJECT_BYTES = 4 * 2**30
# Seconds between attempts; with the client's own retries half a minute in total.
WAITS = (0.5, 1.0, 2.0, 4.0)
SETTLING_NS = 2 * 10**9
# Keys become local paths, and others may write to the bucket.
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,200}")
_REFUSED = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE|EXPIRED_TOKEN|"
    "HTTP STATUS 40[13]"
)
_FLAT = ("s3", "gcs")  # without folders
T = TypeVar("T")


class RemoteError(UserError):
    """An operation on the results' store failed, also after retries."""


@dataclass(frozen=True)
class Entry:
    """One object: its key below the root, its size, and its time of writing by the store's clock.

    settled: no later object of the same size can have this time, which stores give in seconds.
    """

    key: str
    size: int
    written: float
    settled: bool


class Objects:
    """The objects below one URI, with keys relative to it.

    Temporary failures are retried after each of `waits` seconds, then raise RemoteError.
    FileNotFoundError is passed on.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self.waits = uri.rstrip("/"), tuple(WAITS)
        parts = urlsplit(uri)
        if parts.username is not None or parts.password is not None:
            raise UserError(
                "a store's keys are given by the environment (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, ...), for a URI is printed and stored; --results holds some"
            )
        # With this option a small object takes one request instead of three.
        option = "allow_delayed_open=true"
        full_uri = f"{uri}{'&' if parts.query else '?'}{option}" if parts.scheme == "s3" else uri
        try:
            self.system, self.root = fs.FileSystem.from_uri(full_uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(
                f"--results takes a folder or the URI of a store, given {one_line(uri)[:200]!r}: "
                f"{one_line(error)[:200]}"
            ) from error
        self.root = self.root.rstrip("/")

    @contextmanager
    def without_retries(self) -> Iterator[None]:
        """Try everything in the body only once."""
        waits, self.waits = self.waits, tuple[float, ...]()
        try:
            yield
        finally:
            self.waits = waits

    def read(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        """Return an object's bytes; FileNotFoundError, or RemoteError when it is too big."""

        def action() -> bytes:
            with self.system.open_input_stream(self._path(key)) as stream:
                content: bytes = stream.read(limit + 1)
            return content

        content = self._with_retries("read", key, action)
        if len(content) > limit:
            raise RemoteError(f"{self.uri}/{key} must be at most {limit} bytes")
        return content

    def write(self, key: str, content: bytes) -> None:
        """Write an object; readers see the earlier one or the new one."""

        def action() -> None:
            path = self._path(key)
            if self.system.type_name not in _FLAT:
                self.system.create_dir(path.rpartition("/")[0], recursive=True)
            with self.system.open_output_stream(path) as stream:
                stream.write(content)

        self._with_retries("written", key, action)

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        try:
            self._with_retries("removed", key, lambda: self.system.delete_file(self._path(key)))
        except FileNotFoundError:
            return

    def written(self, key: str) -> float | None:
        """Return the time of writing by the store's clock; None without such an object."""
        info = self._with_retries("read", key, lambda: self.system.get_file_info(self._path(key)))
        return info.mtime_ns / 1e9 if info.type == fs.FileType.File else None

    def list(self, prefix: str = "") -> dict[str, Entry]:
        """Return the objects below a prefix (a folder) by key; unsafe keys are left out."""
        path = self._path(prefix) if prefix else self.root
        selector = fs.FileSelector(path, recursive=True)
        try:
            infos = self._with_retries("read", prefix, lambda: self.system.get_file_info(selector))
        except FileNotFoundError:
            return {}
        files = [info for info in infos if info.type == fs.FileType.File]
        newest = max((info.mtime_ns or 0 for info in files), default=0)
        found = {}
        for info in files:
            key, written = info.path.removeprefix(f"{self.root}/"), info.mtime_ns or 0
            if is_safe(key):
                settled = written < newest - SETTLING_NS
                found[key] = Entry(key, info.size, written / 1e9, settled)
        return found

    def _path(self, key: str) -> str:
        if not is_safe(key):
            raise RemoteError(f"an object's key is names with '/' between, given {key[:200]!r}")
        return f"{self.root}/{key}"

    def _with_retries(self, done: str, key: str, action: Callable[[], T]) -> T:
        for wait in (*self.waits, None):
            try:
                return action()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                permanent = explain(error)
                if permanent is None and wait is not None:
                    time.sleep(wait)
                    continue
                why = permanent or f"it cannot be reached ({one_line(error)[-160:]})"
                where = f"{self.uri}/{key}" if key else self.uri
                raise RemoteError(f"{where} cannot be {done}: {why}") from error
        raise AssertionError


def is_safe(key: str) -> bool:
    """Return whether a key is safe as a path below a folder."""
    return all(_SAFE.fullmatch(part) and part not in (".", "..") for part in key.split("/"))


def explain(error: Any) -> str | None:
    """Return the meaning of a store's error, None for one that may be temporary."""
    text = str(error).upper()
    if "NO_SUCH_BUCKET" in text:
        return "there is no such bucket"
    if _REFUSED.search(text):
        return "the store refuses it; look at the credentials (AWS_ACCESS_KEY_ID, ...) and rights"
    return None

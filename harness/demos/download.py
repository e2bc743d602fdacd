"""The download of the published demonstrations: a zip over HTTP, identified by its content.

The zip's own checksum is not published, so the decoded arrays are verified: their fingerprint must
be that of the data set behind all published PushT results.
"""

import argparse
import contextlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as ProgressBar

from harness.core import errors, files, paths, text
from harness.core.errors import UserError
from harness.demos import source
from harness.demos.source import DOWNLOADED
from ibc.data import demos, zarr_store

URL = "https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip"
FINGERPRINT = "b566578379df525197b899ec0d1365ba5a40c122302fbe44aefa1c91432c7690"
MAX_ZIP_BYTES = 2**30
MAX_UNPACKED_BYTES = 4 * 2**30
MAX_ENTRIES = 100_000
TIMEOUT, LEAST_BYTES = 30.0, 2**15  # seconds, and the bytes that must arrive in so many
_BLOCK = 2**18
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # whose errors are known
Progress = Callable[[int, int | None], None]  # bytes received, bytes in all if they are known


class DownloadError(Exception):
    """The network or the server failed, or the file is not the data set."""


def command(given: argparse.Namespace) -> int:
    """Run `python -m harness.demos download`."""
    target = paths.DATA / DOWNLOADED
    if target.exists() and not given.force:
        if source.fingerprint(target) == FINGERPRINT:
            print(f"already installed: {target}")
            return errors.OK
        raise UserError(f"{target} is another data set; --force replaces it")
    url = given.url or URL
    print(f"downloading {text.one_line(url)}", flush=True)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bars = ProgressBar(*columns, console=console, transient=True, disable=not console.is_terminal)
    try:
        with bars:
            bar = bars.add_task("pusht.zip", total=None)
            path = download(
                url,
                folder=paths.DATA,
                expected=FINGERPRINT,
                progress=lambda done, total: bars.update(bar, completed=done, total=total),
            )
    except DownloadError as error:
        print(f"error: {text.one_line(error)}", file=sys.stderr)
        return errors.SOME_FAILED
    print(f"installed and verified: {path}")
    return errors.OK


def download(
    url: str,
    *,
    folder: Path,
    expected: str = FINGERPRINT,
    progress: Progress = lambda done, total: None,
    timeout: float = TIMEOUT,
) -> Path:
    """Install the data set in `folder`, replacing an older one, and return its path.

    Nothing is changed before everything is verified: a kill at any moment leaves the old data set,
    or none. Raises DownloadError, and UserError for an address that is not HTTP or a folder that
    cannot be written to. `timeout`: seconds without a byte, or with fewer than LEAST_BYTES.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--url must begin with http:// or https://, got {url!r}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _workplace(folder) as work:
            archive = work / "archive.zip"
            _fetch(url, archive, progress, timeout)
            store = _unpack(archive, work / "unpacked")
            _verify(store, expected)
            os.sync()  # file contents before names: a power cut cannot leave empty files
            target = folder / DOWNLOADED
            if target.exists():
                target.rename(work / "replaced")
            return store.rename(target)
    except OSError as error:
        raise UserError(
            f"{folder} must be writable, with free space, it is not: {error}"
        ) from error


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target; what a killed download left in it is removed."""
    with files.lock(folder / ".download.lock") as held:
        if not held:
            raise UserError(f"one download at a time: another process downloads to {folder}")
        work = folder / ".download"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _fetch(url: str, file: Path, progress: Progress, timeout: float) -> None:
    try:
        response = urllib.request.urlopen(url, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(f"{url}: cannot be reached: {reason}") from error
    if not isinstance(response, http.client.HTTPResponse):
        raise DownloadError(f"{url}: leads to {response.url}, which is not HTTP")
    done = 0
    with response, file.open("xb") as out:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        looked, before = time.monotonic(), 0
        while block := _block(response, url):
            done += len(block)
            if max(done, total or 0) > MAX_ZIP_BYTES:
                raise DownloadError(f"{url}: more than {MAX_ZIP_BYTES} bytes, refused")
            out.write(block)
            progress(done, total)
            if time.monotonic() - looked > timeout:
                if done - before < LEAST_BYTES:
                    raise DownloadError(
                        f"{url}: too slow, {done - before} bytes in {timeout:.0f} s; try again"
                    )
                looked, before = time.monotonic(), done
    if total is not None and done != total:
        raise DownloadError(f"{url}: the connection ended after {done} of {total} bytes; try again")


def _block(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read1(_BLOCK)  # what has arrived
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url}: the connection broke: {error}; try again") from error


def _unpack(archive: Path, folder: Path) -> Path:
    """Return the unpacked data set; DownloadError for an entry that would leave `folder`."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            entries = zipped.infolist()
            if len(entries) > MAX_ENTRIES:
                raise DownloadError(f"the zip has {len(entries)} entries, at most {MAX_ENTRIES}")
            if (size := sum(entry.file_size for entry in entries)) > MAX_UNPACKED_BYTES:
                raise DownloadError(
                    f"the zip unpacks to {size} bytes, at most {MAX_UNPACKED_BYTES}"
                )
            if any(entry.compress_type not in _METHODS for entry in entries):
                raise DownloadError("the zip must be stored or deflated, it is not")
            for entry in entries:
                target = folder / _safe(entry)
                if not entry.is_dir():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with zipped.open(entry) as source, target.open("xb") as out:
                        shutil.copyfileobj(source, out, _BLOCK)
    except (
        *(zipfile.BadZipFile, zlib.error, UnicodeError),
        *(NotImplementedError, RuntimeError, EOFError),
    ) as error:
        raise DownloadError(f"the file is not a whole zip: {error}") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise DownloadError(f"the zip has the same name twice: {error.filename}") from error
    stores = [path for path in sorted(folder.rglob("*.zarr")) if zarr_store.is_store(path)]
    if len(stores) != 1:
        raise DownloadError(f"the zip must hold one zarr store, it holds {len(stores)}")
    return stores[0]


def _safe(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Return the path of an entry that is a plain file or folder, below the target folder."""
    path = PurePosixPath(entry.filename)
    kind = entry.external_attr >> 28  # the file type of a Unix mode: 0 unknown, 4 folder, 8 plain
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or not path.parts:
        raise DownloadError(f"the zip holds a path that leaves its folder: {entry.filename!r}")
    if kind not in (0, 4, 8):
        raise DownloadError(f"the zip holds a link or a device: {entry.filename!r}")
    return path


def _verify(store: Path, expected: str) -> None:
    try:
        found = demos.fingerprint(store)
    except ValueError as error:
        raise DownloadError(f"the file is a broken data set: {error}") from error
    if found != expected:
        raise DownloadError(
            f"the file is another data set: its fingerprint must be {expected}, it is {found}"
        )

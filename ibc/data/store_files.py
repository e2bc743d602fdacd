"""The files of a zarr store: those of a folder, or the entries of one zip.

A folder's links may lead to files of the store and, where the store lies in a download hub's cache
(HUB/snapshots/REVISION/..., as huggingface_hub lays it out), to that cache's blobs, nowhere else.
A zip is never unpacked: it is zarr's own zip store.
"""

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

ROOT_GROUP = {2: ".zgroup", 3: "zarr.json"}
MAX_ENTRIES = 1_000_000
MAX_ENTRY_BYTES = 2**31
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LFS = b"version https://git-lfs"


class StoreFiles(Protocol):
    """What reading a store needs of its files; names are relative to the store, with "/".

    ValueError for a file that may not be read, naming it.
    """

    def has(self, name: str) -> bool:
        """Whether there is such a file or folder."""

    def sizes(self, folder: str) -> dict[str, tuple[int, int]]:
        """Every file below a folder, relative to it: size in bytes, and its time or checksum."""

    def open(self, name: str) -> BinaryIO:
        """Open a file to read."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file of at most so many bytes."""

    def to_zarr(self, name: str) -> dict[str, Any]:
        """Return the arguments with which zarr opens an array."""


@dataclass(frozen=True)
class FolderFiles:
    """The files of a store that is a folder."""

    root: Path

    @cached_property
    def _allowed(self) -> tuple[Path, ...]:
        """The folders that links may lead into."""
        root = Path(os.path.abspath(self.root))  # noqa: PTH100 - resolve() would follow links
        hubs = [p.parent / "blobs" for p in root.parents if p.name == "snapshots"]
        return (self.root.resolve(), *(hub.resolve() for hub in hubs if hub.is_dir()))

    def has(self, name: str) -> bool:
        """See `StoreFiles`."""
        return (self.root / name).exists()

    def sizes(self, folder: str) -> dict[str, tuple[int, int]]:
        """See `StoreFiles`."""
        return dict(sorted(self._below(self._checked(self.root / folder), "")))

    def _below(self, folder: Path, prefix: str) -> Iterator[tuple[str, tuple[int, int]]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    self._checked(Path(entry.path))
                status = entry.stat()
                if stat.S_ISDIR(status.st_mode):
                    if not entry.is_symlink():  # a linked folder could contain itself
                        yield from self._below(Path(entry.path), f"{prefix}{entry.name}/")
                elif stat.S_ISREG(status.st_mode):
                    yield prefix + entry.name, (status.st_size, status.st_mtime_ns)
                else:
                    raise ValueError(f"{entry.name} is not a plain file")

    def _checked(self, path: Path) -> Path:
        target = path.resolve()
        if not any(target.is_relative_to(folder) for folder in self._allowed):
            raise ValueError(f"{path.name} is a link that leaves the store (cp -rL copies without)")
        return path

    def open(self, name: str) -> BinaryIO:
        """See `StoreFiles`."""
        return self._checked(self.root / name).open("rb")

    def read(self, name: str, most: int) -> bytes:
        """See `StoreFiles`."""
        path = self._checked(self.root / name)
        if not path.is_file():
            raise ValueError(f"{path.name} is not a plain file")
        _check_size(path.name, path.stat().st_size, most)
        return path.read_bytes()

    def to_zarr(self, name: str) -> dict[str, Any]:
        """See `StoreFiles`."""
        return {"store": self.root / name}


@dataclass(frozen=True)
class ZipFiles:
    """The entries of a zip whose root, or only folder, is the store."""

    path: Path

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            zipped = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.path.name} is a broken zip: {error}") from error
        if len(zipped.filelist) > MAX_ENTRIES:
            raise ValueError(f"a zip may have {MAX_ENTRIES} entries, {self.path.name} has more")
        return zipped

    @cached_property
    def prefix(self) -> str:
        """The store's folder within the zip, "" or with "/" at its end."""
        groups = [
            name.removesuffix(group)
            for name in self._zip.namelist()
            for group in ROOT_GROUP.values()
            if name == group or name.endswith(f"/{group}")
        ]
        return min(groups, key=len, default="")

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        found = {entry.filename: entry for entry in self._zip.filelist if not entry.is_dir()}
        cut = len(self.prefix)
        return {n[cut:]: entry for n, entry in found.items() if n.startswith(self.prefix)}

    def has(self, name: str) -> bool:
        """See `StoreFiles`."""
        return name in self._entries or any(n.startswith(f"{name}/") for n in self._entries)

    def sizes(self, folder: str) -> dict[str, tuple[int, int]]:
        """See `StoreFiles`."""
        inside = f"{folder}/"
        found = {n: e for n, e in self._entries.items() if n.startswith(inside)}
        for name, entry in found.items():
            self._check(name, entry, MAX_ENTRY_BYTES)
        return {n[len(inside) :]: (e.file_size, e.CRC) for n, e in sorted(found.items())}

    def _check(self, name: str, entry: zipfile.ZipInfo, most: int) -> None:
        if entry.flag_bits & 1 or entry.compress_type not in _METHODS:
            raise ValueError(f"{name} must be stored or deflated and not encrypted in the zip")
        _check_size(name.rpartition("/")[2], entry.file_size, most)

    def open(self, name: str) -> BinaryIO:
        """See `StoreFiles`."""
        return self._zip.open(self._entries[name])  # type: ignore[return-value]

    def read(self, name: str, most: int) -> bytes:
        """See `StoreFiles`."""
        self._check(name, self._entries[name], most)
        try:
            return self._zip.read(self._entries[name])
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise ValueError(f"{name} cannot be read from the zip: {error}") from error

    def to_zarr(self, name: str) -> dict[str, Any]:
        """See `StoreFiles`."""
        from zarr.storage import ZipStore  # takes a second to import

        return {"store": ZipStore(self.path, mode="r"), "path": self.prefix + name}


def files_of(path: Path) -> FolderFiles | ZipFiles:
    """The files of the store at `path`, a folder or a zip."""
    return ZipFiles(path) if path.is_file() else FolderFiles(path)


def is_zip(path: Path) -> bool:
    """Whether the path is a zip file."""
    return path.is_file() and zipfile.is_zipfile(path)


def placeholder(head: bytes) -> str | None:
    """What a file is that holds a pointer in place of its content; None for any other.

    head: its first bytes, 24 or more.
    """
    if head.startswith(_LFS):
        return "is a Git LFS pointer, not the data: run `git lfs pull` in its repository"
    if head.startswith(b"../"):
        return "holds the target of a link as text: copy the data set again, with its links"
    return None


def _check_size(name: str, size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"{name} may have {most} bytes, it has {size}")

"""One array of a zarr store: checked without decoding anything, then decoded chunk by chunk.

Stores may come from strangers, so what zarr takes on trust is checked first, from the metadata and
the files alone: shapes are refused before memory is allocated, a missing chunk is a fault (zarr
fills it with zeros silently), a chunk must declare the size that its shape needs, only plain codecs
are decoded (numcodecs has one that unpickles), and no link may leave the store. Zarr v2, v3 and v3
with sharding are read, from a folder or a zip.
"""

import itertools
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ibc.data.store_files import ROOT_GROUP, FolderFiles, ZipFiles, files_of, is_zip
from ibc.data.zarr_chunks import Codecs, Shards, encoded_fault
from ibc.data.zarr_metadata import array_fields, read_json

MAX_ROWS = 1_000_000  # steps, forty times those of the human demonstrations: 0.5 GB of states
MAX_CHUNK_BYTES = 2**30  # a decoded chunk must fit in memory beside everything else
FAULTS_SHOWN = 3  # of one kind in one array; the count says how many there are


class StoreError(ValueError):
    """What is wrong with a store, in one sentence that names the array, and the chunk if any."""


@dataclass(frozen=True)
class StoredArray:
    """The metadata of one array, and access to the files that hold it."""

    name: str
    store: FolderFiles | ZipFiles
    zarr_format: Literal[2, 3]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]  # what one file holds: a chunk, or a shard of chunks
    dtype: np.dtype[Any]
    codecs: Codecs
    shards: Shards | None
    prefix: str
    separator: str

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of files along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    def _file(self, place: tuple[int, ...]) -> str:
        return self.prefix + self.separator.join(map(str, place))

    def _place(self, file: str) -> tuple[int, ...] | None:
        """The place of the grid that a file name stands for; None if there is none."""
        parts = file.removeprefix(self.prefix).split(self.separator)
        if len(parts) != len(self.grid) or not all(p.isdecimal() and len(p) < 16 for p in parts):
            return None
        place = tuple(map(int, parts))
        inside = all(i < n for i, n in zip(place, self.grid, strict=True))
        return place if inside and self._file(place) == file else None

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file of the array's folder with its size in bytes and its time or checksum."""
        try:
            return self.store.sizes(self.name)
        except ValueError as error:
            raise StoreError(f"{self.name}: {error}") from error

    def faults(self) -> list[str]:
        """Missing, truncated and oversized chunks; costs one short read for each chunk."""
        try:
            files = self.files()
        except StoreError as error:
            return [str(error)]
        present = {place for file in files if (place := self._place(file)) is not None}
        faults = []
        if missing := math.prod(self.grid) - len(present):
            absent = (place for place in places(self.grid) if place not in present)
            first = itertools.islice(absent, FAULTS_SHOWN)
            shown = ", ".join(map(self._file, first)) + (", ..." if missing > FAULTS_SHOWN else "")
            faults.append(
                f"{self.name}: {missing} of {math.prod(self.grid)} chunks are missing, because the "
                "copy is incomplete or zarr left out chunks that hold its fill value alone (write "
                f"the store again with write_empty_chunks=True): {shown}"
            )
        try:
            bad = [
                fault
                for place in sorted(present)
                for fault in self._file_faults(place, files[self._file(place)][0])
            ]
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            bad = [f"{self.name}: an entry of the zip is broken: {error}"]
        if len(bad) > FAULTS_SHOWN:
            bad[FAULTS_SHOWN:] = [f"{self.name}: {len(bad) - FAULTS_SHOWN} more broken chunks"]
        return faults + bad

    def _file_faults(self, place: tuple[int, ...], size: int) -> Iterator[str]:
        file = self._file(place)
        where = f"{self.name}: chunk {file}"
        with self.store.open(f"{self.name}/{file}") as stream:
            if self.shards is None:
                expected = math.prod(self.chunks) * self.dtype.itemsize
                if fault := encoded_fault(self.codecs, stream, 0, size, expected):
                    yield f"{where} {fault}"
                return
            index = self.shards.index(stream, size, self.chunks)
            if index is None:
                yield f"{where} is truncated or has a broken shard index"
                return
            expected = math.prod(self.shards.chunks) * self.dtype.itemsize
            for inner in places(index.shape[:-1]):
                corner = np.multiply(place, self.chunks) + np.multiply(inner, self.shards.chunks)
                if (corner >= self.shape).any():
                    continue  # beyond the array's end nothing needs to be stored
                offset, length = (int(n) for n in index[inner])
                label = f"{where}, part {self.separator.join(map(str, inner))}"
                if offset == length == Shards.ABSENT:
                    yield f"{label} is missing (zarr would fill it with a fill value)"
                elif offset + length > size:
                    yield f"{label} is truncated: it ends at byte {offset + length} of {size}"
                elif fault := encoded_fault(self.codecs, stream, offset, length, expected):
                    yield f"{label} {fault}"

    def blocks(self, at_least: int = 1) -> Iterator[NDArray[Any]]:
        """Yields the decoded rows in order, some whole chunks at a time; look at `faults` first.

        Raises StoreError where a chunk cannot be decoded.
        """
        rows = self.chunks[0] * max(1, -(-at_least // self.chunks[0]))
        for start in range(0, self.shape[0], rows):
            yield self.rows(start, min(start + rows, self.shape[0]))

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """The decoded rows from `start` to `stop`, without the last; StoreError as of `blocks`."""
        try:
            return np.asarray(self._opened[start:stop])
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"{self.name}: rows {start} to {stop - 1} cannot be decoded: {error}"
            ) from error

    @cached_property
    def _opened(self) -> Any:
        """The array as zarr opens it."""
        import zarr  # takes a second to import, so only where something is decoded

        try:
            opened = self.store.to_zarr(self.name)
            return zarr.open_array(**opened, mode="r", zarr_format=self.zarr_format)
        except Exception as error:
            raise StoreError(f"{self.name}: cannot be opened: {error}") from error

    def read(self) -> NDArray[Any]:
        """All rows, decoded."""
        return next(self.blocks(at_least=max(1, self.shape[0])), np.empty(self.shape, self.dtype))


def places(grid: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every place of a grid in order, one at a time (itertools.product would list each axis)."""
    if not grid:
        yield ()
        return
    for i in range(grid[0]):
        for rest in places(grid[1:]):
            yield (i, *rest)


def is_store(path: Path) -> bool:
    """Whether the path is a zarr store, v2 or v3: the folder of its root group, or a zip of it."""
    return not not_a_store(path)


def not_a_store(path: Path) -> str:
    """Why it is no zarr store, to follow "it", with the way out where there is one; "" if it is."""
    if not path.is_dir() and not is_zip(path):
        return "is a file" if path.is_file() else "does not exist"
    files = files_of(path)
    if any(files.has(group) for group in ROOT_GROUP.values()):
        return ""
    if not (files.has("data") and files.has("meta")):
        return "has neither .zgroup nor zarr.json"
    if files.has("data/zarr.json"):
        lacks, group = "zarr.json", '{"zarr_format": 3, "node_type": "group"}'
    else:
        lacks, group = ".zgroup", '{"zarr_format": 2}'
    return (
        f"lacks the root group, the file {lacks}, which copies without hidden files lose: copy it "
        f"again, or write {group} to it"
    )


def find(
    store: FolderFiles | ZipFiles, name: str, row_shape: tuple[int, ...], kinds: str
) -> StoredArray | None:
    """The array `name` of a store; None if there is no such folder.

    `row_shape` is the shape without the first axis, `kinds` the numpy kinds allowed ("f", "iu").
    Raises StoreError for metadata that is not JSON, is too large, or says something not allowed.
    """
    if not store.has(name):
        return None
    formats: tuple[tuple[Literal[2, 3], str], ...] = ((3, "zarr.json"), (2, ".zarray"))
    for zarr_format, file in formats:
        if store.has(f"{name}/{file}"):
            try:
                metadata = read_json(store, f"{name}/{file}")
                if zarr_format == 2 and store.has(f"{name}/.zattrs"):
                    read_json(store, f"{name}/.zattrs")  # zarr reads it too, whatever its size
                fields = array_fields(metadata, zarr_format)
            except (KeyError, TypeError, AttributeError) as error:
                raise StoreError(
                    f"{name}: {file} is not the metadata of an array: {error!r}"
                ) from error
            except ValueError as error:
                raise StoreError(f"{name}: {error}") from error
            break
    else:
        raise StoreError(f"{name}: the folder holds no array (neither .zarray nor zarr.json)")
    array = StoredArray(name=name, store=store, zarr_format=zarr_format, **fields)
    wanted = "(n" + "".join(f", {n}" for n in row_shape) + ("," if not row_shape else "") + ")"
    if array.shape[1:] != row_shape or not array.shape:
        raise StoreError(f"{name}: the shape must be {wanted}, got {array.shape}")
    if array.dtype.kind not in kinds:
        allowed = {"f": "floating point", "i": "integer", "u": "unsigned integer"}
        raise StoreError(
            f"{name}: the type must be {' or '.join(allowed[k] for k in kinds)}, got {array.dtype}"
        )
    if array.shape[0] > MAX_ROWS:
        raise StoreError(
            f"{name}: at most {MAX_ROWS} rows are read, the metadata declares {array.shape[0]}"
        )
    if math.prod(array.chunks) * array.dtype.itemsize > MAX_CHUNK_BYTES:
        raise StoreError(
            f"{name}: a chunk may decode to at most {MAX_CHUNK_BYTES} bytes, the metadata declares "
            f"chunks of {array.chunks} {array.dtype}"
        )
    return array

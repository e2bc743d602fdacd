"""One array of a zarr v2 store: rows are written beyond its end, then its shape is enlarged.

The zarr package does not promise the order of the writes, on which safety against kills rests. A
store may be hostile: only plain metadata and Blosc chunks are accepted, and a chunk's header is
compared with its file and its shape before it is decoded.
"""

import json
import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numcodecs import Blosc

MAX_CHUNK_BYTES = 2**30
MAX_ROWS = 10_000_000
_SHUFFLES = (Blosc.NOSHUFFLE, Blosc.SHUFFLE, Blosc.BITSHUFFLE)


@dataclass
class Array:
    """An array of shape (length, *row), chunked along its rows only."""

    folder: Path
    metadata: dict[str, Any]

    @classmethod
    def create(
        cls, folder: Path, row: tuple[int, ...], dtype: str, chunk_rows: int, level: int
    ) -> Self:
        """Create an array without rows."""
        folder.mkdir(parents=True)
        codec = {"blocksize": 0, "clevel": level, "cname": "zstd", "id": "blosc", "shuffle": 2}
        metadata = {
            "chunks": [chunk_rows, *row],
            "compressor": codec,
            "dtype": dtype,
            "fill_value": 0.0 if "f" in dtype else 0,
            "filters": None,
            "order": "C",
            "shape": [0, *row],
            "zarr_format": 2,
        }
        array = cls(folder, metadata)
        array.resize(0)
        return array

    @classmethod
    def open(cls, folder: Path, row: tuple[int, ...], dtype: str) -> Self:
        """Open an array of known rows; ValueError for another layout."""
        file = folder / ".zarray"
        try:
            metadata = json.loads(file.read_bytes()[: 2**20])
            length, *shape = metadata["shape"]
            chunk_rows, *chunk = metadata["chunks"]
            codec = metadata["compressor"]
            numbers = all(type(n) is int for n in (length, chunk_rows))
            plain = (
                numbers
                and 0 <= length <= MAX_ROWS
                and 0 < chunk_rows * math.prod(row) * np.dtype(dtype).itemsize <= MAX_CHUNK_BYTES
                and shape == chunk == list(row)
                and metadata["zarr_format"] == 2
                and metadata["dtype"] == dtype
                and metadata["order"] == "C"
                and not metadata["filters"]
                and metadata.get("dimension_separator", ".") == "."
                and (codec is None or (codec["id"] == "blosc" and codec["shuffle"] in _SHUFFLES))
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{file} must be the metadata of an array: {error!r}") from error
        if not plain:
            raise ValueError(
                f"{file} must be a zarr v2 array of {dtype} rows {row}, chunked by rows, without "
                f"compression or with Blosc; got {metadata}"
            )
        return cls(folder, metadata)

    @property
    def length(self) -> int:
        """The number of rows in the metadata."""
        length: int = self.metadata["shape"][0]
        return length

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """The shape of every chunk, the last included."""
        return tuple(self.metadata["chunks"])

    def put(self, rows: npt.ArrayLike) -> None:
        """Write rows after the last; readers do not see them before `resize`."""
        values = np.asarray(rows, dtype=self.metadata["dtype"])
        if values.shape[1:] != self.chunk_shape[1:]:
            raise ValueError(f"rows must be {self.chunk_shape[1:]}, got {values.shape[1:]}")
        size, start, stop = self.chunk_shape[0], self.length, self.length + len(values)
        for k in range(start // size, -(-stop // size)):
            chunk = np.zeros(self.chunk_shape, dtype=values.dtype)
            first, last = max(start, k * size), min(stop, (k + 1) * size)
            if first > k * size:
                chunk[: first - k * size] = self._chunk(k)[: first - k * size]
            chunk[first - k * size : last - k * size] = values[first - start : last - start]
            data = chunk.tobytes()
            if (codec := self.metadata["compressor"]) is not None:
                data = Blosc(codec["cname"], codec["clevel"], codec["shuffle"]).encode(chunk)
            write_file(self._file(k), data)

    def resize(self, length: int) -> None:
        """Set the number of rows that readers see, atomically."""
        metadata = {**self.metadata, "shape": [length, *self.metadata["shape"][1:]]}
        text = json.dumps(metadata, indent=4, sort_keys=True)
        write_file(self.folder / ".zarray", text.encode())
        self.metadata = metadata

    def read(self) -> npt.NDArray[Any]:
        """Return all rows."""
        chunks = [self._chunk(k) for k in range(-(-self.length // self.chunk_shape[0]))]
        empty = np.zeros((0, *self.chunk_shape[1:]), dtype=self.metadata["dtype"])
        return np.concatenate([empty, *chunks])[: self.length]

    def check_end(self) -> None:
        """Raise ValueError if the chunk of the next rows is damaged."""
        if self.length % self.chunk_shape[0]:
            self._chunk(self.length // self.chunk_shape[0])

    def _file(self, k: int) -> Path:
        return self.folder / ".".join(str(n) for n in (k, *(0 for _ in self.chunk_shape[1:])))

    def _chunk(self, k: int) -> npt.NDArray[Any]:
        file = self._file(k)
        try:
            stored = file.read_bytes()
        except FileNotFoundError as error:
            raise ValueError(f"{file} is missing: the store is damaged") from error
        dtype = np.dtype(self.metadata["dtype"])
        expected = math.prod(self.chunk_shape) * dtype.itemsize
        if self.metadata["compressor"] is None:
            whole = len(stored) == expected
        else:
            # Blosc's header: the decoded size, then (after the block's) the encoded one.
            decoded, encoded = (int.from_bytes(stored[at : at + 4], "little") for at in (4, 12))
            whole = len(stored) >= 16 and (decoded, encoded) == (expected, len(stored))
        if not whole:
            raise ValueError(f"{file} is truncated or of another shape: the store is damaged")
        if self.metadata["compressor"] is not None:
            try:
                stored = Blosc().decode(stored)
            except RuntimeError as error:
                raise ValueError(f"{file} cannot be decoded: the store is damaged") from error
        return np.frombuffer(stored, dtype).reshape(self.chunk_shape)


def write_file(file: Path, data: bytes) -> None:
    """Write a file atomically: after a kill it is the old one or the new one."""
    temporary = file.with_name(f".{file.name}.tmp-{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""A memory-mapped uint8 copy of a data set's images, made once on a machine and shared.

The file is a plain .npy of shape (L, 96, 96, 3), followed by one line of JSON with its source and
the hash of its pixels; numpy ignores what follows the array.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_SHAPE = (96, 96, 3)
MAX_NOTE_BYTES = 4096
Blocks = Callable[[], Iterator[NDArray[np.uint8]]]


def to_uint8(block: NDArray[Any], name: str, start: int) -> NDArray[np.uint8]:
    """Images (n, 96, 96, 3), uint8 or floating point with the values 0 to 255, as uint8.

    ValueError for other values, with the array and the row; start: the row of the first image.
    """
    if block.dtype == np.uint8:
        return block
    with np.errstate(invalid="ignore"):
        converted = block.astype(np.uint8)
    if np.array_equal(converted, block):
        return converted
    row = int(np.argmax((converted != block).reshape(len(block), -1).any(axis=1)))
    value = float(block[row][converted[row] != block[row]][0])
    hint = "; multiply by 255 if the images run from 0 to 1" if 0 < value < 1 else ""
    raise ValueError(
        f"{name}: images must hold the integers 0 to 255, row {start + row} holds {value!r}{hint}"
    )


def open_images(
    file: Path, source: str, length: int, blocks: Blocks
) -> tuple[NDArray[np.uint8], str]:
    """The images of `file`, made from `blocks` if the file is missing or of another source.

    Returns the memory-mapped (L, 96, 96, 3) uint8 array, read-only, and the hash of its pixels.
    Several processes may call this at once: one writes, the others wait. OSError if the folder
    cannot be written or the disk is too full.
    """
    if (found := _open(file, source, length)) is not None:
        return found
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file.with_name(file.name + ".lock")):
        if (found := _open(file, source, length)) is None:
            _write(file, source, length, blocks)
            found = _open(file, source, length)
    assert found is not None, f"{file} was written and cannot be opened"
    return found


def digest(blocks: Iterator[NDArray[np.uint8]]) -> str:
    """The hash of the pixels, whatever the blocks' sizes."""
    sha = hashlib.sha256()
    for block in blocks:
        sha.update(np.ascontiguousarray(block).data)
    return sha.hexdigest()


def _open(file: Path, source: str, length: int) -> tuple[NDArray[np.uint8], str] | None:
    """The images, or None if the file is missing, torn or of another source."""
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
        end = int(images.offset) + images.nbytes
        with file.open("rb") as stream:
            stream.seek(end)
            note = json.loads(stream.read(MAX_NOTE_BYTES))
    except (FileNotFoundError, ValueError, EOFError, AttributeError):
        return None
    if images.shape != (length, *IMAGE_SHAPE) or images.dtype != np.uint8:
        return None
    if not isinstance(note, dict) or note.get("source") != source:
        return None
    return np.asarray(images), str(note["pixels"])


def _write(file: Path, source: str, length: int, blocks: Blocks) -> None:
    needed = length * int(np.prod(IMAGE_SHAPE))
    free = shutil.disk_usage(file.parent).free
    if free < needed:
        raise OSError(
            f"the image cache {file} needs {needed / 2**20:.0f} MiB, {free / 2**20:.0f} are free"
        )
    temporary = file.with_name(file.name + ".tmp")  # one writer: the lock is held
    try:
        with temporary.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (length, *IMAGE_SHAPE)}
            np.lib.format.write_array_header_1_0(stream, header)
            sha = hashlib.sha256()
            rows = 0
            for block in blocks():
                assert block.dtype == np.uint8, block.dtype
                assert block.shape[1:] == IMAGE_SHAPE, block.shape
                data = np.ascontiguousarray(block).data
                sha.update(data)
                stream.write(data)
                rows += len(block)
            assert rows == length, f"{rows} images were made for {length} rows"
            note = {"source": source, "pixels": sha.hexdigest()}
            stream.write(json.dumps(note).encode())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Holds an advisory lock, which the system releases when its process ends."""
    import fcntl  # POSIX only; without it one can still train on states and keypoints

    with file.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

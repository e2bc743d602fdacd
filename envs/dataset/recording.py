"""Demonstrations on the disk: a zarr v2 store in Diffusion Policy's layout, safe against kills.

float32: data/state (L, 5) px and rad, before each action; data/action (L, 2) px, the executed
target; data/keypoint (L, 9, 2) px; data/img (L, 96, 96, 3), 0 to 255; data/n_contacts (L, 1).
int64: meta/episode_ends (E,) and meta/seeds (E,), the seeds of the legacy resets.

A new store appears whole or not at all. An appended episode becomes visible with the last write:
first chunks, whose rows beyond an array's shape are not read, then the shapes of the data, last the
shape of episode_ends. The next opening removes the rest of an interrupted append.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from envs.dataset.zarr_array import Array, write_file

Rows = Mapping[str, npt.NDArray[Any]]  # the arrays of one episode, by the names below
ARRAYS: dict[str, tuple[tuple[int, ...], str]] = {  # the shape of a row, and the type
    "data/state": ((5,), "<f4"),
    "data/action": ((2,), "<f4"),
    "data/keypoint": ((9, 2), "<f4"),
    "data/img": ((96, 96, 3), "<f4"),
    "data/n_contacts": ((1,), "<f4"),
    "meta/episode_ends": ((), "<i8"),
    "meta/seeds": ((), "<i8"),
}
REQUIRED = {"data/state", "data/action", "meta/episode_ends"}
CHUNK_ROWS = 161  # as in the recorded demonstrations
CHUNK_EPISODES = 1024
_TEMPORARY = ".tmp-"


def write(
    path: Path,
    episodes: Sequence[Rows],
    seeds: Sequence[int],
    *,
    chunk_rows: int | None = None,
    level: int = 9,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a new store, whole or not at all; `chunk_rows` None: one chunk per array.

    Every episode has the same arrays. `attributes`: plain values for the store's .zattrs. OSError
    if the file system refuses.
    """
    values = {
        f"data/{name}": np.concatenate([episode[name] for episode in episodes])
        for name in episodes[0]
    }
    values["meta/episode_ends"] = np.cumsum([len(e["action"]) for e in episodes], dtype=np.int64)
    values["meta/seeds"] = np.array(seeds, dtype=np.int64)
    temporary = path.parent / f".{path.name[:60]}{_TEMPORARY}{secrets.token_hex(6)}"
    try:
        for name, array in values.items():
            rows = len(array)
            if chunk_rows is not None:
                rows = chunk_rows if name.startswith("data/") else CHUNK_EPISODES
            new = Array.create(temporary / name, *ARRAYS[name], rows, level)
            new.put(array)
            new.resize(len(array))
        for folder in (temporary / "data", temporary / "meta", temporary):
            write_file(folder / ".zgroup", b'{\n    "zarr_format": 2\n}')
        if attributes is not None:
            write_file(temporary / ".zattrs", json.dumps(attributes, indent=1).encode())
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


class Recording:
    """A new or existing store to which one process appends episodes.

    `episodes`, `steps` and `seeds` (None in a store without seeds) describe its content. ValueError
    for a store of another layout, a damaged one, one to which another process appends, and an
    unwritable folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.episodes, self.steps = 0, 0
        self.seeds: list[int] | None = []
        self._arrays: dict[str, Array] = {}
        self._lock = _locked(path)
        try:
            for left in path.parent.glob(f".{path.name[:60]}{_TEMPORARY}*"):
                shutil.rmtree(left)  # of a killed process: the lock is ours
            if path.exists():
                self._open()
                if not all(os.access(array.folder, os.W_OK) for array in self._arrays.values()):
                    raise ValueError(f"{path} must be writable")
        except OSError as error:
            self.close()
            raise ValueError(f"{path} must be readable and writable: {error}") from error
        except BaseException:
            self.close()
            raise

    def append(self, episode: Rows, seed: int) -> None:
        """Write an episode to the disk; OSError, and an unchanged store, if that fails."""
        length = len(episode["action"])
        if length < 1:
            raise ValueError("an episode must have at least one step, got none")
        if not self._arrays:
            write(self.path, [episode], [seed], chunk_rows=CHUNK_ROWS, level=5)
            self._open()
            return
        episodes, steps = self.episodes + 1, self.steps + length
        meta = {"meta/seeds": [seed], "meta/episode_ends": [steps]}
        data = {n: episode[n[5:]] for n in self._arrays if n.startswith("data/")}
        # The ends come last: they make the episode visible.
        rows = {name: rows for name, rows in (data | meta).items() if name in self._arrays}
        for name, values in rows.items():
            self._arrays[name].put(values)
        try:
            for name in rows:
                self._arrays[name].resize(steps if name in data else episodes)
        except OSError:
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self.episodes, self.steps = episodes, steps
        if self.seeds is not None:
            self.seeds.append(seed)

    def close(self) -> None:
        """Release the lock."""
        if not self._lock.closed:
            _lock_file(self.path).unlink(missing_ok=True)
            self._lock.close()

    def _open(self) -> None:
        if not (self.path / ".zgroup").is_file():
            raise ValueError(f"--out must be a new name or a zarr v2 store, {self.path} is neither")
        names = [
            f"{group}/{folder.name}"
            for group in ("data", "meta")
            for folder in sorted((self.path / group).glob("[!.]*"))
            if folder.is_dir()
        ]
        strange, lacking = sorted({*names} - {*ARRAYS}), sorted(REQUIRED - {*names})
        if strange or lacking:
            fault = f"it also has {strange}" if strange else f"it lacks {lacking}"
            raise ValueError(
                "episodes are appended to stores in Diffusion Policy's layout "
                f"({', '.join(ARRAYS)}), {self.path} is another: {fault}"
            )
        self._arrays = {name: Array.open(self.path / name, *ARRAYS[name]) for name in names}
        self._cut()
        for array in self._arrays.values():
            array.check_end()

    def _cut(self) -> None:
        """Remove the rows beyond the last whole episode."""
        found = self._arrays["meta/episode_ends"]
        ends = found.read()
        self.episodes = len(ends)
        self.steps = int(ends[-1]) if len(ends) else 0
        if (np.diff(ends, prepend=0) <= 0).any():
            raise ValueError(f"the ends of episodes must increase, those of {self.path} do not")
        for name, array in self._arrays.items():
            wanted = self.steps if name.startswith("data/") else self.episodes
            if array.length < wanted:
                raise ValueError(
                    f"{name} must have {wanted} rows, as {self.path} has {self.episodes} episodes, "
                    f"got {array.length}: the store is damaged"
                )
            if array.length > wanted:
                array.resize(wanted)
        seeds = self._arrays.get("meta/seeds")
        self.seeds = None if seeds is None else seeds.read().tolist()


def sync(folder: Path) -> None:
    """Make the names in a folder durable: a power cut may otherwise undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> Path:
    return path.parent / f".{path.name[:60]}.lock"


def _locked(path: Path) -> IO[bytes]:
    """Return the open lock file of a store; ValueError if another process appends to it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = _lock_file(path).open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last holder may have removed it between the two calls.
                if os.fstat(file.fileno()).st_ino == _lock_file(path).stat().st_ino:
                    break
            except FileNotFoundError:
                pass
            except BlockingIOError:
                file.close()
                raise ValueError(f"one process at a time appends to {path}, another does") from None
            file.close()
    except OSError as error:
        raise ValueError(f"the folder of --out must be writable: {error}") from error
    return file

"""Demonstrations: a zarr store in Diffusion Policy's layout, checked arrays, a split by episode.

The store has data/action (L, 2) px, data/state (L, 5) px and rad, and meta/episode_ends (E,); it
may have data/keypoint (L, 9, 2) px and data/img (L, 96, 96, 3), uint8 or floating point 0 to 255.
Row t holds what was seen at step t and the action then taken. L steps in all, E episodes.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibc import image_cache
from ibc.windows import Windows
from ibc.zarr_store import StoredArray, StoreError, find, is_store

__all__ = ["Demos", "Split", "SplitConfig", "Windows", "check", "fingerprint", "read", "split"]

LARGEST_PX = 2048.0  # four boards; beyond it a coordinate is not a position in px
RENDERED_AT_ONCE = 256
FAULTS_RAISED = 3

# array -> its shape without the first axis, the kinds of numbers allowed, whether it must be there
LAYOUT: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "meta/episode_ends": ((), "iu", True),
    "data/action": ((2,), "f", True),
    "data/state": ((5,), "f", True),
    "data/keypoint": ((9, 2), "f", False),
    "data/img": (image_cache.IMAGE_SHAPE, "fu", False),
}

Render = Callable[[NDArray[np.float64]], NDArray[np.uint8]]
Keypoints = Callable[[NDArray[np.float64]], NDArray[np.floating[Any]]]


@dataclass(frozen=True, eq=False)
class Demos:
    """The checked arrays of one data set, all read-only.

    action (L, 2) px, state (L, 5) px and rad, keypoints (L, 20) px (nine of the block, then the
    agent), all float32; episode_ends (E,) int64; images (L, 96, 96, 3) uint8, memory-mapped, or
    None. The fingerprint is a hash over the stored arrays as decoded, images included.
    """

    path: str
    fingerprint: str
    action: NDArray[np.float32]
    state: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    episode_ends: NDArray[np.int64]
    images: NDArray[np.uint8] | None

    @property
    def episode_starts(self) -> NDArray[np.int64]:
        """The first row of each episode, (E,)."""
        return np.concatenate([[0], self.episode_ends[:-1]]).astype(np.int64)


@dataclass(frozen=True)
class SplitConfig:
    """Which episodes train and which are held out for validation."""

    val_share: float = 0.1
    split_seed: int = 0
    train_episodes: int | None = None  # None: all that are not held out

    def __post_init__(self) -> None:
        if isinstance(self.val_share, bool) or not 0 <= self.val_share < 1:
            raise ValueError(f"val_share must be in [0, 1), got {self.val_share!r}")
        if type(self.split_seed) is not int or self.split_seed < 0:
            raise ValueError(f"split_seed must be an integer >= 0, got {self.split_seed!r}")
        n = self.train_episodes
        if n is not None and (type(n) is not int or n < 1):
            raise ValueError(f"train_episodes must be an integer >= 1 or null, got {n!r}")


@dataclass(frozen=True)
class Split:
    """Numbers of episodes, ascending; no episode is in both."""

    train_episodes: tuple[int, ...]
    val_episodes: tuple[int, ...]


def split(demos: Demos, config: SplitConfig) -> Split:
    """Divides a data set by episode, the same way for the same seed and number of episodes.

    The held-out episodes do not depend on `train_episodes`, and a smaller number of training
    episodes is a subset of a larger one. ValueError if there are fewer episodes than asked for.
    """
    total = len(demos.episode_ends)
    order = np.random.default_rng(config.split_seed).permutation(total)
    held_out = round(config.val_share * total)
    if config.val_share > 0:
        held_out = max(1, held_out)
    left = total - held_out
    wanted = left if config.train_episodes is None else config.train_episodes
    if not 1 <= wanted <= left:
        raise ValueError(
            f"train_episodes must be 1 to {left} ({total} episodes less {held_out} for "
            f"validation), got {wanted}"
        )
    train, val = order[held_out : held_out + wanted], order[:held_out]
    return Split(tuple(sorted(train.tolist())), tuple(sorted(val.tolist())))


def read(
    path: str | Path,
    *,
    images: Path | None = None,
    render: Render | None = None,
    keypoints: Keypoints | None = None,
    pixels: str | None = None,
) -> Demos:
    """Reads a data set that is right, and refuses one that is not.

    `images` is the file of the uint8 cache, made if need be; without it Demos.images is None.
    `render` ((n, 5) states -> (n, 96, 96, 3) uint8) draws the images where the store has none,
    `keypoints` ((n, 5) -> (n, 20)) computes what data/keypoint would hold. `pixels` is the
    `pixels_hash` of this store if the caller remembers it: the fingerprint covers the images, and
    hashing them takes seconds. Raises ValueError with the first faults (`check` gives all), OSError
    if the cache cannot be written.
    """
    root = Path(path)
    stored, faults = _survey(root)
    _refuse(root, faults)
    arrays, faults = _decode(stored)
    _refuse(root, faults)
    image = stored.get("data/img")
    length = len(arrays["data/action"])
    opened = None
    try:
        if images is not None and image is not None:
            opened, pixels = image_cache.open_images(
                images, _signature(image), length, lambda: _pixels(image)
            )
        elif images is not None:
            if render is None:
                raise StoreError(
                    "data/img: is missing, and nothing was given to draw the images with"
                )
            states = arrays["data/state"].astype(np.float64)
            opened, _ = image_cache.open_images(
                images, "rendered " + _hash(arrays, None), length, lambda: _drawn(states, render)
            )
        elif image is not None and pixels is None:
            pixels = image_cache.digest(_pixels(image))
    except ValueError as error:
        _refuse(root, [str(error)])
    return Demos(
        path=str(root),
        fingerprint=_hash(arrays, pixels if image is not None else None),
        action=_frozen(arrays["data/action"]),
        state=_frozen(arrays["data/state"]),
        keypoints=_frozen(_all_keypoints(root, arrays, keypoints)),
        episode_ends=_frozen(arrays["meta/episode_ends"]),
        images=opened,
    )


def check(path: str | Path) -> list[str]:
    """Every fault of a data set, each naming the array and, where it has one, the chunk or row.

    Decodes everything, images included (seconds); memory stays at a few chunks.
    """
    stored, faults = _survey(Path(path))
    if not faults:
        _, faults = _decode(stored)
    image = stored.get("data/img")
    if image is not None and not any(fault.startswith(image.name) for fault in faults):
        try:
            for _ in _pixels(image):
                pass
        except ValueError as error:
            faults.append(str(error))
    return faults


def signature(path: str | Path) -> str:
    """A hash over the files' names, sizes and times: it changes when the data set is written."""
    stored, faults = _survey(Path(path), chunks=False)
    _refuse(Path(path), faults)
    parts = [_signature(stored[name]) for name in sorted(stored)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def pixels_hash(path: str | Path) -> str | None:
    """The hash of the images as uint8, which takes seconds; None where the store has none."""
    stored, faults = _survey(Path(path))
    _refuse(Path(path), faults)
    image = stored.get("data/img")
    return None if image is None else image_cache.digest(_pixels(image))


def fingerprint(path: str | Path) -> str:
    """The hash over the arrays as decoded: the same for any chunking, compression or format."""
    stored, faults = _survey(Path(path))
    _refuse(Path(path), faults)
    arrays, faults = _decode(stored)
    _refuse(Path(path), faults)
    image = stored.get("data/img")
    return _hash(arrays, None if image is None else image_cache.digest(_pixels(image)))


def _refuse(root: Path, faults: list[str]) -> None:
    if faults:
        more = f" (and {len(faults) - FAULTS_RAISED} more)" if len(faults) > FAULTS_RAISED else ""
        raise ValueError(f"{root}: " + "; ".join(faults[:FAULTS_RAISED]) + more)


def _survey(root: Path, *, chunks: bool = True) -> tuple[dict[str, StoredArray], list[str]]:
    """What the store has and what its metadata and files show to be wrong, without decoding."""
    if not root.exists():
        return {}, ["there is no such data set"]
    if not root.is_dir() or not is_store(root):
        return {}, [
            "a data set must be the folder of a zarr store, with .zgroup or zarr.json in it"
        ]
    stored, faults = {}, []
    for name, (row_shape, kinds, required) in LAYOUT.items():
        try:
            array = find(root, name, row_shape, kinds)
        except StoreError as error:
            faults.append(str(error))
            continue
        if array is not None:
            stored[name] = array
            if chunks:
                faults += array.faults()
        elif required:
            faults.append(f"{name}: is missing")
    lengths = {n: a.shape[0] for n, a in stored.items() if n.startswith("data/")}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        faults.append(f"the arrays under data/ must have the same number of rows: {said}")
    return stored, faults


def _decode(stored: Mapping[str, StoredArray]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays except the images, float32 and int64, and what is wrong with their values."""
    arrays, faults = {}, []
    for name, array in stored.items():
        if name == "data/img":
            continue
        try:
            values = array.read()
        except StoreError as error:
            faults.append(str(error))
            continue
        if name == "meta/episode_ends":
            arrays[name] = values.astype(np.int64)
        else:
            faults += _value_faults(name, values)
            with np.errstate(over="ignore", invalid="ignore"):
                arrays[name] = values.astype(np.float32)
    if {"meta/episode_ends", "data/action"} <= arrays.keys():
        faults += _ends_faults(arrays["meta/episode_ends"], len(arrays["data/action"]))
    return arrays, faults


def _ends_faults(ends: NDArray[np.int64], length: int) -> list[str]:
    name = "meta/episode_ends"
    if len(ends) == 0 or length == 0:
        return [f"{name}: there must be at least one episode"]
    steps = np.diff(ends, prepend=0)
    if (steps <= 0).any():
        k = int(np.argmax(steps <= 0))
        return [f"{name}: the ends must increase from 1 on, entry {k} is {ends[k]}"]
    if ends[-1] != length:
        past = "past the end of" if ends[-1] > length else "before the end of"
        return [
            f"{name}: the last entry must be the number of steps, {ends[-1]} is {past} {length}"
        ]
    return []


def _value_faults(name: str, values: NDArray[Any]) -> list[str]:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        return [
            f"{name}: the numbers must be finite, {len(rows)} rows are not, the first is {rows[0]}"
        ]
    positions = values[:, :4] if name == "data/state" else values
    largest = float(np.abs(positions).max(initial=0.0))
    if largest > LARGEST_PX:
        return [f"{name}: positions are in px, at most {LARGEST_PX:g} from 0, got {largest:g}"]
    if name == "data/action" and len(values) and largest <= 2:
        return [f"{name}: targets are in px, these lie within {largest:g} of 0 and look normalised"]
    return []


def _pixels(image: StoredArray) -> Iterator[NDArray[np.uint8]]:
    start = 0
    for block in image.blocks():
        yield image_cache.to_uint8(block, image.name, start)
        start += len(block)


def _drawn(states: NDArray[np.float64], render: Render) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(states), RENDERED_AT_ONCE):
        yield render(states[start : start + RENDERED_AT_ONCE])


def _all_keypoints(
    root: Path, arrays: Mapping[str, NDArray[Any]], keypoints: Keypoints | None
) -> NDArray[np.float32]:
    state, stored = arrays["data/state"], arrays.get("data/keypoint")
    if stored is not None:
        return np.concatenate([stored.reshape(len(stored), 18), state[:, :2]], axis=1)
    if keypoints is None:
        _refuse(root, ["data/keypoint: is missing, and nothing was given to compute it with"])
    assert keypoints is not None
    computed = np.asarray(keypoints(state.astype(np.float64)), dtype=np.float32)
    assert computed.shape == (len(state), 20), computed.shape
    return computed


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def _signature(array: StoredArray) -> str:
    return hashlib.sha256(repr((array.name, sorted(array.files().items()))).encode()).hexdigest()


def _hash(arrays: Mapping[str, NDArray[Any]], pixels: str | None) -> str:
    sha = hashlib.sha256(b"pusht demonstrations 1")
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"\n{name} {array.shape} {array.dtype.kind}\n".encode())
        sha.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    sha.update(f"\nimages {pixels}\n".encode())
    return sha.hexdigest()

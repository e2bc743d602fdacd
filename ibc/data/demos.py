"""Demonstrations: a zarr store in Diffusion Policy's layout, checked arrays, a split by episode.

The store, a folder or a zip, has data/action (L, 2) px, data/state (L, 5) px and rad, and
meta/episode_ends (E,); it may have data/keypoint (L, 9, 2) px, data/img or data/image
(L, 96, 96, 3), uint8 or floating point 0 to 255, and meta/seeds (E,), the resets that the episodes
began with.
Row t holds what was seen at step t and the action then taken. L steps in all, E episodes.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibc.config.checks import check as check_rule
from ibc.config.training import SplitConfig
from ibc.data import image_cache
from ibc.data.layout import decode, pixels_of, survey
from ibc.data.zarr_store import StoredArray, StoreError

RENDERED_AT_ONCE = 256
FAULTS_RAISED = 3
GOAL_PX, GOAL_SHARE = 40.0, 0.8
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
    images: "NDArray[np.uint8] | JoinedImages | None"
    pixels: str | None = None  # the hash of the stored images as uint8, None where it has none
    seeds: NDArray[np.int64] | None = None  # of the episodes' resets (E,), where they are recorded
    sets: tuple[int, ...] = ()  # episodes of each data set, where several were joined

    @property
    def episode_starts(self) -> NDArray[np.int64]:
        """The first row of each episode, (E,)."""
        return np.concatenate([[0], self.episode_ends[:-1]]).astype(np.int64)

    @property
    def set_rows(self) -> list[slice]:
        """The rows of each data set."""
        ends = self.episode_ends[np.cumsum(self.sets or (len(self.episode_ends),)) - 1].tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class JoinedImages:
    """The images of several data sets behind one index, each still mapped from its own file."""

    def __init__(self, parts: Sequence["NDArray[np.uint8] | JoinedImages"]) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images (..., 96, 96, 3) of an array of rows."""
        rows = np.asarray(rows)
        found = np.empty((*rows.shape, *image_cache.IMAGE_SHAPE), np.uint8)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for k, part in enumerate(self.parts):
            found[owner == k] = part[rows[owner == k] - self._starts[k]]
        return found


def join(demos: Sequence[Demos]) -> Demos:
    """Several data sets as one, their episodes one set after the other.

    The fingerprint is a hash over those of the sets. ValueError if only some of them have images.
    """
    if len(demos) == 1:
        return demos[0]
    images = [each.images for each in demos if each.images is not None]
    rule = "data sets to be joined must all be read with images, or none"
    check_rule(len(images) in (0, len(demos)), rule, [each.path for each in demos])
    lengths = np.cumsum([0, *(len(each.action) for each in demos)])
    ends = [each.episode_ends + start for each, start in zip(demos, lengths, strict=False)]
    seeds = [each.seeds for each in demos if each.seeds is not None]
    return Demos(
        path=" + ".join(each.path for each in demos),
        fingerprint=hashlib.sha256(" ".join(d.fingerprint for d in demos).encode()).hexdigest(),
        action=_frozen(np.concatenate([each.action for each in demos])),
        state=_frozen(np.concatenate([each.state for each in demos])),
        keypoints=_frozen(np.concatenate([each.keypoints for each in demos])),
        episode_ends=_frozen(np.concatenate(ends)),
        images=JoinedImages(images) if images else None,
        seeds=_frozen(np.concatenate(seeds)) if len(seeds) == len(demos) else None,
        sets=tuple(len(each.episode_ends) for each in demos),
    )


def goals(demos: Demos) -> list[tuple[float, float, float] | None]:
    """The block's pose (x, y px, angle rad) in which the episodes of each data set end.

    None where fewer than GOAL_SHARE of them end within GOAL_PX of their median.
    """
    found: list[tuple[float, float, float] | None] = []
    first = 0
    for count in demos.sets or (len(demos.episode_ends),):
        last = demos.state[demos.episode_ends[first : first + count] - 1, 2:].astype(np.float64)
        first += count
        x, y = np.median(last[:, :2], axis=0)
        near = last[np.hypot(last[:, 0] - x, last[:, 1] - y) <= GOAL_PX]
        if len(near) < GOAL_SHARE * count:
            found.append(None)
            continue
        angle = math.atan2(np.sin(near[:, 2]).mean(), np.cos(near[:, 2]).mean())
        found.append((float(x), float(y), angle % (2 * math.pi)))
    return found


@dataclass(frozen=True)
class Split:
    """Numbers of episodes, ascending; no episode is in both."""

    train_episodes: tuple[int, ...]
    val_episodes: tuple[int, ...]


def split(demos: Demos, config: SplitConfig) -> Split:
    """Divides each data set by episode, deterministically for a seed and a number of episodes.

    The held-out episodes do not depend on `train_episodes`, and fewer training episodes are a
    subset of more. Validation uses the held-out ones of the first set; sets with a share of 0 are
    left out. ValueError if there are fewer episodes than asked for.
    """
    sets = demos.sets or (len(demos.episode_ends),)
    rule = f"split.shares must be empty or one for each of {len(sets)} data sets"
    check_rule(len(config.shares) in (0, len(sets)), rule, config.shares)
    train: list[int] = []
    val: list[int] = []
    for k, (total, first) in enumerate(zip(sets, np.cumsum([0, *sets]).tolist(), strict=False)):
        order = np.random.default_rng(config.split_seed).permutation(total) + first
        held_out = round(config.val_share * total)
        if config.val_share > 0:
            held_out = max(1, held_out)
        left = total - held_out
        wanted = left if config.train_episodes is None or k > 0 else config.train_episodes
        if not 1 <= wanted <= left:
            raise ValueError(
                f"train_episodes must be 1 to {left} ({total} episodes less {held_out} for "
                f"validation), got {wanted}"
            )
        if not config.shares or config.shares[k] > 0.0:
            train += order[held_out : held_out + wanted].tolist()
        if k == 0:
            val = order[:held_out].tolist()
    return Split(tuple(sorted(train)), tuple(sorted(val)))


def read(
    path: str | Path,
    *,
    images: Path | None = None,
    render: Render | None = None,
    render_version: str = "",
    keypoints: Keypoints | None = None,
    pixels: str | None = None,
) -> Demos:
    """The checked data set; ValueError with its first faults (`check` gives all of them).

    images: the file of the uint8 cache, made where it is missing; without it Demos.images is None.
    render: (n, 5) states to (n, 96, 96, 3) uint8, draws the images where the store has none;
    render_version names its code, so that older drawings are not used. keypoints: (n, 5) to
    (n, 20), computes what data/keypoint would hold. pixels: Demos.pixels of this store, if known,
    because hashing the images for the fingerprint takes seconds. OSError if the cache cannot be
    written.
    """
    root = Path(path)
    stored, arrays = _checked(root)
    image = stored.get("data/img")
    length = len(arrays["data/action"])
    opened = None
    drawing = f"drawn {render_version} {_hash(arrays, None)}"
    try:
        if images is not None and image is not None:
            opened, pixels = image_cache.open_images(
                images, _signature(image), length, lambda: pixels_of(image)
            )
        elif images is not None:
            if render is None:
                raise StoreError("data/img: is missing, and nothing was given to draw it with")
            states = arrays["data/state"].astype(np.float64)
            opened, _ = image_cache.open_images(
                images, drawing, length, lambda: _drawn(states, render)
            )
        elif image is not None and pixels is None:
            pixels = image_cache.digest(pixels_of(image))
    except ValueError as error:
        _refuse(root, [str(error)])
    return Demos(
        path=str(root),
        fingerprint=_hash(arrays, None if image is None else pixels),
        action=_frozen(arrays["data/action"]),
        state=_frozen(arrays["data/state"]),
        keypoints=_frozen(_all_keypoints(root, arrays, keypoints)),
        episode_ends=_frozen(arrays["meta/episode_ends"]),
        images=opened,
        pixels=None if image is None else pixels,
        seeds=_frozen(arrays["meta/seeds"]) if "meta/seeds" in arrays else None,
    )


def check(path: str | Path) -> list[str]:
    """Every fault of a data set, each naming the array and, if it has one, the chunk or row.

    Decodes everything, images included, in seconds and with memory for a few chunks.
    """
    stored, faults = survey(Path(path))
    healthy = {name: a for name, a in stored.items() if not any(a.name in f for f in faults)}
    faults += decode(healthy)[1]
    if (image := healthy.get("data/img")) is not None:
        try:
            for _ in pixels_of(image):
                pass
        except ValueError as error:
            faults.append(str(error))
    return faults


def images_at(path: str | Path, rows: Sequence[int]) -> NDArray[np.uint8] | None:
    """The images (n, 96, 96, 3) of some rows; None where the data set stores none.

    ValueError for images that are not exact.
    """
    image = survey(Path(path), chunks=False)[0].get("data/img")
    if image is None:
        return None
    each = [image_cache.to_uint8(image.rows(row, row + 1), image.name, row) for row in rows]
    return np.concatenate([np.empty((0, *image_cache.IMAGE_SHAPE), np.uint8), *each])


def image_array(path: str | Path) -> str:
    """The name of the array that holds a data set's images."""
    return survey(Path(path), chunks=False)[0]["data/img"].name


def signature(path: str | Path) -> str:
    """A hash over the files' names, sizes and times: it changes when the data set is written."""
    stored, faults = survey(Path(path), chunks=False)
    _refuse(Path(path), faults)
    parts = [_signature(stored[name]) for name in sorted(stored)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def fingerprint(path: str | Path) -> str:
    """The hash over the arrays as decoded: the same for any chunking, compression or format."""
    stored, arrays = _checked(Path(path))
    image = stored.get("data/img")
    return _hash(arrays, None if image is None else image_cache.digest(pixels_of(image)))


def _refuse(root: Path, faults: list[str]) -> None:
    if faults:
        more = f" (and {len(faults) - FAULTS_RAISED} more)" if len(faults) > FAULTS_RAISED else ""
        raise ValueError(f"{root}: " + "; ".join(faults[:FAULTS_RAISED]) + more)


def _checked(root: Path) -> tuple[dict[str, StoredArray], dict[str, NDArray[Any]]]:
    stored, faults = survey(root)
    _refuse(root, faults)
    arrays, faults = decode(stored)
    _refuse(root, faults)
    return stored, arrays


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

"""Diffusion Policy's layout of a data set: which arrays it has, and what can be wrong with them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibc.data import image_cache
from ibc.data.store_files import files_of
from ibc.data.zarr_store import StoredArray, StoreError, find, not_a_store

LARGEST_PX = 2048.0  # four boards; beyond it a coordinate is not a position in px
LARGEST_RAD = 10 * np.pi  # five turns, should an angle not be taken modulo one
DECODED_AT_ONCE = 256  # images: zarr takes longer to start a read than to decode one image
LARGEST_SEED = 2**32 - 1  # of numpy's RandomState, from which the reset draws


# array -> its shape without the first axis, the kinds of numbers allowed, whether it must be there
LAYOUT: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "meta/episode_ends": ((), "iu", True),
    "data/action": ((2,), "fiu", True),
    "data/state": ((5,), "fiu", True),
    "data/keypoint": ((9, 2), "fiu", False),
    "meta/seeds": ((), "iu", False),
    "data/img": (image_cache.IMAGE_SHAPE, "fu", False),
}
ALSO_CALLED = {"data/img": ("data/image",)}


def survey(root: Path, *, chunks: bool = True) -> tuple[dict[str, StoredArray], list[str]]:
    """What the store has and what its metadata and files show to be wrong, without decoding."""
    if not root.exists():
        return {}, ["there is no such data set"]
    if wrong := not_a_store(root):
        return {}, [f"a data set must be the folder of a zarr store or a zip of one, this {wrong}"]
    store = files_of(root)
    stored, faults = {}, []
    for name, (row_shape, kinds, required) in LAYOUT.items():
        used = next((n for n in (name, *ALSO_CALLED.get(name, ())) if store.has(n)), name)
        try:
            array = find(store, used, row_shape, kinds)
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


def has_images(root: Path) -> bool:
    """Whether the store at `root` has images."""
    return any(files_of(root).has(name) for name in ("data/img", *ALSO_CALLED["data/img"]))


def decode(stored: Mapping[str, StoredArray]) -> tuple[dict[str, NDArray[Any]], list[str]]:
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
        if name.startswith("meta/"):
            arrays[name] = values.astype(np.int64)
        else:
            faults += _value_faults(name, values)
            with np.errstate(over="ignore", invalid="ignore"):
                arrays[name] = values.astype(np.float32)
    lengths = [array.shape[0] for name, array in stored.items() if name.startswith("data/")]
    if "meta/episode_ends" in arrays and lengths:
        faults += _ends_faults(arrays["meta/episode_ends"], lengths[0])
    if {"meta/episode_ends", "meta/seeds"} <= stored.keys():
        ends, seeds = stored["meta/episode_ends"].shape[0], stored["meta/seeds"].shape[0]
        if ends != seeds:
            faults.append(f"meta/seeds: there must be one for each of {ends} episodes, got {seeds}")
        if "meta/seeds" in arrays and not _all_seeds(arrays["meta/seeds"]):
            faults.append(f"meta/seeds: the seeds of resets must be 0 to {LARGEST_SEED}")
    return arrays, faults


def _all_seeds(seeds: NDArray[np.int64]) -> bool:
    return bool(((seeds >= 0) & (seeds <= LARGEST_SEED)).all())


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
    finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        rows = np.flatnonzero(~finite)
        return [
            f"{name}: the numbers must be finite, {len(rows)} rows are not, the first is {rows[0]}"
        ]
    positions = values[:, :4] if name == "data/state" else values
    largest = float(np.abs(positions).max(initial=0.0))
    if largest > LARGEST_PX:
        return [f"{name}: positions are in px, at most {LARGEST_PX:g} from 0, got {largest:g}"]
    turned = float(np.abs(values[:, 4]).max(initial=0.0)) if name == "data/state" else 0.0
    if turned > LARGEST_RAD:
        hint = "; these look like degrees" if turned <= 720 else ""
        return [
            f"{name}: the block's angle is in rad, at most {LARGEST_RAD:.0f}, got {turned:g}{hint}"
        ]
    if name == "data/action" and len(values) and largest <= 2:
        return [f"{name}: targets are in px, these lie within {largest:g} of 0 and look normalised"]
    return []


def pixels_of(image: StoredArray) -> Iterator[NDArray[np.uint8]]:
    """The images in order as uint8, some chunks at a time; ValueError if they are not exact."""
    start = 0
    for block in image.blocks(DECODED_AT_ONCE):
        yield image_cache.to_uint8(block, image.name, start)
        start += len(block)

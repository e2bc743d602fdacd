"""Which demonstrations a command uses, and where this machine keeps what it derives from them.

Paths of our own (data/, data/cache) hang on the repository, never on the working directory.
"""

import hashlib
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.core import files
from harness.core.errors import UserError
from harness.core.paths import CACHE_VARIABLE, DATA, ROOT, cache_folder
from ibc.data import demos as ibc_demos
from ibc.data import zarr_store
from ibc.data.demos import Demos

DOWNLOADED = "pusht_cchi_v7_replay.zarr"
BUILT_IN = "expert.zarr"
PROBED_STATES = 64


@dataclass(frozen=True)
class Source:
    """A data set and why it is the one in use; str() is the line to print."""

    path: Path
    kind: Literal["given", "downloaded", "built-in"]

    def __str__(self) -> str:
        shown = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"demonstrations: {shown} ({self.kind})"


def resolve_source(data: str | Path | None = None, *, folder: Path | None = None) -> Source:
    """The data set at `data` if given, else the downloaded one, else the built-in one, in `folder`.

    That is data/ in the repository unless said otherwise. A relative `data` is relative to the
    working directory, as the user typed it. Raises UserError if what was given is no zarr store, or
    nothing was given and nothing is there.
    """
    if data is not None:
        path = Path(data).expanduser().resolve()
        if not path.exists():
            raise UserError(f"--data must be the folder of a zarr store, {path} does not exist")
        if not zarr_store.is_store(path):
            inside = sorted(p.parent for n in (".zgroup", "zarr.json") for p in path.glob(f"*/{n}"))
            hint = f"; did you mean {inside[0]}?" if inside else ""
            raise UserError(f"--data must be the folder of a zarr store, {path} is not one{hint}")
        return Source(path, "given")
    folder = DATA if folder is None else folder
    if (folder / DOWNLOADED).exists():
        return Source(folder / DOWNLOADED, "downloaded")
    if (folder / BUILT_IN).exists():
        return Source(folder / BUILT_IN, "built-in")
    raise UserError(
        f"there are no demonstrations in {folder}; give --data PATH, "
        "or run: python -m harness.demos download"
    )


def open_demos(source: Source | str | Path, obs_mode: str | Iterable[str] = "keypoints") -> Demos:
    """The demonstrations of a source, checked; with images if "image" is among the obs modes.

    The first call on a machine decodes all images once (seconds) for the fingerprint and, if asked
    for, the shared uint8 copy in the cache folder; later calls take a fraction of a second. Images
    are drawn where the store has none. Raises ValueError with the data set's faults, UserError if
    the cache folder cannot be written.
    """
    path = Path(source.path if isinstance(source, Source) else source).absolute()
    modes = {obs_mode} if isinstance(obs_mode, str) else set(obs_mode)
    folder = cache_folder()
    name = f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    drawn = "image" in modes and not (path / "data" / "img").exists()
    note = folder / f"{name}.json"
    try:
        signature = ibc_demos.signature(path)
        pixels = _remembered(note, signature)
        demos = ibc_demos.read(
            path,
            images=folder / f"{name}.npy" if "image" in modes else None,
            render=_render if drawn else None,
            render_version=_render_version() if drawn else "",
            keypoints=_keypoints,
            pixels=pixels,
        )
        if demos.pixels is not None and demos.pixels != pixels:
            files.write_json({"signature": signature, "pixels": demos.pixels}, note)
    except OSError as error:
        if str(error.filename).startswith(str(path)):
            raise UserError(f"the data set must be readable: {error}") from error
        raise UserError(
            f"the cache folder must be writable and roomy, {folder} is not: {error}; "
            f"set {CACHE_VARIABLE} to another"
        ) from error
    return demos


def fingerprint(source: Source | str | Path) -> str:
    """The hash over a data set's decoded arrays; quick once this machine has read it."""
    return open_demos(source, ()).fingerprint


def check_fingerprint(demos: Demos, expected: str | None) -> None:
    """UserError when the demonstrations are not those expected; None expects nothing."""
    if expected is not None and demos.fingerprint != expected:
        raise UserError(
            f"the demonstrations must be those of the sweep, fingerprint {expected[:12]}; "
            f"{demos.path} on {platform.node()} has {demos.fingerprint[:12]}"
        )


def _remembered(note: Path, signature: str) -> str | None:
    """The images' hash that was found when the files had this signature."""
    said = files.read_json_or(note)  # without one the hash is computed and written again
    if not isinstance(said, dict) or said.get("signature") != signature:
        return None
    pixels = said.get("pixels")
    return pixels if isinstance(pixels, str) else None


def _render(states: NDArray[np.float64]) -> NDArray[np.uint8]:
    from envs.rendering.observations import (
        render_observations,  # pygame, only where something is drawn
    )

    return render_observations(states)


def _keypoints(states: NDArray[np.float64]) -> NDArray[np.float64]:
    from envs.physics.geometry import keypoints

    return keypoints(states)


def _render_version() -> str:
    """A hash of what is drawn for some states, so that no old drawing is taken for a new one."""
    states = np.random.default_rng(0).uniform(0, 512, (PROBED_STATES, 5))
    states[:, 4] *= 2 * np.pi / 512
    return hashlib.sha256(_render(states).tobytes()).hexdigest()

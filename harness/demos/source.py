"""The demonstrations of a command: which data set it is, opened with a cache on this machine.

data/ and data/cache lie in the repository, whatever the working directory is.
"""

import hashlib
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from envs.physics.geometry import keypoints
from envs.rendering import observations
from harness.core import command_lines, files, paths
from harness.core.errors import UserError
from harness.core.paths import CACHE_VARIABLE, JOINED, ROOT, cache_folder
from harness.core.text import one_line
from ibc.data import demos as ibc_demos
from ibc.data import layout, zarr_store
from ibc.data.demos import Demos

DOWNLOADED = "pusht_cchi_v7_replay.zarr"
BUILT_IN = "expert.zarr"
CORRECTIONS = "corrections.zarr"
PROBED_STATES = 64
_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a Path has one slash of an address's two
_FETCHES = {
    "s3": "with `aws s3 sync`",
    "gs": "with `gcloud storage cp -r`",
    "hf": "with `hf download --repo-type dataset`",
    "http": "with `curl -LO`",
    "https": "with `curl -LO`",
}


@dataclass(frozen=True)
class Source:
    """A data set, or several to be mixed, and how it was chosen; str() is the line to print."""

    paths: tuple[Path, ...]
    kind: Literal["given", "downloaded", "built-in"]

    @property
    def path(self) -> str:
        """The paths as one text."""
        return JOINED.join(map(str, self.paths))

    def __str__(self) -> str:
        shown = [p.relative_to(ROOT) if p.is_relative_to(ROOT) else p for p in self.paths]
        return f"demonstrations: {one_line(JOINED.join(map(str, shown)))} ({self.kind})"


def resolve_source(*data: str | Path | None, folder: Path | None = None) -> Source:
    """Return the data sets at `data`, else the downloaded one, else the built-in one, of `folder`.

    `data` is relative to the working directory, or a word: "downloaded", "built-in" (the planner's)
    or "corrections" (its corrections of failures). `folder` is data/ in the repository by default
    (of an installed package: in the working directory, with the planner's inside the package).
    UserError if one of `data` is no zarr store or is given
    twice, or if there is none and `folder` has no data set.
    """
    built_in = paths.BUILT_IN_DATA if folder is None else folder / BUILT_IN
    folder = paths.DATA if folder is None else folder
    named = {
        "downloaded": folder / DOWNLOADED,
        "built-in": built_in,
        "corrections": built_in.with_name(CORRECTIONS),
    }
    given = [named.get(str(each), each) for each in data if each is not None]
    if named["downloaded"] in given and not named["downloaded"].exists():
        fetch = command_lines.line("demos", "download")
        rule = f"the human demonstrations must be there ({fetch})"
        raise UserError(f"{rule}, and {named['downloaded']} does not exist")
    if given:
        found = tuple(_store(each) for each in given)
        for path in found:
            if found.count(path) > 1:
                raise UserError(f"every --data must be another data set, given {path} twice")
        return Source(found, "given")
    if named["downloaded"].exists():
        return Source((named["downloaded"].absolute(),), "downloaded")
    if built_in.exists():
        return Source((built_in,), "built-in")
    raise UserError(
        f"there are no demonstrations in {folder}; give --data PATH, "
        f"or run: {command_lines.line('demos', 'download')}"
    )


def _store(data: str | Path) -> Path:
    rule = "--data must be the folder of a zarr store, or a zip of one"
    if remote := _REMOTE.match(str(data)):
        how = _FETCHES.get(remote[1], "with the tool of that service")
        raise UserError(f"{rule}, on this machine, {data} is elsewhere; fetch it first, {how}")
    path = Path(data).expanduser()
    # A download hub's files are links, and the name of what they lead to is a hash.
    path = Path(os.path.abspath(path)) if path.is_file() else path.resolve()  # noqa: PTH100
    wrong = zarr_store.not_a_store(path)
    if not wrong:
        return path
    if (path / "meta" / "info.json").is_file():
        wrong = "is a LeRobotDataset, which is not read"
    elif path.is_dir():
        groups = (".zgroup", "zarr.json")
        inside = sorted(p.parent for name in groups for p in path.glob(f"*/{name}"))
        inside = [p for p in inside if p.name not in ("data", "meta")]
        wrong += f"; did you mean {inside[0]}?" if inside else ""
    raise UserError(f"{rule}, {path} {wrong}")


def open_demos(source: Source | str | Path, obs_mode: str | Iterable[str] = "keypoints") -> Demos:
    """Return the checked demonstrations of a source, with images if `obs_mode` asks for "image".

    Several data sets are joined, the first one first.

    The first call on a machine decodes all images (seconds), for the fingerprint and for the uint8
    copy in the cache folder; later calls take a fraction of a second. Images are rendered where the
    store has none. ValueError with the data set's faults, UserError for an unwritable cache folder.
    """
    modes = {obs_mode} if isinstance(obs_mode, str) else set(obs_mode)
    each = source.paths if isinstance(source, Source) else (Path(source),)
    return ibc_demos.join([_open(path.absolute(), modes) for path in each])


def _open(path: Path, modes: set[str]) -> Demos:
    folder = cache_folder()
    name = f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    rendered = "image" in modes and not layout.has_images(path)
    note = folder / f"{name}.json"
    try:
        signature = ibc_demos.signature(path)
        pixels = _remembered(note, signature)
        demos = ibc_demos.read(
            path,
            images=folder / f"{name}.npy" if "image" in modes else None,
            render=observations.render_observations if rendered else None,
            render_version=_render_version() if rendered else "",
            keypoints=keypoints,
            pixels=pixels,
        )
        if demos.pixels is not None and demos.pixels != pixels:
            files.write_json({"signature": signature, "pixels": demos.pixels}, note)
    except OSError as error:
        if str(error.filename).startswith(str(path)):
            raise UserError(f"the data set must be readable: {error}") from error
        raise UserError(
            f"the cache folder must be writable, with free space, {folder} is not: {error}; "
            f"set {CACHE_VARIABLE} to another"
        ) from error
    return demos


def fingerprint(source: Source | str | Path) -> str:
    """Return the hash of a data set's decoded arrays; fast once this machine has read it."""
    return open_demos(source, ()).fingerprint


def check_fingerprint(demos: Demos, expected: str | None) -> None:
    """Raise UserError unless the fingerprint is `expected` (None: any)."""
    if expected is not None and demos.fingerprint != expected:
        raise UserError(
            f"the demonstrations must be those of the sweep, fingerprint {expected[:12]}; "
            f"{demos.path} on {platform.node()} has {demos.fingerprint[:12]}"
        )


def _remembered(note: Path, signature: str) -> str | None:
    """Return the hash of the images that was stored for files with this signature."""
    stored = files.read_json_or(note)  # without one the hash is computed and written again
    if not isinstance(stored, dict) or stored.get("signature") != signature:
        return None
    pixels = stored.get("pixels")
    return pixels if isinstance(pixels, str) else None


def _render_version() -> str:
    """Return a hash of some rendered states: cached images of another renderer are not reused."""
    states = np.random.default_rng(0).uniform(0, 512, (PROBED_STATES, 5))
    states[:, 4] *= 2 * np.pi / 512
    return hashlib.sha256(observations.render_observations(states).tobytes()).hexdigest()

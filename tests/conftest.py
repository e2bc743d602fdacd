"""Fixtures that all tests share."""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from envs.physics.geometry import keypoints
from tests.commands import LONG, Commands, opened

ROOT = Path(__file__).resolve().parent.parent

# Ray reads these once in a process's life, and its tests share a process: all of its sessions and
# clusters have one token here. Commands are started without it, see tests/commands.py.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def markers() -> dict[str, set[str]]:
    """What docs/RELIABILITY.md makes of the tests that it names: {"tests/...::name": markers}."""
    found: dict[str, set[str]] = {}
    page = (ROOT / "docs" / "RELIABILITY.md").read_text()
    faults, _, bad_input = page.partition("\n## Bad input")
    for marker, text in (("faults", faults), ("bad_input", bad_input)):
        for name in re.findall(r"`(tests/[^`]+::[^`]+)`", text):
            found.setdefault(name, set()).add(marker)
    return found


def named(item: pytest.Item) -> str:
    """Return a test as docs/RELIABILITY.md names it: without its parameters."""
    return f"{item.path.relative_to(ROOT).as_posix()}::{item.name.partition('[')[0]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the page names, so that `-m faults` runs all that a promise rests on."""
    known = markers()
    for item in items:
        for marker in known.get(named(item), ()):
            item.add_marker(marker)


@pytest.fixture(scope="session")
def promised() -> dict[str, set[str]]:
    """The markers that docs/RELIABILITY.md gives to the tests that it names."""
    return markers()


@pytest.fixture(scope="session")
def human_data() -> Path:
    """The path of the 206 recorded demonstrations; skips where they are absent."""
    given = os.environ.get("PUSHT_DATA")
    path = Path(given) if given else ROOT.parent / "shared/data/pusht_cchi_v7_replay.zarr"
    if not path.is_dir():
        pytest.skip(f"the recorded demonstrations are not at {path} (set PUSHT_DATA)")
    return path


@pytest.fixture(scope="session")
def write_demos() -> Callable[..., dict[str, np.ndarray]]:
    """A writer of small data sets in Diffusion Policy's layout; the numbers are not physics.

    write_demos(path, lengths=(9, 5, 12), zarr_format=2, images=None, chunk=4, seed=0, **arrays)
    returns the arrays it wrote. `images` is None, "uint8" or "float32"; `shard` is a number of rows
    (zarr v3); `arrays` replace those of the same name, or leave one out where they are None.
    """

    def write(
        path: Path,
        *,
        lengths: tuple[int, ...] = (9, 5, 12),
        zarr_format: int = 2,
        images: str | None = None,
        chunk: int = 4,
        shard: int | None = None,
        seed: int = 0,
        compressors: Any = "auto",
        **replaced: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        total = sum(lengths)
        state = rng.uniform(50, 450, (total, 5)).astype(np.float32)
        state[:, 4] = rng.uniform(0, 2 * np.pi, total)
        arrays = {
            "state": state,
            "action": np.clip(state[:, :2] + rng.normal(0, 20, (total, 2)), 0, 512).astype("f4"),
            "keypoint": keypoints(state)[:, :18].reshape(total, 9, 2).astype(np.float32),
            "episode_ends": np.cumsum(lengths).astype(np.int64),
        }
        if images is not None:
            arrays["img"] = rng.integers(0, 256, (total, 96, 96, 3)).astype(images)
        arrays = {k: v for k, v in {**arrays, **replaced}.items() if v is not None}
        root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        groups = {name: root.require_group(name) for name in ("data", "meta")}
        for name, values in arrays.items():
            values = np.asarray(values)
            size = len(values) if name == "episode_ends" else chunk
            group = groups["meta" if name == "episode_ends" else "data"]
            sharded = shard is not None and name != "episode_ends"
            group.create_array(
                name=name,
                data=values,
                chunks=(max(1, size), *values.shape[1:]),
                shards=(shard, *values.shape[1:]) if sharded else None,
                compressors=compressors,
                config={"write_empty_chunks": True},
            )
        return arrays

    return write


@pytest.fixture(scope="session")
def faults_of() -> Callable[[Path], list[str]]:
    """What `check` says of a broken data set at a path, which every reader must refuse too."""
    from ibc.data.demos import check, fingerprint, read

    def faults(path: Path) -> list[str]:
        found = check(path)
        assert found
        for reader in (read, fingerprint):
            with pytest.raises(ValueError, match="zarr: ") as refused:
                reader(path)
            assert found[0] in str(refused.value)
        return found

    return faults


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, write_demos: Callable[..., Any]) -> Path:
    """The path of 60 frames of made-up demonstrations."""
    path = tmp_path_factory.mktemp("tiny-data") / "demos.zarr"
    write_demos(path, lengths=(20, 15, 25))
    return path


@pytest.fixture
def commands(tmp_path: Path, tiny_data: Path) -> Iterator[Commands]:
    """The project's commands, in an empty folder."""
    with opened(tmp_path, tiny_data) as made:
        yield made


@pytest.fixture(scope="module")
def shared_commands(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path
) -> Iterator[Commands]:
    """The same for all tests of a file."""
    with opened(tmp_path_factory.mktemp("commands"), tiny_data) as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Iterator[Path]:
    """The folder of the sweep of `LONG` that nothing happens to, not even Ray."""
    with opened(tmp_path_factory.mktemp("undisturbed"), tiny_data) as made:
        made.space.write_text(LONG)
        code, out, err = made.run_sweep("--name", "undisturbed", "--without-ray")
        assert (code, err) == (0, ""), out
        yield made.results / "undisturbed"

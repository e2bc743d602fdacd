"""The recorded and the built-in demonstrations as arrays."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

BUILT_IN = Path(__file__).resolve().parents[2] / "data/expert.zarr"


def read(path: Path, *names: str) -> SimpleNamespace:
    root = zarr.open_group(path, mode="r")
    ends = root["meta/episode_ends"][:]
    arrays = {name: root[f"data/{name}"][:] for name in names}
    return SimpleNamespace(root=root, ends=ends, starts=np.r_[0, ends[:-1]], **arrays)


@pytest.fixture(scope="session")
def human(human_data: Path) -> SimpleNamespace:
    """The 206 recorded demonstrations; episode k starts from the legacy reset of seed k."""
    demos = read(human_data, "action", "state", "keypoint")
    demos.seeds = np.arange(len(demos.ends))
    return demos


@pytest.fixture(scope="session")
def built_in() -> SimpleNamespace:
    """The demonstrations that come with the project."""
    demos = read(BUILT_IN, "action", "state")
    demos.seeds = demos.root["meta/seeds"][:]
    return demos

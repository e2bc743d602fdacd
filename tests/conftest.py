"""Fixtures that every wing's tests share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def human_data() -> Path:
    """The path of the 206 recorded demonstrations; skips where they are absent."""
    given = os.environ.get("PUSHT_DATA")
    path = Path(given) if given else ROOT.parent / "shared/data/pusht_cchi_v7_replay.zarr"
    if not path.is_dir():
        pytest.skip(f"the recorded demonstrations are not at {path} (set PUSHT_DATA)")
    return path

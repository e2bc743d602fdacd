"""Collecting demonstrations: the same store for any workers and interruptions; clear refusals."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from envs import seeds as envs_seeds
from envs.expert import demonstrator
from envs.expert.demonstrator import Episode
from harness.core.errors import UserError
from harness.core.seeds import (
    DEMONSTRATION_SEEDS,
    PAPER_SEEDS,
    PLANNED_SEEDS,
    REPORT_SEEDS,
    SELECT_SEEDS,
)
from harness.demos.collect import collect
from ibc.data import demos


def short_episode(seed: int) -> Episode:
    """A short episode without a simulation: odd seeds succeed; the numbers depend on the seed."""
    states = np.full((3 + seed % 4, 5), seed % 500, dtype=np.float32)
    states[:, 4] = 1.0
    actions = np.full((3 + seed % 4, 2), 7.0, dtype=np.float32)
    return Episode(states, actions, 0.96 if seed % 2 else 0.5, bool(seed % 2))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were planned, by a planner that takes no time."""
    seeds: list[int] = []

    def plan(seed: int) -> Episode:
        seeds.append(seed)
        return short_episode(seed)

    monkeypatch.setattr(demonstrator, "plan_episode", plan)
    return seeds


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def test_the_first_solved_seeds_are_kept_in_order(tmp_path: Path, planned: list[int]) -> None:
    collect(tmp_path / "new" / "a.zarr", 3, 1, first_seed=10_000, progress=False)
    assert planned == [10_000, 10_001, 10_002, 10_003, 10_004, 10_005]
    root = zarr.open_group(str(tmp_path / "new" / "a.zarr"), mode="r")
    assert root["meta/seeds"][:].tolist() == [10_001, 10_003, 10_005]
    lengths = [3 + seed % 4 for seed in (10_001, 10_003, 10_005)]
    assert root["meta/episode_ends"][:].tolist() == np.cumsum(lengths).tolist()
    assert root["data/state"][:][:, 0].tolist() == np.repeat([1, 3, 5], lengths).tolist()
    assert not list(tmp_path.rglob("*.partial"))


def test_the_store_is_a_sound_data_set(tmp_path: Path, planned: list[int]) -> None:
    collect(tmp_path / "a.zarr", 2, 1, progress=False)
    assert demos.check(tmp_path / "a.zarr") == []
    assert (tmp_path / "a.zarr" / ".zgroup").exists()  # format 2, which older readers want


def test_reserved_seeds_are_never_used(tmp_path: Path, planned: list[int]) -> None:
    collect(tmp_path / "a.zarr", 2, 1, first_seed=99_997, progress=False)
    assert planned == [99_997, 99_998, 99_999]
    planned.clear()
    collect(tmp_path / "b.zarr", 3, 1, first_seed=99_997, progress=False)
    assert planned == [99_997, 99_998, 99_999, 100_050, 100_051]


def test_starts_that_run_out_are_told(tmp_path: Path, planned: list[int]) -> None:
    with pytest.raises(UserError, match=r"9 starts must lie below 200000.*the first, 199995"):
        collect(tmp_path / "a.zarr", 9, 1, first_seed=199_995, progress=False)
    assert planned == [199_995, 199_996, 199_997, 199_998, 199_999]


def test_an_interrupted_collection_goes_on(
    tmp_path: Path, planned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(tmp_path / "whole.zarr", 4, 1, progress=False)
    planned.clear()
    plan = demonstrator.plan_episode

    def interrupted(seed: int) -> Episode:
        if seed == 10_003:
            raise KeyboardInterrupt
        return plan(seed)

    monkeypatch.setattr(demonstrator, "plan_episode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path / "a.zarr", 4, 1, progress=False)
    assert not (tmp_path / "a.zarr").exists()
    (tmp_path / "a.zarr.partial" / "seed-10001.npz").write_bytes(b"torn")
    monkeypatch.setattr(demonstrator, "plan_episode", plan)
    planned.clear()
    collect(tmp_path / "a.zarr", 4, 1, progress=False)
    assert planned == [10_001, *range(10_003, 10_008)]
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "whole.zarr")


def test_another_versions_episodes_are_not_taken_over(tmp_path: Path, planned: list[int]) -> None:
    partial = tmp_path / "a.zarr.partial"
    partial.mkdir()
    (partial / "made-by.json").write_text('"another version"')
    (partial / "seed-10001.npz").write_bytes(b"something")
    collect(tmp_path / "a.zarr", 1, 1, progress=False)
    assert 10_001 in planned


def test_what_is_evaluated_is_reserved_and_every_maker_has_its_own_starts() -> None:
    evaluated = (DEMONSTRATION_SEEDS, PAPER_SEEDS, SELECT_SEEDS, REPORT_SEEDS)
    for ours in (envs_seeds.PLANNED, envs_seeds.DRIVEN):
        assert not envs_seeds.is_reserved(ours[0])
        for theirs in evaluated:
            assert ours.stop <= theirs.start or theirs.stop <= ours.start
    assert all(envs_seeds.is_reserved(k) for theirs in evaluated for k in (theirs[0], theirs[-1]))
    assert PLANNED_SEEDS == envs_seeds.PLANNED
    assert envs_seeds.PLANNED.stop <= envs_seeds.DRIVEN.start


@pytest.mark.parametrize(
    ("episodes", "workers", "first_seed", "message"),
    [
        (0, 1, 10_000, "--episodes must be at least 1, given 0"),
        (1, 0, 10_000, "--workers must be at least 1, given 0"),
        (1, 1, -1, "first seed must lie between"),
        (1, 1, 205, "first seed must not be one of"),
        (1, 1, 100_049, "first seed must not be one of"),
        (1, 1, 300_000, "first seed must not be one of"),
        (1, 1, 400_000, "first seed must not be one of"),
    ],
)
def test_bad_numbers_are_refused(
    tmp_path: Path, episodes: int, workers: int, first_seed: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        collect(tmp_path / "a.zarr", episodes, workers, first_seed=first_seed, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(UserError, match=r"must be a new store, .*a\.zarr exists"):
        collect(tmp_path / "a.zarr", 1, 1, progress=False)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="writable"):
        collect(tmp_path / "file" / "a.zarr", 1, 1, progress=False)


@pytest.mark.ray
def test_the_command_with_two_workers_makes_the_same_store_as_one(tmp_path: Path) -> None:
    out = tmp_path / "two.zarr"
    words = ("collect", "--out", str(out), "--episodes", "4", "--workers", "2")
    # A fresh process without this session's token: Ray reads its environment when it is imported.
    done = subprocess.run(
        [sys.executable, "-m", "harness.demos", *words],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert demos.check(out) == []
    collect(tmp_path / "one.zarr", 4, 1, progress=False)
    assert contents(out) == contents(tmp_path / "one.zarr")

"""The command line over demonstrations, and the statistics that it prints."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pygame
import pytest

from envs.physics.dynamics import World
from envs.physics.geometry import coverage, keypoints
from harness.core import errors, paths
from harness.demos import __main__ as demos_main
from harness.demos.statistics import IDLE_PX, statistics
from ibc.data.demos import fingerprint, read

LENGTHS = (30, 12, 3)


def record(seeds: tuple[int, ...], lengths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Episodes of the real world under wandering targets, as the arrays of a data set."""
    world, rng = World(), np.random.default_rng(0)
    states, actions = [], []
    for seed, length in zip(seeds, lengths, strict=True):
        world.reset(seed)
        target = world.state[:2]
        for _ in range(length):
            target = np.clip(target + rng.normal(0, 25, 2), 0, 512).astype(np.float32)
            states.append(world.state)
            actions.append(target)
            world.step(target.astype(np.float64))
    state = np.array(states, np.float32)
    return {
        "state": state,
        "action": np.array(actions, np.float32),
        "keypoint": keypoints(state.astype(np.float64))[:, :18].reshape(-1, 9, 2).astype("f4"),
        "episode_ends": np.cumsum(lengths),
    }


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return record((0, 1, 2), LENGTHS)


@pytest.fixture
def path(tmp_path, write_demos, recorded) -> Path:
    write_demos(tmp_path / "real.zarr", **recorded)
    return tmp_path / "real.zarr"


@pytest.fixture
def command(tmp_path, monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs `python -m harness.demos ...` in process with folders of its own."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(paths, "BUILT_IN_DATA", tmp_path / "data" / "expert.zarr")
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = errors.run(lambda: demos_main.main([str(argument) for argument in arguments]))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_statistics_of_episodes_that_the_world_made(path, recorded):
    found = statistics(read(path))
    assert found.lengths.tolist() == list(LENGTHS)
    assert found.drift_px.max() < 1e-3
    assert found.seeded.all()
    world = World()
    world.reset(1)
    covered, agents = [], [world.state[:2]]
    for action in recorded["action"][30:42].astype(np.float64):
        world.step(action)
        covered.append(coverage(*world.state[2:]))
        agents.append(world.state[:2])
    assert found.coverage[1] == pytest.approx(max(covered))
    assert found.final_coverage[1] == pytest.approx(covered[-1])
    moved = np.linalg.norm(np.diff(agents, axis=0), axis=1)
    assert found.speed[30:42] == pytest.approx(moved, abs=1e-3)
    assert found.idle[1] == pytest.approx((moved < IDLE_PX).mean())
    a = recorded["action"][30:42].astype(np.float64)
    third = a[3:] - 3 * a[2:-1] + 3 * a[1:-2] - a[:-3]
    assert found.jerk[1] == pytest.approx(np.linalg.norm(third, axis=1).mean())
    assert np.isnan(found.jerk[2])  # three steps have no third difference


def test_idle_means_the_same_as_in_evaluations():
    from harness.evaluation import rollout

    assert IDLE_PX == rollout.IDLE_PX


def test_recorded_seeds_are_used(tmp_path, write_demos, command):
    arrays = record((70_000, 12_345), (20, 20))
    write_demos(tmp_path / "a.zarr", **arrays)
    assert not statistics(read(tmp_path / "a.zarr")).seeded.any()
    write_seeds(tmp_path / "a.zarr", [70_000, 12_345])
    with_seeds = read(tmp_path / "a.zarr")
    assert with_seeds.seeds.tolist() == [70_000, 12_345]
    assert statistics(with_seeds).seeded.all()
    write_seeds(tmp_path / "a.zarr", [1, 2, 3])
    code, out, _ = command("check", "--data", tmp_path / "a.zarr")
    assert code == 2
    assert "fault: meta/seeds: there must be one for each of 2 episodes, got 3" in out


def write_seeds(path: Path, seeds: list[int]) -> None:
    import zarr

    meta = zarr.open_group(path / "meta", mode="a")
    meta.create_array(name="seeds", data=np.array(seeds), overwrite=True)


def test_info_prints_a_table_and_draws(command, path, tmp_path):
    code, out, _ = command("info", "--data", path, "--picture", tmp_path / "drawn" / "p.png")
    assert code == 0
    assert "3 episodes, 45 steps, images rendered when needed" in out
    assert fingerprint(path) in out
    assert re.search(r"episode length \(steps\) +│ +15 │ +3 │ +4 │ +12 │ +28 │ +30 │", out)
    assert "coverage reached by replay" in out
    picture = pygame.surfarray.array3d(pygame.image.load(tmp_path / "drawn" / "p.png"))
    assert picture.shape[0] > 1000
    panels = [picture[x : x + 420, y : y + 420] for x in (24, 468, 912) for y in (58, 536)]
    for panel in panels:
        assert 0.005 < (panel != 255).any(axis=2).mean() < 0.9


def test_a_sheet_shows_episodes(command, path, tmp_path):
    code, out, _ = command("info", "--data", path, "--sheet", tmp_path / "s.png")
    assert code == 0
    assert out.endswith(f"sheet: {tmp_path / 's.png'}\n")
    picture = pygame.surfarray.array3d(pygame.image.load(tmp_path / "s.png")).transpose(1, 0, 2)
    assert picture.shape == (264, 6 * 232 + 12, 3)  # one row of tiles
    inked = [(picture[34:250, x : x + 218] != 255).any(axis=2).mean() for x in (14, 246, 478, 710)]
    assert min(inked[:3]) > 0.03  # goal, T and ways of the three episodes
    assert inked[3] == 0


def test_info_of_the_recorded_demonstrations(human_data):
    found = statistics(read(human_data, pixels=""))
    assert found.coverage.mean() == pytest.approx(0.8995, abs=1e-4)
    assert (found.coverage > 0.95).sum() == 7
    assert np.median(found.coverage) == pytest.approx(0.897, abs=1e-3)
    assert found.drift_px.max() < 1e-3
    assert np.median(found.reach) == pytest.approx(19, abs=0.5)
    assert np.percentile(found.reach, 99) == pytest.approx(74, abs=0.5)


def test_check_of_a_right_set_and_of_a_wrong_one(command, path, tmp_path, write_demos):
    code, out, err = command("check", "--data", path)
    assert (code, err) == (0, "")
    first, warning, last = out.splitlines()
    assert (first, last) == (f"demonstrations: {path} (given)", "no faults, 1 warnings")
    assert warning.startswith("warning: data/state: demonstrations end on the goal, (256, 256) px")
    write_demos(tmp_path / "bad.zarr", action=None, keypoint=np.full((26, 9, 2), np.inf))
    code, out, _ = command("check", "--data", tmp_path / "bad.zarr")
    assert code == 2
    assert out.splitlines()[1:] == [
        "fault: data/action: is missing",
        "fault: data/keypoint: the numbers must be finite, 26 rows are not, the first is 0",
        "2 faults",
    ]


def faulty(arrays: dict[str, np.ndarray], path: Path) -> dict[str, Callable[[], object]]:
    """What of a set is broken -> who breaks it; `check` must name the place."""
    data_folder, meta = path / "data", path / "meta"

    def bomb() -> None:
        file = data_folder / "state" / ".zarray"
        file.write_text(
            file.read_text().replace('"shape": [\n    45', '"shape": [\n    10' + 11 * "0")
        )

    def cut() -> None:
        file = data_folder / "action" / "1.0"
        file.write_bytes(file.read_bytes()[:-3])

    def put(name: str, values: object) -> None:
        import zarr

        zarr.open_array(path / name, mode="r+")[:] = values

    return {
        "data/state: is missing": lambda: shutil.rmtree(data_folder / "state"),
        "meta/episode_ends: is missing": lambda: shutil.rmtree(meta / "episode_ends"),
        "meta/episode_ends: the ends must increase": lambda: put(
            "meta/episode_ends", [12, 12, len(arrays["state"])]
        ),
        "meta/episode_ends: the last entry must be the number of steps, 60 is past the end": (
            lambda: put("meta/episode_ends", [30, 42, 60])
        ),
        "data/action: the numbers must be finite": lambda: put("data/action", np.nan),
        "data/state: at most 1000000 rows": bomb,
        "data/action: chunk 1.0 is truncated": cut,
        "data/keypoint: 1 of 12 chunks are missing": (data_folder / "keypoint" / "3.0.0").unlink,
    }


@pytest.mark.parametrize("said", faulty({}, Path()))
def test_check_names_each_fault(command, path, recorded, said):
    faulty(recorded, path)[said]()
    code, out, err = command("check", "--data", path)
    assert (code, err) == (2, "")
    assert f"fault: {said}" in out
    assert out.splitlines()[-1].endswith(" faults")


def test_replay_writes_a_video(command, path, tmp_path):
    out = tmp_path / "videos" / "one.mp4"
    code, said, _ = command("replay", "--data", path, "--episode", 1, "--out", out, "--size", 128)
    assert (code, said) == (0, f"{out}: episode 1, 12 steps\n")
    with av.open(str(out)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert 12 <= len(frames) <= 30
    assert frames[0].shape == (128, 128, 3)
    assert np.abs(frames[0].astype(int) - frames[11].astype(int)).max() > 50


def test_each_mistake_is_one_line(command, path, tmp_path):
    out = tmp_path / "x.mp4"
    for arguments, said in (
        (("info",), "there are no demonstrations in"),
        (("info", "--data", tmp_path / "absent"), "absent does not exist"),
        (("info", "--data", path, "--picture", "x.jpg"), "--picture must be a .png file"),
        (("info", "--data", path, "--sheet", "x.jpg"), "--sheet must be a .png file"),
        ((), "the following arguments are required: COMMAND"),
        (("chekc",), "invalid choice: 'chekc'"),
        (("replay", "--episode", "one", "--out", out), "invalid int value: 'one'"),
        (("collect", "--out", out, "--seed-start", "300000"), "first seed must not be one of"),
        (("collect", "--out", out, "--seed-start", "-1"), "first seed must lie between 0"),
        (("collect", "--out", out, "--seed-start", "1.5"), "invalid int value: '1.5'"),
        (("check", "--data", tmp_path), "has neither .zgroup nor zarr.json; did you mean"),
        (("replay", "--data", path, "--episode", 3, "--out", out), "--episode must be 0 to 2"),
        (("replay", "--data", path, "--episode", -1, "--out", out), "--episode must be 0 to 2"),
        (("replay", "--data", path, "--episode", 0, "--out", "x.gif"), "--out must be a .mp4"),
        (
            ("replay", "--data", path, "--episode", 0, "--out", out, "--size", 97),
            "--size must be even, 64 to 2048, got 97",
        ),
        (("collect", "--out", out, "--episodes", 0), "--episodes must be"),
    ):
        code, _, err = command(*arguments)
        assert (arguments, code) == (arguments, 2)
        assert said in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_files_that_cannot_be_written(command, path, tmp_path):
    (tmp_path / "file").touch()
    for arguments in (
        ("info", "--data", path, "--picture", tmp_path / "file" / "p.png"),
        ("info", "--data", path, "--sheet", tmp_path / "file" / "p.png"),
        ("replay", "--data", path, "--episode", 0, "--out", tmp_path / "file" / "v.mp4"),
    ):
        code, _, err = command(*arguments)
        assert code == 2
        assert "must be a file that can be written" in err
        assert err.count("\n") == 1


def test_collect_makes_a_set_that_check_accepts(command, tmp_path):
    out = tmp_path / "made.zarr"
    code, _, _ = command("collect", "--out", out, "--episodes", 1, "--workers", 1)
    assert code == 0
    code, said, _ = command("info", "--data", out)
    assert code == 0
    assert "1 episodes" in said
    assert "1 above 0.95" in said
    code, said, _ = command("check", "--data", out)
    assert (code, said.splitlines()[-1]) == (0, "no faults")


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "harness.demos", "info", "--data", "/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: --data must be the folder of a zarr store, or a zip of one, /nowhere does not "
        "exist\n"
    )

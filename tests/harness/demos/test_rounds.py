"""Rounds of training and correcting: what each training is given, resumption, refusals."""

import io
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from envs.expert.demonstrator import Episode
from envs.physics.geometry import GOAL_POSE
from harness.config import plan
from harness.core import errors, files, paths
from harness.core.errors import UserError
from harness.core.seeds import CORRECTION_SEEDS
from harness.demos import __main__ as demos_main
from harness.demos import correction_marks, corrections, rounds, source

FILE = """
version: 1
name: fixed
data: [{data}, {more}]
corrections:
  rounds: 2
  starts: 1
  shares: [0.6, 0.2, 0.2]
base:
  train.steps: 300
"""


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path, write_demos: Callable[..., Any]) -> Path:
    """A file of two rounds, on two data sets that end at the goal."""
    state = np.tile(np.float32([100, 100, *GOAL_POSE]), (26, 1))
    for name in ("data", "more"):
        write_demos(tmp_path / f"{name}.zarr", state=state)
    path = tmp_path / "rounds.yaml"
    path.write_text(FILE.format(data=tmp_path / "data.zarr", more=tmp_path / "more.zarr"))
    return path


@pytest.fixture
def steps(tiny_results: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done: sweeps whose trials are finished copies, and planners that take no time."""
    done = []

    def sweep(space: Path, name: str, results: Path, budget: str) -> int:
        plan.plan(space, budget)  # it is a search space
        done.append(name)
        if not (results / name).exists():
            shutil.copytree(tiny_results / "tiny", results / name)
        return 0

    def demonstrate(takeover: corrections.Takeover) -> Episode:
        done.append(f"seed {takeover.seed}")
        states = np.tile(np.float32(takeover.state), (3, 1))
        return Episode(states, states[:, :2] + 1, 0.96, success=True)

    monkeypatch.setattr(rounds, "_sweep", sweep)
    monkeypatch.setattr(corrections, "demonstrate", demonstrate)
    return done


def run(file: Path, results: Path) -> tuple[int, str]:
    printed = io.StringIO()
    given = Namespace(budget="standard", workers=1)
    code = rounds.read(file).run(results, given, Console(file=printed, width=300))
    return code, printed.getvalue()


def test_each_training_has_all_corrections_so_far(
    file: Path, tmp_path: Path, steps: list[str]
) -> None:
    code, printed = run(file, tmp_path / "results")
    assert code == 0
    first = CORRECTION_SEEDS.start
    order = list(dict.fromkeys(steps))
    assert order == ["fixed-0", f"seed {first}", "fixed-1", f"seed {first + 1}", "fixed-2"]
    folder = tmp_path / "results" / "fixed"
    stores = [folder / "corrections-1.zarr", folder / "corrections-2.zarr"]
    spaces = [yaml.safe_load((folder / f"training-{k}.yaml").read_text()) for k in range(3)]
    own = [str(tmp_path / "data.zarr"), str(tmp_path / "more.zarr")]
    assert [space["data"] for space in spaces] == [
        own,
        [*own, str(stores[0])],
        [*own, *map(str, stores)],
    ]
    shares = [space["base"]["split.shares"] for space in spaces]
    assert shares[0] == pytest.approx([0.75, 0.25])
    assert shares[1] == pytest.approx([0.6, 0.2, 0.2])
    assert shares[2][:2] == [0.6, 0.2]
    assert sum(shares[2]) == pytest.approx(1)
    for number, store in enumerate(stores):
        marks = correction_marks.read(store, 100)
        assert marks is not None
        assert marks.starts == (first + number, 1)
        assert f"of fixed-{number}, step 500" in marks.policy
    assert "--ckpt best --sweep fixed-2 --seeds 500" in printed
    assert printed.count("continue 1 of 1 failures") == 4  # when collected, and at the end

    steps.clear()
    assert run(file, tmp_path / "results")[0] == 0
    assert steps == ["fixed-2"]  # which finds nothing left to do


def test_rounds_go_on_after_a_kill_at_any_step(
    file: Path, tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(file, tmp_path / "whole")[0] == 0
    undisturbed = list(steps)
    steps.clear()
    sweep, demonstrate = rounds._sweep, corrections.demonstrate
    begun: set[object] = set()

    def killed_once(step: object) -> None:
        if step not in begun:
            begun.add(step)
            raise KeyboardInterrupt

    def kill_sweep(space: Path, name: str, results: Path, budget: str) -> int:
        killed_once(name)
        return sweep(space, name, results, budget)

    def kill_planner(takeover: corrections.Takeover) -> Episode:
        killed_once(takeover)
        return demonstrate(takeover)

    monkeypatch.setattr(rounds, "_sweep", kill_sweep)
    monkeypatch.setattr(corrections, "demonstrate", kill_planner)
    kills = 0
    while True:
        try:
            assert run(file, tmp_path / "again")[0] == 0
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills == len(begun) == len(undisturbed)
    planned = [step for step in steps if step.startswith("seed")]
    assert planned == [step for step in undisturbed if step.startswith("seed")]
    for number in (1, 2):
        store = f"fixed/corrections-{number}.zarr"
        whole, again = tmp_path / "whole" / store, tmp_path / "again" / store
        for path in sorted(p for p in whole.rglob("*") if p.is_file()):
            assert path.read_bytes() == (again / path.relative_to(whole)).read_bytes()


def test_a_sweep_that_fails_and_a_policy_that_does_not_end_the_rounds(
    file: Path, tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def succeeds(options: corrections.Options, console: Console) -> None:
        raise corrections.NoFailuresError("it succeeds on all 1 starts")

    monkeypatch.setattr(corrections, "collect_corrections", succeeds)
    code, printed = run(file, tmp_path / "results")
    assert code == 0
    assert steps == ["fixed-0"]
    assert "ends after training 0: it succeeds on all 1 starts" in printed
    assert "--sweep fixed-0" in printed
    monkeypatch.setattr(rounds, "_sweep", lambda *given: 1)
    assert run(file, tmp_path / "results")[0] == 1


def test_another_file_of_the_same_name_is_refused(
    file: Path, tmp_path: Path, steps: list[str]
) -> None:
    assert run(file, tmp_path / "results")[0] == 0
    file.write_text(file.read_text().replace("steps: 300", "steps: 400"))
    with pytest.raises(UserError, match=r"training-0\.yaml was made by another"):
        run(file, tmp_path / "results")
    with (
        files.lock(tmp_path / "results" / "fixed" / "lock"),
        pytest.raises(UserError, match="another does"),
    ):
        run(file, tmp_path / "results")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("corrections:\n", "budgets:\n", "must have the section `corrections`"),
        ("rounds: 2", "round: 2", "did you mean rounds?"),
        ("rounds: 2", "rounds: 0", "rounds must be a whole number from 1 to 100, given 0"),
        ("starts: 1", "starts: 1000000", "starts must be a whole number from 1 to 45000"),
        ("shares: [0.6, 0.2, 0.2]", "shares: [0.6, 0.4]", "shares must be 3 numbers above 0"),
        ("shares: [0.6, 0.2, 0.2]", "shares: [1, 1, 1]", "shares must be 3 numbers above 0"),
        ("name: fixed", "name: ../x", "name is 1 to 100 letters"),
        ("data.zarr", "none.zarr", "none.zarr does not exist"),
    ],
)
def test_bad_files_are_one_line(
    file: Path,
    old: str,
    new: str,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file.write_text(file.read_text().replace(old, new))
    assert errors.run(lambda: demos_main.main(["corrections", str(file)])) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_demonstrations_of_another_goal_are_refused(
    file: Path,
    tmp_path: Path,
    write_demos: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    state = np.tile(np.float32([100, 100, 150, 400, 0]), (26, 1))
    write_demos(tmp_path / "more.zarr", state=state)
    assert errors.run(lambda: demos_main.main(["corrections", str(file)])) == 2
    assert "corrections end at the goal, so demonstrations must too" in capfd.readouterr().err


def test_the_file_of_the_project_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (source.DOWNLOADED, source.BUILT_IN):
        shutil.copytree(paths.DATA / source.BUILT_IN, tmp_path / "data" / name)
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    read = rounds.read(paths.ROOT / "search_spaces" / "corrections.yaml")
    assert (read.name, read.rounds, len(read.data)) == ("corrections", 3, 2)
    assert plan.plan(read._write_space(tmp_path, 0)).trials

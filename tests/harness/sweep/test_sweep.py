"""run_sweep.py on made-up demonstrations: a real Ray, real processes, real signals."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import run_sweep
from harness.config import plan as config_plan
from harness.core import errors, files
from harness.demos import source as demos_source
from harness.scheduling.jobs import planned_job
from harness.storage import tables
from harness.sweep import driver, pending
from harness.sweep.folder import SweepFolder
from tests import bare_sweep
from tests.commands import LONG, SPACE, Commands, members_of, wait_for, without_clocks

pytestmark = pytest.mark.timeout(900)

# Each step multiplies the weights by 1 - 10, so they overflow before long.
BROKEN = """
      broken:
        train: {learning_rate: 1.0, weight_decay: 10.0, schedule: constant, steps: 400}
"""


@pytest.fixture
def commands(shared_commands: Commands) -> Commands:
    """One results folder for all tests of this file."""
    return shared_commands


@pytest.fixture
def run_here(commands, monkeypatch, capsys):
    """Run the command in this process, where its trials are not begun."""
    monkeypatch.setattr(driver, "estimate", bare_sweep.estimate)

    def run(*options):
        words = map(str, [run_sweep.__file__, *commands.sweep(*options)[1:]])
        monkeypatch.setattr(sys, "argv", list(words))
        code = errors.run(run_sweep.main)
        return code, *capsys.readouterr()

    return run


def trials_of(commands: Commands, name: str) -> list[dict]:
    return without_clocks(tables.read(commands.results / name, "trials"))


def trials_that_run(commands: Commands, name: str) -> bool:
    found = commands.statuses(name)
    return any(status["status"] == "running" and status.get("step", 0) >= 2 for status in found)


@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_ends_a_sweep_soon_and_leaves_no_process(commands, signum, code):
    name = f"signal-{signum}"
    commands.space.write_text(SPACE.replace("steps: 40", "steps: 100000"))
    process = commands.start_sweep("--name", name)
    wait_for(lambda: trials_that_run(commands, name), 280)
    refused = commands.run_sweep("--name", name, "--yes")
    assert (refused[0], f"is being run by process {process.pid} on " in refused[2]) == (2, True)
    start = time.monotonic()
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)  # as a terminal does: to every process of the group
    else:
        process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 10 + os.getloadavg()[0]
    assert process.returncode == code
    assert err.endswith("run the same command again to continue\n")
    assert err.count("\n") == 1
    wait_for(lambda: not members_of(process.pid), 60)
    assert {row["status"] for row in trials_of(commands, name)} <= {"running", "pending"}


@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint(commands):
    commands.space.write_text(LONG)
    process = commands.start_sweep("--name", "orphaned")
    wait_for(lambda: trials_that_run(commands, "orphaned"), 280)
    workers = [
        pid
        for pid in members_of(process.pid)
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ImplicitFunc")
    ]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=500)
    assert (process.returncode, err) == (0, ""), out
    rows = trials_of(commands, "orphaned")
    assert [row["status"] for row in rows] == ["finished"] * 2
    assert sorted(status["attempts"] for status in commands.statuses("orphaned")) in (
        [1, 2],
        [2, 2],
    )
    curves = tables.read(commands.results / "orphaned", "curves").to_pylist()
    steps = [(row["config_hash"], row["step"]) for row in curves]
    assert sorted(steps) == sorted({(h, s) for h, _ in steps for s in range(2, 302, 2)})


SEARCH = (
    SPACE.partition("questions:")[0]
    + """
search:
  trials: 2
  axes: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""
)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_runs_and_is_extended(commands):
    commands.space.write_text(SEARCH)
    code, out, err = commands.run_sweep("--name", "search")
    assert (code, err) == (0, "")
    assert "2/2 trials finished" in out
    code, out, err = commands.run_sweep("--name", "search", "--trials", "3")
    assert (code, err) == (0, "")
    assert "2 finished, 0 failed, 1 to run" in out
    assert "3/3 trials finished" in out
    rows = trials_of(commands, "search")
    assert {row["arm"] for row in rows} == {"#0", "#1", "#2"}
    assert len({row["train.learning_rate"] for row in rows}) == 3


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_fails_stays_in_the_table_and_the_others_go_on(commands):
    commands.space.write_text(SPACE + BROKEN)
    code, out, err = commands.run_sweep("--name", "failing")
    assert (code, err) == (1, "")
    assert "2/3 trials finished, 1 failed" in out
    failed = [row for row in trials_of(commands, "failing") if row["status"] == "failed"]
    assert [row["arm"] for row in failed] == ["broken"]
    assert failed[0]["error"].startswith("NonFiniteError: ")
    folder = commands.results / "failing/trials" / failed[0]["trial"]
    assert "Traceback" in (folder / "error.txt").read_text()


def test_a_dry_run_prints_the_plan_and_leaves_nothing(commands):
    commands.space.write_text(SPACE)
    words = commands.sweep("--name", "dry", "--dry-run", whole=True)
    code, out, err = commands.run("-X", "importtime", *words)
    assert code == 0
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert "harness.sweep.pending" in imported
    assert not imported & {"torch", "ray", "optuna"}  # the estimate is made by another process
    assert "narrow" in out
    assert "2 to run" in out
    assert "timed here" in out
    assert not (commands.results / "dry").exists()


OTHER = """
  depth: {arms: {deep: {policy.energy.depth: 2}}}
"""


def test_one_question_is_run_with_its_baseline_and_the_plan_holds_all(commands, run_here):
    commands.space.write_text(SPACE + OTHER)
    plan = config_plan.plan(commands.space)
    folder = SweepFolder(commands.results / "chosen")
    everything = pending.find(plan, folder, [], retry_failed=False)
    assert [job.info["arm"] for job in everything.left] == ["baseline (all)", "narrow", "deep"]
    chosen = pending.find(plan, folder, ["depth"], retry_failed=False)
    assert [job.info["arm"] for job in chosen.left] == ["baseline (all)", "deep"]
    assert (chosen.planned, chosen.states) == (everything.planned, {"pending": 2})
    code, out, err = run_here("--name", "chosen", "--question", "widht")
    assert (code, out.count("\n")) == (2, 1)
    assert err == (
        "error: --question must name a question of tiny, given 'widht'; did you mean width?\n"
    )
    assert not (commands.results / "chosen/plan.json").exists()


def test_a_folder_is_one_sweeps_at_a_time(commands, run_here):
    commands.space.write_text(SPACE)
    with SweepFolder(commands.results / "busy").lock():
        code, _, err = run_here("--name", "busy")
    assert code == 2
    assert f"is being run by process {os.getpid()} on " in err
    # A lock that a dead process has left is in nobody's way.
    (commands.results / "busy/.lock").write_text("process 1 on elsewhere\n")
    with SweepFolder(commands.results / "busy").lock():
        pass


def test_trials_of_two_codes_are_mixed_only_when_asked_for(commands, run_here):
    commands.space.write_text(SPACE)
    source = demos_source.resolve_source(commands.data)
    plan = config_plan.plan(commands.space, "standard")
    folder = SweepFolder(commands.results / "changed")
    folder.write_plan(plan, commands.space, [], source, demos_source.fingerprint(source))
    assert folder.changed_code() == []
    path = folder.path / "plan.json"
    content = json.loads(path.read_text())
    assert "ibc/energy/models.py" in content["code"]
    content["code"]["ibc/energy/models.py"] = "0" * 12
    path.write_text(json.dumps(content))
    code, _, err = run_here("--name", "changed", "--dry-run")
    assert (code, err) == (0, "")
    begun = planned_job(plan.trials[0], "changed").id
    files.write_json({"status": "running"}, folder.path / "trials" / begun / "status.json")
    code, _, err = run_here("--name", "changed")
    assert code == 2
    assert "ibc/energy/models.py changed since this sweep's last run: --yes runs the rest" in err
    assert err.count("\n") == 1
    # What has not begun yet is of no code.
    files.write_json({}, folder.path / "trials" / begun / "status.json")
    assert folder.changed_code() == ["ibc/energy/models.py"]


def test_a_sweep_of_an_earlier_layout_says_once_that_the_code_changed(commands, run_here):
    commands.space.write_text(SPACE)
    source = demos_source.resolve_source(commands.data)
    plan = config_plan.plan(commands.space, "standard")
    folder = SweepFolder(commands.results / "earlier")
    folder.write_plan(plan, commands.space, [], source, demos_source.fingerprint(source))
    path = folder.path / "plan.json"
    content = json.loads(path.read_text())
    moved = ("envs/dynamics", "envs/raster", "ibc/energy", "ibc/train", "harness/evaluate")
    content["code"] = {f"{name}.py": "0" * 12 for name in (*moved, "envs/pusht")}
    path.write_text(json.dumps(content))
    begun = planned_job(plan.trials[0], "earlier").id
    files.write_json({"status": "running"}, folder.path / "trials" / begun / "status.json")
    code, _, err = run_here("--name", "earlier")
    assert code == 2
    assert "the layout of the source files changed since this sweep's last run: --yes" in err
    assert err.count("\n") == 1
    assert run_here("--name", "earlier", "--dry-run", "--yes")[0] == 0


def test_what_the_data_cannot_fill_is_refused_before_anything_starts(commands, run_here):
    commands.space.write_text(SPACE + "      too big: {train.batch_size: 4096}\n")
    code, _, err = run_here()
    assert code == 2
    assert "width / too big, seed 0: train.batch_size must be at most the 35 training" in err
    assert err.count("\n") == 1
    assert not list(commands.results.glob("tiny*/plan.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cpus-per-trial", "9999"), "CPUs of this machine, given 9999"),
        (("--cpus-per-trial", "-1"), "must be a whole number or a share below 1, given -1"),
        (("--cpus-per-trial", "1.5"), "must be a whole number or a share below 1, given 1.5"),
        (("--hours-per-trial", "0"), "--hours-per-trial must be above 0 and at most 10,000"),
        (("--hours-per-trial", "nan"), "must be above 0 and at most 10,000, given nan"),
        (("--gpus-per-trial", "99"), "GPUs of this machine, given 99"),
        (("--cpus-per-trial", "many"), "invalid float value: 'many'"),
        (("--budget", "huge"), "must be one of standard, given 'huge'"),
        (("--name", "../up"), "--name is 1 to 100 letters"),
        (("--trials", "3"), "a number of trials needs a search"),
        (("--data", "nowhere"), "nowhere does not exist"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_one_line_and_2_before_anything_starts(
    tmp_path, monkeypatch, capsys, options, message
):
    space = tmp_path / "tiny.yaml"
    space.write_text(SPACE)
    words = ["run_sweep.py", str(space), "--results", str(tmp_path / "results"), *options]
    monkeypatch.setattr(sys, "argv", words)
    assert errors.run(run_sweep.main) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()

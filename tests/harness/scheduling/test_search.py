"""What a search may ask for, and that killing it changes nothing, whatever its sampler."""

import itertools
import random
import time
from pathlib import Path

import pytest

from harness.config import plan as space
from harness.config.domains import Axis
from harness.config.search_spec import Confirm, Halving
from harness.core.errors import UserError
from harness.scheduling import confirmation
from harness.scheduling.confirmation import ConfirmJobs
from harness.scheduling.jobs import Job
from harness.scheduling.search_history import SearchRun
from harness.scheduling.search_jobs import SearchJobs
from harness.storage.trial_folder import TrialFolder

GRID = """
version: 1
search:
  sampler: grid
  axes: {train.learning_rate: [1e-3, 3e-3, 1e-2], policy.energy.width: [8, 16]}
"""
HALVED = """
version: 1
train_seeds: [0]
base: {train: {steps: 900, epoch_steps: 200}, select.every: 100}
search:
  sampler: random
  halving: {factor: 3, first: 100}
  confirm: {winners: 2, train_seeds: [5], report_seeds: 10}
  axes: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
budgets:
  standard: {}
  smoke: {set: {train.steps: 450}, trials: 3, halving: {first: 200}, confirm: {winners: 1}}
"""
# Twelve points, so that samplers suggest the same ones again and the last have to be looked up.
SMALL = """
version: 1
train_seeds: [0, 1]
search:
  sampler: SAMPLER
  axes:
    train.learning_rate: [1e-3, 3e-3]
    policy.encoder.channels: [[16, 32], [16, 64]]
    policy.energy.width: [8, 16, 32]
"""


@pytest.fixture(autouse=True)
def _no_syncing(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def plan(tmp_path):
    def plan(text: str, budget: str = "standard", **options) -> space.Plan:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        return space.plan(path, budget, **options)

    return plan


def search_jobs(
    plan: space.Plan, sweep: str, directory: Path, **options
) -> SearchJobs | ConfirmJobs:
    run = SearchRun(plan.search, sweep, directory, plan.train_seeds, **options)
    return confirmation.search_jobs(run)


def test_a_grid_is_every_point_of_its_axes_in_order(plan, tmp_path):
    search = plan(GRID).search
    assert (search.sampler, search.trials) == ("grid", 6)
    jobs = search_jobs(plan(GRID), "name", tmp_path)
    points = [
        tuple(job.info["parameters"].values()) for job in iter(lambda: jobs.next(idle=True), None)
    ]
    assert points == [(rate, width) for rate in (1e-3, 3e-3, 1e-2) for width in (8, 16)]


def test_a_longer_axis_adds_its_points_to_a_grid(plan, tmp_path):
    run(search_jobs(plan(GRID), "name", tmp_path), tmp_path)
    longer = search_jobs(plan(GRID.replace("[8, 16]", "[4, 8, 16]")), "name", tmp_path)
    added = run(longer, tmp_path)
    assert [job.info["parameters"]["policy.energy.width"] for job in added] == [4, 4, 4]
    assert [job.info["number"] for job in added] == [6, 7, 8]


def test_rungs_lie_where_trials_select_and_a_budget_has_its_own(plan):
    search = plan(HALVED).search
    assert search.halving == Halving(3, 100)
    # Epochs have 200 steps: 100 is selected at 200, 300 at 400, and 900 is the end.
    assert search.halving.rungs(search.config({})) == (200, 400)
    assert search.confirm == Confirm(2, (5,), 10)
    smoke = plan(HALVED, "smoke").search
    assert (smoke.trials, smoke.halving) == (3, Halving(3, 200))
    assert smoke.confirm == Confirm(1, (100, 101, 102), 200)
    assert smoke.describe()["rungs"] == [200]


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("sampler: random", "sampler: tpe", "9:.*halving must go with sampler random or grid"),
        ("sampler: random", "sampler: asha", "must be one of tpe, random, grid, given 'asha'"),
        ("first: 100", "first: 150", "a multiple of select.every.* first 150 and select.every 100"),
        ("select.every: 100", "select.every: 0", "select.every 0"),
        ("first: 100", "first: 900", "must lie before the end, train.steps 900, given 900"),
        ("first: 100", "frist: 100", "did you mean first"),
        ("factor: 3, first: 100", "factor: 3", "first must be a whole number from 1"),
        ("factor: 3", "factor: 1", "factor must be a whole number from 2 to 100, given 1"),
        ("axes: {", "axes: {train.epoch_steps: [50, 100], ", "train.epoch_steps must not be an"),
        ("train_seeds: [5]", "train_seeds: [0, 5]", r"than the search's, given \[0\] in both"),
        ("train_seeds: [5]", "train_seeds: [-5]", "different whole numbers"),
        ("winners: 2", "winners: 0", "winners must be a whole number from 1 to 100, given 0"),
        ("report_seeds: 10", "report_seeds: 1_000_000", "from 1 to 100000, given '1_000_000'"),
        ("halving: {factor: 3, first: 100}", "halving: 3", "halving must be a mapping, given 3"),
    ],
)
def test_mistakes_of_a_search_name_their_line(plan, old, new, rule):
    assert old in HALVED
    text = HALVED.replace("epoch_steps: 200}", "epoch_steps: 200}").replace(old, new, 1)
    if "epoch_steps" in new:
        text = text.replace(", epoch_steps: 200", "")
    with pytest.raises(UserError, match=rf"x\.yaml:\d+: .*({rule.removeprefix('9:')})"):
        plan(text)


@pytest.mark.parametrize(
    ("axes", "line", "rule"),
    [
        ("train.learning_rate: {low: 1e-4, high: 1e-2}", 6, "must list its values for a grid"),
        ("train.steps: [1, .nan]", 6, "must be finite, given .nan"),
        ("policy.energy.width: [8, x]", 6, "valid integer, given 'x'"),
        ("policy.action.frame: [agent, board]", 6, 'action.bounds.*"window" needs'),
        (
            "policy.encoder.channels: [[16, 32], [16, 64]]\n"
            "    policy.encoder.reduce_maps: [8, 64]",
            0,
            r"the point policy.encoder.channels \[16, 32\], policy.encoder.reduce_maps 64: ",
        ),
    ],
)
def test_mistakes_of_a_grid_name_their_line(plan, axes, line, rule):
    with pytest.raises(UserError, match=rule) as caught:
        plan(f"version: 1\nsearch:\n  ask: which?\n  sampler: grid\n  axes:\n    {axes}\n")
    if line:
        assert f"x.yaml:{line}: " in str(caught.value)


def test_a_grid_has_its_own_number_of_trials(plan):
    for options, text in (
        ({"trials": 3}, GRID),
        ({}, GRID.replace("sampler: grid", "sampler: grid\n  trials: 3")),
    ):
        with pytest.raises(UserError, match="a grid has the 6 points of its axes"):
            plan(text, **options)


@pytest.mark.parametrize("trials", [0, -1, 100_001])
def test_a_number_of_trials_is_checked_wherever_it_stands(plan, trials):
    with pytest.raises(UserError, match=f"--trials must be from 1 to 100,000, given {trials}"):
        plan(HALVED, trials=trials)
    with pytest.raises(UserError, match="trials must be a whole number from 1 to 100000"):
        plan(HALVED.replace("sampler: random", f"sampler: random\n  trials: {trials}"))


def test_a_grid_above_the_cap_is_refused_before_it_is_walked(plan):
    ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
    keys = ("train.steps", "train.batch_size", "train.val_windows", "train.warmup_steps")
    axes = ", ".join(f"{key}: {ten}" for key in (*keys, "train.epoch_steps", "select.seeds"))
    start = time.process_time()
    with pytest.raises(UserError, match="at most 100,000 points, given 1,000,000"):
        plan(f"version: 1\nsearch: {{sampler: grid, axes: {{{axes}}}}}\n")
    assert time.process_time() - start < 5


def test_a_budget_says_nothing_of_a_search_where_there_is_none(plan):
    for part in ("halving: {first: 3}", "confirm: {winners: 1}"):
        key = part.partition(":")[0]
        with pytest.raises(
            UserError, match=f"x.yaml:2: {key} needs a search, and the file has none"
        ):
            plan(f"version: 1\nbudgets: {{standard: {{{part}}}}}\n")


def test_values_of_an_axis_are_told_apart_by_their_type():
    assert Axis(choices=(1, False)).holds(1)
    assert not Axis(choices=(1, False)).holds(True)
    assert not Axis(choices=(1, False)).holds(0)
    assert Axis(choices=([16, 32], None)).holds([16, 32])
    assert Axis(low=0.0, high=1.0).holds(1)
    assert not Axis(low=0, high=4, whole=True).holds(2.0)


def score(job: Job) -> float | None:
    """What a trial ends with; some points fail, with one of their training seeds."""
    if job.info["number"] % 5 == 3 and job.train_seed == 1:
        return None
    return job.config.policy.energy.width / 100 + job.config.train.learning_rate + job.train_seed


def run(
    jobs: SearchJobs | ConfirmJobs, directory: Path, slots: int = 1, events: int | None = None
) -> list[Job]:
    """Run to the end, or so many events and be killed; what was handed out first ends first."""
    running: list[Job] = []
    done: list[Job] = []
    count = itertools.count(1)
    while True:
        while len(running) < slots and (job := jobs.next(idle=not running)) is not None:
            folder = TrialFolder(directory / "trials" / job.id)
            identity = {"config_hash": job.id.rpartition("-")[0], "train_seed": job.train_seed}
            folder.claim({**job.info, **identity}, "data")
            folder.write_status(status="running")
            running.append(job)
            if next(count) == events:
                return done
        if not running:
            return done
        job = running.pop(0)
        folder = TrialFolder(directory / "trials" / job.id)
        if score(job) is None:
            folder.write_failure(FloatingPointError("the loss is nan"))
        else:
            folder.write_status(select_score=score(job))
            folder.write_success()
        if next(count) == events:
            return done
        jobs.done(job, folder.state)
        done.append(job)
        if next(count) == events:
            return done


def found(directory: Path) -> dict:
    """What is left of a search: the state of every trial by point and training seed."""
    states = {}
    for path in (directory / "trials").iterdir():
        folder = TrialFolder(path)
        described = folder.read_config()
        key = described["number"], described["train_seed"], str(described["parameters"])
        states[key] = folder.read_status()["status"]
    return states


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_search_killed_anywhere_ends_as_an_undisturbed_one(plan, tmp_path, sampler):
    asked = plan(SMALL.replace("SAMPLER", sampler))
    assert asked.search.trials == 12
    run(search_jobs(asked, "name", tmp_path / "whole"), tmp_path / "whole", slots=2)
    expected = found(tmp_path / "whole")
    assert len(expected) == 24
    assert list(expected.values()).count("failed") == 2
    rng = random.Random(1)
    for trial in range(4):
        directory = tmp_path / f"killed-{trial}"
        for events in (rng.randrange(1, 60), rng.randrange(1, 30), None):
            run(search_jobs(asked, "name", directory), directory, 2, events)
        assert found(directory) == expected


def test_points_that_are_no_config_are_passed_over(plan, tmp_path):
    channels, maps = "policy.encoder.channels", "policy.encoder.reduce_maps"
    axes = f"{channels}: [[16, 32], [16, 64]], {maps}: [8, 64]"
    text = f"version: 1\nsearch: {{sampler: random, axes: {{{axes}}}}}\n"
    jobs = run(search_jobs(plan(text), "name", tmp_path), tmp_path)
    points = [tuple(job.info["parameters"].values()) for job in jobs]
    assert sorted(points) == [([16, 32], 8), ([16, 64], 8), ([16, 64], 64)]


def test_ten_thousand_points_of_a_grid_are_planned_in_seconds(plan, tmp_path):
    hundred = ", ".join(str(n) for n in range(1, 101))
    axes = f"{{train.steps: [{hundred}], train.batch_size: [{hundred}]}}"
    start = time.process_time()
    asked = plan(f"version: 1\nsearch: {{sampler: grid, axes: {axes}}}\n")
    jobs = search_jobs(asked, "name", tmp_path)
    assert (asked.search.trials, jobs.further) == (10_000, 10_000)
    assert time.process_time() - start < 10


def test_a_trial_that_lost_its_files_is_run_again(plan, tmp_path):
    asked = plan(GRID)
    first = run(search_jobs(asked, "name", tmp_path), tmp_path)
    lost = {first[2].id: {"status": "lost", "select_score": 0.5}}
    again = search_jobs(asked, "name", tmp_path, statuses=lost)
    assert [job.id for job in again.begun] == [first[2].id]

"""A search's best points trained anew and evaluated, resumed like everything else."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.config import plan as space
from harness.config.search_spec import Confirm
from harness.core import files, seeds
from harness.scheduling.confirmation import ConfirmJobs, search_jobs
from harness.scheduling.jobs import Job
from harness.scheduling.search_history import SearchRun
from harness.storage import episode_table, tables
from harness.storage.trial_folder import TrialFolder
from harness.sweep.driver import evaluate
from harness.sweep.folder import SweepFolder

SPACE = """
version: 1
train_seeds: [0, 1]
search:
  sampler: random
  trials: 5
  axes: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}, policy.energy.width: [8, 16]}
  confirm: {winners: 2, train_seeds: [7, 8], report_seeds: 3}
"""


def finish(job: Job, directory: Path) -> dict:
    folder = TrialFolder(directory / "trials" / job.id)
    identity = {"config_hash": job.id.rpartition("-")[0], "train_seed": job.train_seed}
    folder.claim({**job.info, **identity}, "data")
    folder.write_status(select_score=job.config.train.learning_rate)
    folder.write_success()
    return folder.state


def run(jobs: ConfirmJobs, directory: Path, count: int = 99) -> list[Job]:
    """Run so many jobs one after the other."""
    done = []
    while len(done) < count and (job := jobs.next(idle=True)) is not None:
        jobs.done(job, finish(job, directory))
        done.append(job)
    return done


@pytest.fixture
def made(tmp_path, monkeypatch) -> Callable[..., ConfirmJobs]:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    path, directory = tmp_path / "x.yaml", tmp_path / "sweep"
    files.write_json({"questions": []}, directory / "plan.json")

    def made(text: str = SPACE, **options) -> ConfirmJobs:
        path.write_text(text)
        plan = space.plan(path)
        jobs = search_jobs(SearchRun(plan.search, "sweep", directory, plan.train_seeds, **options))
        assert isinstance(jobs, ConfirmJobs)
        return jobs

    return made


def question(directory: Path) -> dict:
    return files.read_json(directory / "plan.json")["questions"][0]


def test_the_best_points_are_trained_on_fresh_seeds_once_the_search_is_done(made, tmp_path):
    directory = tmp_path / "sweep"
    jobs = made()
    assert jobs.further == 10 + 4
    assert jobs.full_trials == 14.0
    searched = run(jobs, directory, 9)
    last = jobs.next(idle=True)
    assert jobs.next(idle=False) is None
    jobs.done(last, finish(last, directory))
    confirmed = run(jobs, directory)

    rates = {job.info["number"]: job.config.train.learning_rate for job in [*searched, last]}
    best = sorted(rates, key=rates.get, reverse=True)[:2]
    assert [(job.info["number"], job.train_seed) for job in confirmed] == [
        (number, seed) for seed in (7, 8) for number in best
    ]
    assert {job.info["question"] for job in confirmed} == {"confirmation"}
    assert all(job.until is None for job in confirmed)
    assert jobs.next(idle=True) is None
    asked = question(directory)
    assert (asked["question"], asked["train_seeds"]) == ("confirmation", [7, 8])
    assert [arm["arm"] for arm in asked["arms"]] == [f"#{number}" for number in best]
    assert asked["baseline"] == asked["arms"][0]["config_hash"] == confirmed[0].id.split("-")[0]


def test_a_killed_confirmation_goes_on_where_it_was(made, tmp_path):
    directory = tmp_path / "sweep"
    before = run(made(), directory, 11)
    files.write_json({"questions": []}, directory / "plan.json")  # as every start writes it
    jobs = made()
    assert len(jobs.begun) == 3
    assert (jobs.further, jobs.full_trials) == (0, 3.0)
    jobs.write_question()
    assert len(question(directory)["arms"]) == 2
    after = run(jobs, directory)
    assert len(after) == 3
    assert len({job.id for job in [*before, *after]}) == 14
    again = made()
    assert (again.begun, again.further, again.next(idle=True)) == ((), 0, None)


def test_what_was_confirmed_stays_when_a_longer_search_has_other_winners(made, tmp_path):
    directory = tmp_path / "sweep"
    run(made(), directory)
    first = [arm["arm"] for arm in question(directory)["arms"]]
    run(made(SPACE.replace("trials: 5", "trials: 40")), directory)
    arms = [arm["arm"] for arm in question(directory)["arms"]]
    assert arms[:2] != first
    assert set(first) <= set(arms)


def test_a_search_in_which_everything_failed_confirms_nothing(made, tmp_path):
    jobs = made()
    while (job := jobs.next(idle=True)) is not None:
        assert job.info["question"] == "search"
        folder = TrialFolder(tmp_path / "sweep/trials" / job.id)
        identity = {"config_hash": job.id.rpartition("-")[0], "train_seed": job.train_seed}
        folder.claim({**job.info, **identity}, "data")
        folder.write_failure(RuntimeError("boom"))
        jobs.done(job, folder.state)
    jobs.write_question()
    assert files.read_json(tmp_path / "sweep/plan.json")["questions"] == []
    confirm = Confirm(2, (7, 8), 3)
    assert evaluate(SweepFolder(tmp_path / "sweep"), confirm, Console(file=io.StringIO())) == 0


def test_a_halved_search_is_estimated_in_whole_trials(made):
    text = SPACE.replace("sampler: random", "sampler: random\n  halving: {first: 500}").replace(
        "search:", "base: {train.steps: 2000, select.every: 500}\nsearch:"
    )
    jobs = made(text)
    assert jobs.full_trials < jobs.further
    assert jobs.run.typical.until is None


def test_confirmed_trials_are_evaluated_once_on_report_seeds(tiny_results):
    sweep = tiny_results / "tiny"
    plan = files.read_json(sweep / "plan.json")
    arms = [plan["questions"][0]["arms"][0]]
    asked = {"question": "confirmation", "train_seeds": [0, 1, 2], "arms": arms}
    files.write_json({**plan, "questions": [asked]}, sweep / "plan.json")
    console = Console(file=io.StringIO())
    confirm = Confirm(1, (0, 1, 2), 2)
    assert evaluate(SweepFolder(sweep), confirm, console, workers=1) == 0
    tables.rebuild(sweep)
    rows = episode_table.within(tables.read(sweep, "episodes"), seeds.REPORT_SEEDS).to_pylist()
    hash_ = arms[0]["config_hash"]
    assert sorted((row["config_hash"], row["train_seed"], row["env_seed"]) for row in rows) == [
        (hash_, seed, env_seed) for seed in (0, 1) for env_seed in (300_000, 300_001)
    ]
    written = {path: path.stat().st_mtime_ns for path in sweep.glob("trials/*/episodes/*")}
    assert evaluate(SweepFolder(sweep), confirm, console, workers=1) == 0
    assert written == {path: path.stat().st_mtime_ns for path in sweep.glob("trials/*/episodes/*")}

"""Which trial comes next, and what a search remembers, without any Ray."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.config import plan as space
from harness.config.trial_config import TrialConfig, resolve
from harness.scheduling.jobs import (
    Job,
    PlannedJobs,
    planned_job,
    share_trainings,
    sort_longest_first,
)
from harness.scheduling.search_history import SearchRun
from harness.scheduling.search_jobs import SearchJobs
from harness.storage.trial_folder import TrialFolder
from harness.sweep import dispatcher
from harness.sweep.dispatcher import Dispatch
from harness.sweep.folder import SweepFolder

SPACE = """
version: 1
tracks: {a: {policy.obs_mode: keypoints}, b: {policy.obs_mode: state}}
questions:
  width: {arms: {narrow: {policy.energy.width: 8}, same: {policy.energy.width: 256}}}
"""

SEARCH = """
version: 1
train_seeds: [0, 1]
search:
  trials: 4
  axes:
    train.learning_rate: {low: 1e-4, high: 1e-2, log: true}
    policy.energy.width: [8, 16]
    policy.energy.depth: {low: 1, high: 3}
"""


def read(tmp_path: Path, text: str) -> space.Plan:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return space.plan(path)


def test_a_job_survives_its_way_to_a_worker(tmp_path):
    for trial in read(tmp_path, SPACE).trials:
        job = planned_job(trial, "sweep")
        assert Job.loads(job.dumps()) == job
        assert job.id == trial.id


def test_a_job_is_refused_where_the_code_makes_another_trial_of_it(tmp_path):
    job = planned_job(read(tmp_path, SPACE).trials[0], "sweep")
    with pytest.raises(ValueError, match="the code must not change under a sweep"):
        Job.loads(job.dumps().replace(f'"steps": {job.config.train.steps}', '"steps": 20001'))


def test_planned_jobs_carry_the_names_of_their_arms(tmp_path):
    jobs = {
        job.info["arm"]: job for job in (planned_job(t, "s") for t in read(tmp_path, SPACE).trials)
    }
    assert set(jobs) == {"baseline (a)", "narrow", "baseline (b)"}
    assert jobs["baseline (a)"].info["question"] is None
    assert jobs["baseline (a)"].info["arms"] == ["width (a) / baseline", "width (a) / same"]
    assert jobs["narrow"].info["question"].startswith("width")
    assert jobs["narrow"].label == f"{jobs['narrow'].info['question']} / narrow, seed 0"


def test_the_longest_come_first_within_a_seed(tmp_path):
    plan = read(tmp_path, SPACE.replace("tracks", "train_seeds: [1, 0]\ntracks"))
    jobs = [planned_job(trial, "s") for trial in plan.trials]
    seconds = {job.id: float(index % 4) for index, job in enumerate(jobs)}
    ordered = sort_longest_first(jobs, lambda job: seconds[job.id])
    assert [job.train_seed for job in ordered] == [1] * 4 + [0] * 4
    assert [seconds[job.id] for job in ordered] == [3, 2, 1, 0] * 2


def test_arms_that_differ_in_acting_alone_share_the_baselines_training(tmp_path):
    arms = """
    argmax: {policy.inference.readout: argmax}
    DFO: {policy.inference.sampler: dfo}
    narrow: {policy.energy.width: 8}
    narrow, argmax: {policy.energy.width: 8, policy.inference.readout: argmax}
    best of several: {select.every: 500}
"""
    text = f"version: 1\ntrain_seeds: [0, 1]\nquestions:\n  q:\n   arms:{arms}"
    planned = share_trainings([planned_job(t, "s") for t in read(tmp_path, text).trials])
    names = {job.id: (job.info["arm"], job.train_seed) for job in planned}
    shared = {names[job.id]: names[job.weights_of] for job in planned if job.weights_of}
    assert shared == {
        (arm, seed): (trained, seed)
        for arm, trained in {
            "argmax": "baseline (all)",
            "DFO": "baseline (all)",
            "narrow, argmax": "narrow",
        }.items()
        for seed in (0, 1)
    }


def test_a_shared_training_comes_first_and_is_waited_for():
    trained, other = (Job(TrialConfig(), seed, "") for seed in (0, 1))
    acting = Job(resolve({"policy.inference.readout": "argmax"}), 0, "", weights_of=trained.id)
    jobs = PlannedJobs([acting, trained, other])
    assert [jobs.next(idle=False) for _ in range(3)] == [trained, other, None]
    jobs.done(other, {})
    assert jobs.next(idle=False) is None
    jobs.done(trained, {"status": "failed"})
    assert jobs.next(idle=True) == acting


def test_the_same_error_in_a_row_stops_a_sweep_and_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatcher, "SAME_ERROR_LIMIT", 3)
    jobs = [Job(TrialConfig(), seed, f"job {seed}") for seed in range(12)]
    dispatch = Dispatch(PlannedJobs(jobs), SweepFolder(tmp_path), [], print, 3600.0)

    def run(error: str | None) -> None:
        job = dispatch.next("a")
        trial = dispatch.folder.trial(job.id)
        trial.write_status(status="failed" if error else "finished", error=error)
        dispatch.ended("a")

    for error in ("boom", "boom", None, "boom", "boom", "another", "boom", "boom"):
        run(error)
        assert dispatch.stop_reason is None
    run("boom")
    assert dispatch.next("a") is None
    assert dispatch.stop_reason == "stopped: 3 trials in a row failed with the same error: boom"


def run(jobs: SearchJobs, directory: Path, count: int, *, finish: bool = True) -> list[Job]:
    """Run so many jobs of a search, each scoring its learning rate."""
    done = []
    for _ in range(count):
        job = jobs.next(idle=True)
        if job is None:
            break
        folder = TrialFolder(directory / "trials" / job.id)
        described = {**job.info, "config_hash": job.id[:12], "train_seed": job.train_seed}
        folder.claim(described, "data")
        score = job.config.train.learning_rate * 100
        folder.write_status(status="running")
        if finish:
            folder.write_status(status="finished", select_score=score)
            jobs.done(job, folder.state)
        done.append(job)
    return done


def parameters(jobs: list[Job]) -> list[dict]:
    return [job.info["parameters"] for job in jobs]


@pytest.fixture
def search(tmp_path):
    plan = read(tmp_path, SEARCH)

    def search(trials: int = 4, **options) -> SearchJobs:
        search = replace(plan.search, trials=trials)
        run = SearchRun(search, "name", tmp_path / "sweep", plan.train_seeds, **options)
        return SearchJobs(run)

    return search


def test_a_search_asks_every_point_for_every_training_seed(search, tmp_path):
    jobs = search()
    done = run(jobs, tmp_path / "sweep", 99)
    assert len(done) == 8
    assert [job.train_seed for job in done] == [0, 1] * 4
    assert len({str(point) for point in parameters(done)}) == 4
    assert [t.value for t in jobs.sampler.study.trials] == pytest.approx(
        [100 * point["train.learning_rate"] for point in parameters(done)[::2]]
    )


def test_a_killed_search_goes_on_as_an_undisturbed_one(search, tmp_path):
    undisturbed = parameters(run(search(), tmp_path / "elsewhere", 99))
    first = run(search(), tmp_path / "sweep", 3)
    killed = run(search(), tmp_path / "sweep", 1, finish=False)
    again = search()
    assert [job.id for job in again.begun] == [killed[0].id]
    rest = run(again, tmp_path / "sweep", 99)
    assert parameters(first + rest) == undisturbed
    assert search().next(idle=True) is None


def test_a_finished_search_is_extended(search, tmp_path):
    run(search(), tmp_path / "sweep", 99)
    assert search().further == 0
    jobs = search(trials=6)
    further = run(jobs, tmp_path / "sweep", 99)
    assert [job.info["number"] for job in further] == [4, 4, 5, 5]


def test_failed_points_are_told_as_failed_and_retried_when_asked(search, tmp_path):
    jobs = search()
    job = jobs.next(idle=True)
    folder = TrialFolder(tmp_path / "sweep/trials" / job.id)
    folder.claim({**job.info, "config_hash": job.id[:12], "train_seed": 0}, "data")
    folder.write_failure(RuntimeError("boom"))
    jobs.done(job, folder.state)
    run(jobs, tmp_path / "sweep", 1)
    assert [trial.state.name for trial in jobs.sampler.study.trials] == ["FAIL"]
    assert search().begun == ()
    assert [again.id for again in search(retry_failed=True).begun] == [job.id]


def test_an_exhausted_space_ends_the_search(tmp_path):
    text = "version: 1\nsearch: {trials: 9, axes: {policy.energy.width: [8, 16]}}\n"
    jobs = SearchJobs(SearchRun(read(tmp_path, text).search, "name", tmp_path / "sweep", (0,)))
    assert len(run(jobs, tmp_path / "sweep", 99)) == 2


def test_points_outside_todays_axes_are_left_alone(search, tmp_path):
    run(search(), tmp_path / "sweep", 99)
    plan = read(tmp_path, SEARCH.replace("[8, 16]", "[32, 64]"))
    jobs = SearchJobs(SearchRun(plan.search, "name", tmp_path / "sweep", plan.train_seeds))
    assert jobs.further == 8

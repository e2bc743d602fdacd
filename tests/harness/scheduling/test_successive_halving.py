"""Successive halving on simulated trials: files as real ones leave them, scores by a formula."""

import itertools
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.config import plan as space
from harness.core import files
from harness.core.errors import UserError
from harness.scheduling.jobs import Job
from harness.scheduling.search_history import SearchRun, selection_scores
from harness.scheduling.search_jobs import FILE, Decision, SearchJobs
from harness.storage.trial_folder import TrialFolder

SPACE = """
version: 1
train_seeds: [0]
base:
  train: {steps: 900, epoch_steps: 50}
  select: {every: 100, seeds: 2}
search:
  sampler: random
  trials: 27
  halving: {factor: 3, first: 100}
  axes:
    train.learning_rate: {low: 1e-4, high: 1e-1, log: true}
    policy.energy.width: [8, 16, 32]
"""


def quality(job: Job, step: int) -> float:
    """What a trial scores: its own height, reached the sooner the higher the learning rate."""
    rate = job.config.train.learning_rate
    height = (
        0.9 - 0.15 * (math.log10(rate) + 2.5) ** 2 + 0.01 * (job.config.policy.energy.width == 16)
    )
    return height * (1 - math.exp(-step / 150)) + 0.001 * math.sin(step + job.train_seed)


@dataclass
class Lab:
    """Runs jobs as workers would, the one that was handed out first ending first."""

    directory: Path
    text: str = SPACE
    failing: frozenset[int] = frozenset()

    def jobs(self, **options) -> SearchJobs:
        path = self.directory / "x.yaml"
        self.directory.mkdir(exist_ok=True)
        path.write_text(self.text)
        plan = space.plan(path)
        seeds = plan.train_seeds
        return SearchJobs(SearchRun(plan.search, "name", self.directory, seeds, **options))

    def begin(self, job: Job) -> None:
        folder = TrialFolder(self.directory / "trials" / job.id)
        identity = {"config_hash": job.id.rpartition("-")[0], "train_seed": job.train_seed}
        folder.claim({**job.info, **identity}, "data")
        folder.state = folder.read_status()
        folder.write_status(status="running")

    def end(self, job: Job) -> dict:
        """Train to the job's rung: the files of a trial that is whole or stopped or failed."""
        folder = TrialFolder(self.directory / "trials" / job.id)
        folder.state = folder.read_status()
        until = job.until or job.config.train.steps
        if job.info["number"] in self.failing and until > 100:
            folder.write_failure(RuntimeError("boom"))
            return folder.state
        begun = folder.state.get("step", 0)
        for step in range(100, until + 1, 100):
            if step > begun:
                row = {"score": quality(job, step), "checkpoint_step": step, "env_seed": 1}
                folder.write_selected(step, [row])
        best = max(quality(job, step) for step in range(100, until + 1, 100))
        folder.write_status(step=until, select_score=best if math.isfinite(best) else None)
        folder.write_success("finished" if job.until is None else "stopped")
        return folder.state

    def run(self, jobs: SearchJobs, slots: int = 2, events: int | None = None) -> int:
        """Run to the end, or so many events (a job handed out, ended, taken note of) and be killed.

        Return how many events there were.
        """
        running: list[Job] = []
        count = itertools.count(1)
        while True:
            while len(running) < slots:
                job = jobs.next(idle=not running)
                if job is None:
                    break
                self.begin(job)
                running.append(job)
                if next(count) == events:
                    return events
            if not running:
                return next(count) - 1
            ended = running.pop(0)
            status = self.end(ended)
            if next(count) == events:
                return events
            jobs.done(ended, status)
            if next(count) == events:
                return events

    def outcome(self) -> tuple:
        """What is left of a search: each trial's state and step, the decisions in their order."""
        jobs = self.jobs()
        found = jobs.run.earlier()
        states = {key: (s["status"], s.get("step")) for key, s in found.statuses.items()}
        made = jobs._read()
        return found.parameters, states, made, jobs.ranking()

    def steps(self) -> int:
        found = self.jobs().run.earlier()
        return sum(status.get("step", 0) for status in found.statuses.values())


@pytest.fixture(autouse=True)
def _no_syncing(monkeypatch):
    """Thousands of small files are written; no power fails here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path / "sweep")


def test_the_winner_is_among_the_best_at_a_third_of_the_steps(lab):
    jobs = lab.jobs()
    lab.run(jobs)
    heights = {
        number: quality(job, 900)
        for number, parameters in jobs.run.earlier().parameters.items()
        for job in [jobs._job(Decision(number, 0), 0)]
    }
    best = sorted(heights, key=heights.get, reverse=True)
    winner = jobs.ranking()[0][0]
    assert jobs.run.typical.until is None
    assert len(heights) == 27
    assert winner in best[:3]
    assert lab.steps() <= 27 * 900 / 3
    states = jobs.run.earlier().statuses
    assert states[winner, 0]["status"] == "finished"
    steps = sorted(status["step"] for status in states.values())
    assert set(steps) == {100, 300, 900}
    assert {status["status"] for status in states.values()} == {"finished", "stopped"}


def test_of_one_after_the_other_exactly_the_best_third_of_each_rung_goes_on(lab):
    jobs = lab.jobs()
    lab.run(jobs, slots=1)
    levels = [jobs._level[number] for number in range(27)]
    best = jobs._ranked(0)
    assert len(best) == 27
    # The last third of the promotions was made knowing all; none of the best three is left behind.
    assert all(levels[number] >= 1 for number in best[:3])
    assert 9 <= sum(level >= 1 for level in levels) <= 14
    assert jobs.next(idle=True) is None


def test_a_search_that_is_killed_anywhere_ends_as_an_undisturbed_one(lab, tmp_path):
    text = SPACE.replace("trials: 27", "trials: 9").replace(
        "train_seeds: [0]", "train_seeds: [0, 1]"
    )
    whole = Lab(tmp_path / "whole", text, frozenset({2}))
    events = whole.run(whole.jobs())
    expected = whole.outcome()
    rng = random.Random(0)
    for trial in range(3):
        killed = Lab(tmp_path / f"killed-{trial}", text, frozenset({2}))
        left = rng.randrange(1, events)
        killed.run(killed.jobs(), events=left)
        killed.run(killed.jobs(), events=rng.randrange(1, 20))
        killed.run(killed.jobs())
        assert killed.outcome() == expected, f"killed after {left} events"


def test_what_failed_at_a_rung_never_goes_on_and_a_retry_is_asked_for(lab):
    first = lab.jobs()
    lab.failing = frozenset(range(27))
    lab.run(first)
    assert first.ranking()
    jobs = lab.jobs()
    assert (jobs.begun, jobs.next(idle=True)) == ((), None)
    # All that were promoted failed at 300, so others were tried until none was left.
    assert sorted(jobs._level.values()) == [1] * 27
    assert jobs.further == 0
    again = lab.jobs(retry_failed=True)
    assert len(again.begun) == 27
    lab.failing = frozenset()
    lab.run(again)
    assert len(again._ranked(again.top)) >= 1


def test_a_score_that_is_not_finite_never_goes_on(lab, monkeypatch):
    of = quality

    def broken(job, step):
        return math.nan if job.info["number"] % 2 else of(job, step)

    monkeypatch.setitem(globals(), "quality", broken)
    jobs = lab.jobs()
    lab.run(jobs)
    promoted = {number for number, level in jobs._level.items() if level > 0}
    assert promoted
    assert all(number % 2 == 0 for number in promoted)


def test_too_few_points_for_the_rungs_still_end_with_a_whole_winner(tmp_path):
    for trials in (1, 2, 4):
        text = SPACE.replace("trials: 27", f"trials: {trials}")
        lab = Lab(tmp_path / str(trials), text)
        jobs = lab.jobs()
        assert jobs.further >= trials
        lab.run(jobs)
        states = jobs.run.earlier().statuses
        assert [s["status"] for s in states.values()].count("finished") == 1
        assert lab.jobs().further == 0


def test_a_finished_search_is_extended(lab, tmp_path):
    lab.text = SPACE.replace("trials: 27", "trials: 9")
    lab.run(lab.jobs())
    before = lab.outcome()
    lab.text = SPACE
    jobs = lab.jobs()
    assert jobs.begun == ()
    assert jobs.further >= 18
    assert 0 < jobs.full_trials < jobs.further
    lab.run(jobs)
    after = lab.outcome()
    assert len(after[0]) == 27
    assert after[2][1][: len(before[2][1])] == before[2][1]  # decided is decided


def test_another_training_seed_comes_to_where_its_point_is(lab):
    lab.text = SPACE.replace("trials: 27", "trials: 9")
    lab.run(lab.jobs())
    lab.text = lab.text.replace("train_seeds: [0]", "train_seeds: [0, 1]")
    jobs = lab.jobs()
    assert len({job.id for job in jobs.begun}) == len(jobs.begun) == 9
    assert {job.train_seed for job in jobs.begun} == {1}
    lab.run(jobs)
    states = jobs.run.earlier().statuses
    assert all(states[n, 0]["step"] == states[n, 1]["step"] for n in range(9))


def test_without_its_note_the_trials_show_how_far_they_were_sent(lab):
    lab.run(lab.jobs())
    expected = lab.outcome()
    (lab.directory / FILE).write_text('{"schema": 1, "ba')
    with files.lock(lab.directory / ".lock"):
        jobs = lab.jobs()
    assert (lab.directory / f"{FILE}.torn").exists()
    assert (jobs.begun, jobs.next(idle=True)) == ((), None)
    assert jobs.ranking() == expected[3]


def test_rungs_are_kept_and_those_of_another_base_are_not_ours(lab):
    lab.run(lab.jobs())
    lab.text = SPACE.replace("first: 100", "first: 200")
    with pytest.raises(
        UserError, match=r"keeps its rungs: sweep was begun with rungs at \[100, 300"
    ):
        lab.jobs()
    lab.text = SPACE.replace("epoch_steps: 50", "epoch_steps: 100")
    jobs = lab.jobs()
    assert (jobs.begun, len(jobs._parameters)) == ((), 0)
    assert jobs.next(idle=True).info["number"] == 27  # names are given once


def test_it_waits_while_a_running_job_may_be_promoted(lab):
    lab.text = SPACE.replace("trials: 27", "trials: 3")
    jobs = lab.jobs()
    first, second, third = (jobs.next(idle=False) for _ in range(3))
    assert jobs.next(idle=False) is None
    for job in (first, second):
        lab.begin(job)
        jobs.done(job, lab.end(job))
        assert jobs.next(idle=False) is None
    lab.begin(third)
    jobs.done(third, lab.end(third))
    promoted = jobs.next(idle=True)
    assert promoted.until == 300
    assert promoted.label.endswith("seed 0, to step 300")
    assert selection_scores(lab.directory / "trials" / promoted.id).keys() == {100}


def test_a_grid_is_halved_too(lab):
    lab.text = """
version: 1
base: {train: {steps: 900, epoch_steps: 50}, select: {every: 100, seeds: 2}}
search:
  sampler: grid
  halving: {first: 100}
  axes: {train.learning_rate: [1e-4, 1e-3, 1e-2], policy.energy.width: [8, 16, 32]}
"""
    jobs = lab.jobs()
    assert jobs.run.search.trials == 9
    lab.run(jobs)
    winner = dict(jobs.ranking())[jobs.ranking()[0][0]]
    assert winner["train.learning_rate"] in (1e-3, 1e-2)
    assert [p["policy.energy.width"] for p in jobs.run.earlier().parameters.values()][:3] == [
        8,
        16,
        32,
    ]


def test_a_trial_that_lost_its_files_is_run_again_to_where_it_was(lab):
    jobs = lab.jobs()
    lab.run(jobs)
    winner = jobs.ranking()[0][0]
    states = jobs.run.earlier().statuses
    trial = jobs._job(Decision(winner, jobs.top), 0).id
    lost = {trial: {**states[winner, 0], "status": "lost"}}
    again = lab.jobs(statuses=lost)
    assert [(job.id, job.until) for job in again.begun] == [(trial, None)]
    (lab.directory / FILE).unlink()
    assert lab.jobs(statuses=lost).begun == again.begun

"""Estimates from finished trials and timed configs; the timing runs in another process."""

import json
import subprocess

import pytest

from harness.config.trial_config import resolve
from harness.scheduling.jobs import Job
from harness.sweep import estimate


def job(seed=0, **settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return Job(resolve(dotted), seed, str(settings))


@pytest.fixture
def timed(monkeypatch):
    """What the process that times was asked, and what it answers."""

    class Timed:
        seconds: dict[str, float]
        asked: dict[str, object] | None = None

        def run(self, command, **options):
            self.asked = json.loads(options["input"])
            hashes = [Job.loads(text).config_hash for text in self.asked["jobs"]]
            seconds = {hash_: self.seconds[hash_] for hash_ in hashes}
            answer = json.dumps({"seconds": seconds, "timed": 1, "spent": 2.0})
            return subprocess.CompletedProcess(command, 0, answer, "")

    found = Timed()
    monkeypatch.setattr(subprocess, "run", found.run)
    return found


def test_configs_are_timed_once_with_the_number_of_their_trials(timed):
    narrow = job(policy__energy__width=64)
    jobs = [narrow, job(policy__energy__width=128), job(1, policy__energy__width=64)]
    timed.seconds = {jobs[0].config_hash: 10.0, jobs[1].config_hash: 90.0}
    found = estimate.estimate(jobs, {}, threads=1)
    assert timed.asked["trials"] == [2, 1]
    assert found.how == "1 configs timed here in 2 s, 1 extrapolated from the most similar"
    assert [found.seconds[each.id] for each in jobs] == [10.0, 90.0, 10.0]


def test_finished_trials_tell_their_own_time_and_scale_what_is_timed(timed):
    known, other = job(policy__energy__width=64), job(policy__energy__width=128)
    explicit = job(policy__kind="mse")
    timed.seconds = {known.config_hash: 10.0, other.config_hash: 30.0, explicit.config_hash: 5.0}
    finished = {known.config_hash: 20.0, explicit.config_hash: 7.0}
    found = estimate.estimate([known, other, explicit], finished, threads=1)
    # The explicit policy is of another kind than what is to be timed: it tells nothing of it.
    assert len(timed.asked["jobs"]) == 2
    assert [found.seconds[each.id] for each in (known, other, explicit)] == [20.0, 60.0, 7.0]
    assert found.how == (
        "2 configs from finished trials, 1 configs timed here in 2 s, "
        "scaled by 2 as finished trials took"
    )
    # Nothing is timed where all are known.
    timed.asked = None
    found = estimate.estimate([known], finished, threads=1)
    assert (timed.asked, found.how) == (None, "1 configs from finished trials")
    assert found.wall(slots=2, jobs=4) == estimate.STARTING_SECONDS + 40.0


def test_a_failed_measurement_is_no_estimate(monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nValueError: no torch\n")

    monkeypatch.setattr(subprocess, "run", run)
    found = estimate.estimate([job()], {}, threads=1)
    assert (found.seconds, found.how) == ({}, "no estimate: ValueError: no torch")
    assert found.wall(slots=1, jobs=1) == 0.0

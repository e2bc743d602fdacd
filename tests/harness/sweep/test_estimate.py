"""Estimates from finished trials and measured configs; the measurement runs in another process."""

import subprocess

from harness.config.trial_config import resolve
from harness.scheduling.jobs import Job
from harness.sweep import estimate


def job(**settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return Job(resolve(dotted), 0, str(settings))


def test_the_first_of_each_kind_is_measured_first_and_others_are_extrapolated(monkeypatch):
    jobs = [
        job(policy__kind=kind, policy__energy__width=width)
        for kind in ("mse", "diffusion")
        for width in (64, 128)
    ]
    asked = []

    def measure(ordered, firsts, threads):
        assert firsts == 2
        asked.extend(ordered)
        return {ordered[0].config_hash: 10.0, ordered[1].config_hash: 90.0}, 1.0

    monkeypatch.setattr(estimate, "_measure", measure)
    found = estimate.estimate(jobs, {}, threads=1)
    assert asked == [jobs[0], jobs[2], jobs[1], jobs[3]]
    assert found.how == "2 configs timed here in 1 s, 2 extrapolated"
    assert [found.seconds[each.id] for each in jobs] == [10.0, 10.0, 90.0, 90.0]
    # Finished trials tell the time of their kind; nothing is measured where all are known.
    asked.clear()
    found = estimate.estimate(jobs[:1], {jobs[0].config_hash: 5.0}, threads=1)
    assert (asked, found.how) == ([], "1 configs from finished trials")
    assert found.wall(slots=2, jobs=4) == estimate.STARTING_SECONDS + 10.0


def test_a_failed_measurement_is_no_estimate(monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nValueError: no torch\n")

    monkeypatch.setattr(subprocess, "run", run)
    found = estimate.estimate([job()], {}, threads=1)
    assert (found.seconds, found.how) == ({}, "no estimate: ValueError: no torch")
    assert found.wall(slots=1, jobs=1) == 0.0

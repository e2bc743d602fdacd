"""What a worker does with one job, in this process or in one of its own; no Ray."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.config import protocol, trial_config
from harness.core import processes
from harness.demos import source
from harness.scheduling.jobs import Job
from harness.storage.trial_folder import TrialFolder
from harness.sweep import worker
from harness.sweep.folder import TrialSettings
from harness.sweep.worker import run_job
from harness.trials import runner
from ibc.training.nonfinite import NonFiniteError

TINY = {
    "policy.obs_mode": "state",
    "policy.energy.width": 8,
    "policy.energy.depth": 1,
    "policy.encoder.state_width": 8,
    "policy.negatives.count": 4,
    "policy.inference.samples": 4,
    "policy.inference.iterations": 1,
    "train.steps": 4,
    "train.epoch_steps": 2,
    "train.batch_size": 8,
    "train.warmup_steps": 2,
    "train.val_windows": 8,
    "select.seeds": 1,
}
# A trial that holds Python's lock in one C call, as a library that hangs does.
HANGS = """
import ctypes, sys
from harness.sweep import folder, worker
def hang(*given, **more):
    given[1].mkdir(parents=True, exist_ok=True)
    ctypes.PyDLL(None).sleep(600)
worker.run_trial = hang
settings = folder.TrialSettings(sys.argv[3], (), "", 1, 1.0)
worker.run_job(sys.argv[1], sys.argv[2], settings, print)
"""


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    monkeypatch.setattr(runner, "PROTOCOL", protocol.Protocol(max_episode_steps=6))


@pytest.fixture
def setting(write_demos, tmp_path, monkeypatch):
    monkeypatch.setenv("IBC_HARNESS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "demos.zarr"
    write_demos(path, lengths=(20, 15, 25))
    return TrialSettings(str(tmp_path / "sweep"), (str(path),), source.fingerprint(path), 1, 600.0)


@pytest.fixture
def job():
    return Job(trial_config.resolve(TINY), 0, "a job", {"question": "q", "arm": "a"})


def trial_of(setting, job):
    return TrialFolder(Path(setting.folder) / "trials" / job.id)


def status_of(setting, job):
    return json.loads((trial_of(setting, job).path / "status.json").read_text())


def test_a_job_is_run_and_leaves_no_trace_of_its_limit(setting, job):
    heard = []
    run_job(job.id, job.dumps(), setting, heard.append)
    assert [metrics["step"] for metrics in heard] == [2, 4]
    assert status_of(setting, job)["status"] == "finished"
    folder = trial_of(setting, job)
    assert folder.time_out() == ""
    assert not list(folder.path.glob(".stacks*"))


def test_a_hiccup_is_tried_again_and_what_always_fails_is_not(setting, job, monkeypatch):
    calls = []

    def fails(error):
        def raises(given, directory, *rest, **more):
            calls.append(error)
            raise error

        return raises

    monkeypatch.setattr(worker, "run_trial", fails(RuntimeError("boom")))
    run_job(job.id, job.dumps(), setting, print)
    assert len(calls) == 2
    assert status_of(setting, job)["error"] == "RuntimeError: boom"
    calls.clear()
    trial_of(setting, job).write_status(status="running")
    monkeypatch.setattr(worker, "run_trial", fails(NonFiniteError("the loss is nan", "loss")))
    run_job(job.id, job.dumps(), setting, print)
    assert len(calls) == 1
    calls.clear()
    monkeypatch.setattr(worker, "run_trial", fails(MemoryError("3 GiB")))
    trial_of(setting, job).write_status(status="running")
    run_job(job.id, job.dumps(), setting, print)
    assert len(calls) == 2  # once more
    assert (
        status_of(setting, job)["error"] == f"out of memory: MemoryError: 3 GiB; {processes.HINT}"
    )


def test_other_data_than_the_sweeps_fails_the_trial_with_a_clear_word(
    setting, job, tmp_path, write_demos
):
    write_demos(tmp_path / "other.zarr", lengths=(20, 15, 25), seed=1)
    elsewhere = TrialSettings(**{**asdict(setting), "data": (str(tmp_path / "other.zarr"),)})
    run_job(job.id, job.dumps(), elsewhere, print)
    status = status_of(setting, job)
    assert status["status"] == "failed"
    rule = f"must be those of the sweep, fingerprint {setting.fingerprint[:12]}; {tmp_path}/other"
    assert rule in status["error"]
    # It has begun nothing, so the right data may go on with it.
    assert trial_of(setting, job).read_config()["arm"] == "a"
    run_job(job.id, job.dumps(), setting, print)
    assert status_of(setting, job)["status"] == "finished"


def test_a_job_of_another_code_is_a_failure(setting, job):
    text = job.dumps().replace('"steps": 4', '"steps": 5')
    run_job(job.id, text, setting, print)
    assert "the code must not change under a sweep" in status_of(setting, job)["error"]


def test_what_hangs_in_c_is_ended_and_its_stacks_are_kept(tmp_path, job):
    folder = TrialFolder(tmp_path / "trials" / job.id)
    done = subprocess.run(
        [sys.executable, "-c", HANGS, job.id, job.dumps(), str(tmp_path)], timeout=120, check=False
    )
    assert done.returncode == 1
    stacks = folder.time_out()
    assert stacks.startswith("Timeout (0:00:01)!")
    assert "in hang" in stacks
    assert folder.time_out() == ""

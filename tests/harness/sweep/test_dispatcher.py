"""Which job runs next when workers die, hang or run out of memory, without any Ray."""

import subprocess
import sys
import time

import pytest
import torch

from harness.config.trial_config import TrialConfig
from harness.core import processes
from harness.scheduling.jobs import Job, PlannedJobs
from harness.sweep import dispatcher
from harness.sweep.dispatcher import RETRIES, Dispatch, explain
from harness.sweep.folder import SweepFolder

# As Ray words it, whatever the reason was.
DIED = (
    "The actor died unexpectedly before finishing this task.\n\tWorker exit type: SYSTEM_ERROR "
    "Worker exit detail: connection error code 2. End of file. There are some potential root "
    "causes. (1) The process is killed by SIGKILL by OOM killer due to high memory usage."
)


class Heard:
    def __init__(self):
        self.lines = []

    def start(self, job):
        self.lines.append(f"start {job.label}")

    def epoch(self, job, metrics):
        self.lines.append(f"{metrics} {job.label}")

    def end(self, job, status):
        self.lines.append(f"{status['status']} {job.label}")


def job(seed=0, **more):
    return Job(TrialConfig(), seed, f"job {seed}", **more)


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "kills", lambda: 0)

    def made(jobs, limit=3600.0):
        heard, notes = Heard(), []
        folder = SweepFolder(tmp_path)
        return Dispatch(jobs, folder, [heard], notes.append, limit), heard, notes, folder

    return made


def begin(dispatch, key):
    job = dispatch.next(key)
    dispatch.started(key)
    return job


def test_jobs_end_as_their_folders_say(made):
    work, heard, notes, folder = made(PlannedJobs([job(0), job(1)]))
    first, second = begin(work, "a"), begin(work, "b")
    assert work.next("c") is None
    work.epoch("a", "metrics")
    folder.trial(first.id).write_status(status="finished")
    work.ended("a")
    folder.trial(second.id).write_failure(ValueError("bad"))
    work.ended("b")
    assert work.next("c") is None
    told = "start job 0, start job 1, metrics job 0, finished job 0, failed job 1"
    assert ", ".join(heard.lines) == told
    assert notes == []


@pytest.mark.faults
def test_a_trial_whose_worker_dies_is_given_out_again_twice(made):
    work, heard, notes, folder = made(PlannedJobs([job(0), job(1)]))
    for key in "abc":
        died = begin(work, key)
        assert died.train_seed == 0  # before new ones
        folder.trial(died.id).write_status(status="running", attempts="abc".index(key) + 1)
        work.ended(key, DIED)
    status = folder.trial(died.id).read_status()
    assert (status["status"], status["attempts"]) == ("failed", 3)
    assert status["error"].startswith("RuntimeError: its worker process died: The actor died")
    assert "memory" not in status["error"]
    assert len(notes) == 2
    assert heard.lines == ["start job 0"] * 3 + ["failed job 0"]
    assert begin(work, "d").train_seed == 1


def test_what_lacked_memory_comes_again_once_and_last_and_says_what_helps(made):
    work, _, notes, folder = made(PlannedJobs([job(0), job(1)]))
    for key, seed in (("a", 0), ("b", 1)):
        assert begin(work, key).train_seed == seed
        if seed:
            folder.trial(job(1).id).write_status(status="finished")
        work.ended(key, None if seed else "Task was killed due to the node running low on memory.")
    assert begin(work, "c").train_seed == 0
    work.ended("c", "ray.exceptions.OutOfMemoryError: ...")
    error = folder.trial(job(0).id).read_status()["error"]
    assert error.startswith("out of memory: MemoryError: Ray killed its worker for memory: ")
    assert error.endswith(processes.HINT)
    assert len(notes) == 1


def test_a_death_while_the_system_kills_for_memory_is_one_of_memory(made, monkeypatch):
    work, _, notes, _ = made(PlannedJobs([job(0)]))
    begin(work, "a")
    monkeypatch.setattr(processes, "kills", lambda: 1)
    work.ended("a", DIED)
    assert "the system killed its worker for memory" in notes[0]
    # The next one is not to be blamed on the same kill.
    begin(work, "b")
    work.ended("b", DIED)
    assert "its worker process died" in notes[1]


def test_what_an_earlier_run_left_is_not_taken_for_the_end(made):
    work, heard, _, folder = made(PlannedJobs([job(0, until=5)]))
    folder.trial(job(0).id).write_status(status="stopped", step=3)
    begin(work, "a")
    work.ended("a", DIED)
    assert heard.lines == ["start job 0"]
    assert begin(work, "b").until == 5


def test_a_failure_that_cannot_be_written_is_told_all_the_same(made, monkeypatch):
    work, heard, notes, _ = made(PlannedJobs([job(0)]))
    monkeypatch.setitem(RETRIES, "crash", 0)

    def full(self, error, details=""):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.storage.trial_folder.TrialFolder.write_failure", full)
    begin(work, "a")
    work.ended("a", DIED)
    assert heard.lines[-1] == "failed job 0"
    assert "No space left on device" in notes[0]


def test_a_worker_that_is_stopped_or_late_is_to_be_killed(made, monkeypatch):
    monkeypatch.setattr(dispatcher, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(dispatcher, "STOPPED_SECONDS", 1e-9)
    monkeypatch.setattr(dispatcher, "GRACE_SECONDS", 0.0)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        work, _, notes, _ = made(PlannedJobs([job(0)]))
        begin(work, "a")
        work.running["a"].pid = sleeper.pid
        assert work.to_kill() == []
        sleeper.send_signal(19)
        until = time.monotonic() + 60
        while not processes.is_stopped(sleeper.pid):
            assert time.monotonic() < until
        time.sleep(0.01)
        monkeypatch.setattr(dispatcher, "LOOK_SECONDS", 1e-3)
        assert work.to_kill() == [("a", sleeper.pid)]
        assert work.to_kill() == []
        processes.kill(sleeper.pid)
        assert sleeper.wait(60) == -9
        work.ended("a", DIED)
        assert "was stopped by a signal, and was killed" in notes[0]
    finally:
        sleeper.kill()
        sleeper.wait()
    work, _, notes, folder = made(PlannedJobs([job(1)]), limit=-1.0)
    begin(work, "b")
    time.sleep(0.01)
    assert work.to_kill() == [("b", None)]
    work.ended("b", DIED)
    status = folder.trial(job(1).id).read_status()
    assert status["error"].startswith("TimeoutError: took longer than ")
    assert notes == []


def test_a_pause_of_this_process_is_not_held_against_its_workers(made, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(dispatcher.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(processes, "is_stopped", lambda pid: True)
    work, *_ = made(PlannedJobs([job(0)]), limit=1e9)
    begin(work, "a")
    work.running["a"].pid = 1
    clock[0] = 3600.0  # Ctrl-Z stops all of them
    assert work.to_kill() == []
    for _ in range(27):
        clock[0] += 1.0
        assert work.to_kill() == []
    clock[0] += 2.0
    assert work.to_kill() == [("a", 1)]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (ValueError("out of memory"), False),
        (RuntimeError("boom"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, expected):
    assert processes.ran_out(error) == expected


def test_torch_itself_is_understood():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert processes.ran_out(refused.value)


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/a", "a/memory.events", "low 0\nhigh 0\nmax 5\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("0::/a", "memory.events", "oom 3\noom_kill 2\n"),
        ("4:cpu,memory:/b\n0::/", "memory/b/memory.oom_control", "under_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_for_memory_are_read_from_the_control_group(
    tmp_path, monkeypatch, groups, file, text
):
    (tmp_path / "cgroup").write_text(f"{groups}\n")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 7\nlast 0\n")
    monkeypatch.setattr(processes, "_OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processes, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(processes, "_WHOLE_MACHINE", tmp_path / "vmstat")
    assert processes.kills() == 2
    (tmp_path / file).unlink()
    assert processes.kills() == 7


def test_rays_guesses_are_not_taken_for_news():
    assert explain(DIED, killed_for_memory=False).cause == "crash"
    assert "potential" not in explain(DIED, killed_for_memory=False).text

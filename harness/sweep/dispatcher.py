"""Hands jobs to workers, and decides what happens to the trial of a worker that failed."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.core import processes
from harness.core.text import duration, one_line
from harness.scheduling.jobs import Job, Jobs, Listener
from harness.sweep.folder import ENDED, SweepFolder

Cause = Literal["crash", "memory", "timeout"]

# How often a trial is retried after each: a crash may be the machine's fault, a lack of memory may
# pass, and time-outs are not retried.
RETRIES: dict[Cause, int] = {"crash": 2, "memory": 1, "timeout": 0}
_ERRORS = {"crash": RuntimeError, "memory": MemoryError, "timeout": TimeoutError}
LOOK_SECONDS = 1.0
STOPPED_SECONDS = 30.0  # a worker that a signal has stopped for so long is killed
# A worker ends itself at its trial's time limit; one that does not is killed after so many more.
GRACE_SECONDS = 60.0
SAME_ERROR_LIMIT = 5
_MAX_TEXT = 300
_GUESSES = "There are some potential root causes"  # where Ray's message turns to general advice


@dataclass(frozen=True)
class WorkerFailure:
    """How a worker failed: its cause, a text, and its threads' stacks where they are known."""

    cause: Cause
    text: str
    stacks: str = ""


def explain(message: str, *, killed_for_memory: bool) -> WorkerFailure:
    """Return the failure that Ray's message describes.

    killed_for_memory: whether the system has killed a process for memory at about that time.
    """
    detail = one_line(message.partition(_GUESSES)[0])[:_MAX_TEXT]
    more = "" if detail in ("", "None") else f": {detail}"
    if killed_for_memory:
        return WorkerFailure("memory", f"the system killed its worker for memory{more}")
    if processes.ran_out(message):
        return WorkerFailure("memory", f"Ray killed its worker for memory{more}")
    return WorkerFailure("crash", f"its worker process died{more}")


@dataclass
class _Running:
    job: Job
    began: float = math.inf
    pid: int | None = None  # on this machine
    stopped: float = 0.0  # for how many seconds in a row it was seen stopped
    killed: WorkerFailure | None = None


class Dispatch:
    """Knows which jobs run, kills those that hang, and retries those whose worker failed.

    listeners are notified of every job; note: prints a line that belongs to none. limit: the
    seconds that a trial may take.
    """

    def __init__(
        self,
        jobs: Jobs,
        folder: SweepFolder,
        listeners: Sequence[Listener],
        note: Callable[[str], None],
        limit: float,
    ) -> None:
        self.jobs, self.folder, self.listeners, self.note = jobs, folder, listeners, note
        self.limit = limit
        self.running: dict[str, _Running] = {}
        self._looked = time.monotonic()
        self._failures: Counter[tuple[str, Cause]] = Counter()  # by trial id
        self._memory_kills = processes.kills()
        self._retries: deque[Job] = deque()
        self._last: deque[Job] = deque()  # lacked memory: retried when nothing else is left
        self._error: str | None = None  # of the latest trial, and of how many in a row
        self._times = 0

    @property
    def stop_reason(self) -> str | None:
        """Why no further job is begun: the same error in a row; None as long as there is none."""
        if self._error is None or self._times < SAME_ERROR_LIMIT:
            return None
        return f"stopped: {self._times} trials in a row failed with the same error: {self._error}"

    def next(self, key: str) -> Job | None:
        """Return the next job, to be run under this key; None when there is none now."""
        job = None
        if self._retries:
            job = self._retries.popleft()
        elif self.stop_reason is None:
            job = self.jobs.next(idle=not self.running and not self._last)
        if job is None and self._last:
            job = self._last.popleft()
        if job is not None:
            self.running[key] = _Running(job)
            self.folder.attempt(lambda mirror: mirror.push_plan(self.folder.path.name))
        return job

    def started(self, key: str) -> None:
        """A worker starts the job of this key."""
        self.running[key].began = time.monotonic()
        for listener in self.listeners:
            listener.start(self.running[key].job)

    def epoch(self, key: str, metrics: Mapping[str, Any]) -> None:
        """An epoch of its job has ended."""
        for listener in self.listeners:
            listener.epoch(self.running[key].job, metrics)

    def ended(self, key: str, message: str | None = None) -> None:
        """Its worker has ended; message: Ray's, where the worker failed."""
        worker = self.running.pop(key)
        job = worker.job
        trial = self.folder.trial(job.id)
        self.folder.attempt(lambda mirror: mirror.pull_trial(trial.path))
        status = trial.read_status()
        # After a failure, "stopped" and "failed" may be of an earlier run.
        if status.get("status") not in (ENDED if message is None else ("finished",)):
            failure = self._explain(worker, message or "worker exited without a message")
            self._failures[job.id, failure.cause] += 1
            if self._failures[job.id, failure.cause] <= RETRIES[failure.cause]:
                (self._last if failure.cause == "memory" else self._retries).append(job)
                self.note(f"{job.label}: {failure.text}; it will resume from its last checkpoint")
                return
            error = _ERRORS[failure.cause](failure.text)
            trial.state = {**status, "attempts": max(status.get("attempts", 0), 1)}
            try:
                trial.write_failure(error, failure.stacks)
            except OSError as unwritable:  # a full disk, perhaps the cause of the failure
                trial.state.update(status="failed", error=str(error))
                self.note(f"{job.label}: its failure could not be written: {unwritable}")
            status = trial.state
            self.folder.attempt(lambda mirror: mirror.push_trial(trial.path))
        error_text = status.get("error") if status.get("status") == "failed" else None
        self._times = self._times + 1 if error_text == self._error else 1
        self._error = error_text
        self.jobs.done(job, status)
        for listener in self.listeners:
            listener.end(job, status)

    def to_kill(self) -> list[tuple[str, int | None]]:
        """Return the (key, pid on this machine) of workers that are to be killed, each once.

        These are late, or stopped by a signal.
        """
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK_SECONDS:
            return []
        self._looked = now
        found = []
        for key, worker in self.running.items():
            # The cut keeps a pause of this process (a closed laptop, Ctrl-Z) from counting.
            stopped = worker.pid is not None and processes.is_stopped(worker.pid)
            worker.stopped = worker.stopped + min(passed, 2 * LOOK_SECONDS) if stopped else 0.0
            if worker.killed is not None:
                continue
            if now - worker.began > self.limit + GRACE_SECONDS:
                worker.killed = self._late()
            elif worker.stopped >= STOPPED_SECONDS:
                text = "its worker was stopped by a signal, and was killed"
                worker.killed = WorkerFailure("crash", text)
            else:
                continue
            found.append((key, worker.pid))
        return found

    def _explain(self, worker: _Running, message: str) -> WorkerFailure:
        before, self._memory_kills = self._memory_kills, processes.kills()
        stacks = self.folder.trial(worker.job.id).time_out()
        if stacks:
            return self._late(stacks)
        return worker.killed or explain(message, killed_for_memory=self._memory_kills > before)

    def _late(self, stacks: str = "") -> WorkerFailure:
        limit = duration(self.limit)
        return WorkerFailure("timeout", f"took longer than {limit} (--hours-per-trial)", stacks)

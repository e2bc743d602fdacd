"""Hands jobs to workers, and decides what happens to the trial of a worker that failed."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.core import processes
from harness.core.text import duration, one_line
from harness.scheduling.jobs import WAIT, Job, Jobs, Listener, Wait
from harness.sweep.folder import ENDED, SweepFolder

Cause = Literal["crash", "memory", "timeout"]

# How often a trial is retried after each: a crash may be the machine's fault, a lack of memory may
# pass, and time-outs are not retried.
RETRIES: dict[Cause, int] = {"crash": 2, "memory": 1, "timeout": 0}
LOOK_SECONDS = 1.0
STOPPED_SECONDS = 30.0  # a worker that a signal has stopped for so long is killed
# A worker ends itself at its trial's time limit; one that does not is killed after so many more.
GRACE_SECONDS = 60.0
_MAX_TEXT = 300
_GUESSES = "There are some potential root causes"  # where Ray's message turns to general advice


@dataclass(frozen=True)
class WorkerFailure:
    """How a worker failed: its cause, a text, and its threads' stacks where they are known."""

    cause: Cause
    text: str
    stacks: str = ""

    @property
    def error(self) -> Exception:
        """The error that its trial gets."""
        types = {"crash": RuntimeError, "memory": MemoryError, "timeout": TimeoutError}
        return types[self.cause](self.text)


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
class _Watched:
    began: float
    pid: int | None = None
    stopped: float = 0.0  # for how many seconds in a row it was seen stopped


class Watchdog:
    """Finds workers that are over the time limit or stopped by a signal.

    limit: the seconds that a trial may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._watched: dict[str, _Watched] = {}
        self._looked = time.monotonic()

    def start(self, key: str) -> None:
        """A worker starts."""
        self._watched[key] = _Watched(time.monotonic())

    def set_pid(self, key: str, pid: int) -> None:
        """The worker is this process of this machine."""
        if key in self._watched:
            self._watched[key].pid = pid

    def end(self, key: str) -> None:
        """A worker has ended."""
        self._watched.pop(key, None)

    def look(self) -> list[tuple[str, int | None, bool]]:
        """Return (key, pid, whether it is late) of each worker to be killed, each once.

        Those that are not late are stopped.
        """
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK_SECONDS:
            return []
        self._looked = now
        found = []
        for key, worker in list(self._watched.items()):
            # The cut keeps a pause of this process (a closed laptop, Ctrl-Z) from counting.
            stopped = worker.pid is not None and processes.is_stopped(worker.pid)
            worker.stopped = worker.stopped + min(passed, 2 * LOOK_SECONDS) if stopped else 0.0
            late = now - worker.began > self.limit + GRACE_SECONDS
            if late or worker.stopped >= STOPPED_SECONDS:
                self.end(key)
                found.append((key, worker.pid, late))
        return found


class Dispatch:
    """Knows which jobs run, and retries those whose worker failed.

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
        self.running: dict[str, Job] = {}
        self._watchdog = Watchdog(limit)
        self._killed: dict[str, WorkerFailure] = {}
        self._failures: Counter[tuple[str, Cause]] = Counter()  # by trial id
        self._memory_kills = processes.kills()
        self._retries: deque[Job] = deque()
        self._last: deque[Job] = deque()  # lacked memory: retried when nothing else is left

    def next(self, key: str) -> Job | Wait | None:
        """Return the next job, to be run under this key; WAIT and None as in `Jobs`."""
        job = self._retries.popleft() if self._retries else self.jobs.next()
        if not isinstance(job, Job) and self._last:
            job = self._last.popleft()
        if isinstance(job, Job):
            self.running[key] = job
            self.folder.push_order()
            return job
        if self.running:
            return WAIT  # its worker may fail
        if job is WAIT:
            raise RuntimeError("the search waits for a trial to end, and none runs")
        return None

    def started(self, key: str) -> None:
        """A worker starts the job of this key."""
        self._watchdog.start(key)
        for listener in self.listeners:
            listener.start(self.running[key])

    def set_pid(self, key: str, pid: int) -> None:
        """Its worker is this process of this machine."""
        self._watchdog.set_pid(key, pid)

    def epoch(self, key: str, metrics: Mapping[str, Any]) -> None:
        """An epoch of its job has ended."""
        for listener in self.listeners:
            listener.epoch(self.running[key], metrics)

    def ended(self, key: str, message: str | None = None) -> None:
        """Its worker has ended; message: Ray's, where the worker failed."""
        self._watchdog.end(key)
        job = self.running.pop(key)
        self.folder.refresh_trial(job.id)
        trial = self.folder.trial(job.id)
        status = trial.read_status()
        # After a failure, "stopped" and "failed" may be of an earlier run.
        if status.get("status") not in (ENDED if message is None else ("finished",)):
            failure = self._explain(key, job, message or "worker exited without a message")
            self._failures[job.id, failure.cause] += 1
            if self._failures[job.id, failure.cause] <= RETRIES[failure.cause]:
                (self._last if failure.cause == "memory" else self._retries).append(job)
                self.note(f"{job.label}: {failure.text}; it will resume from its last checkpoint")
                return
            trial.state = {**status, "attempts": max(status.get("attempts", 0), 1)}
            try:
                trial.write_failure(failure.error, failure.stacks)
            except OSError as error:  # a full disk, perhaps, which may be the cause of the failure
                trial.state.update(status="failed", error=str(failure.error))
                self.note(f"{job.label}: its failure could not be written: {error}")
            status = trial.state
            self.folder.push_trial(job.id)
        self.jobs.done(job, status)
        for listener in self.listeners:
            listener.end(job, status)

    def to_kill(self) -> list[tuple[str, int | None]]:
        """Return the (key, pid on this machine) of workers that are to be killed now."""
        found = []
        for key, pid, late in self._watchdog.look():
            stopped = WorkerFailure("crash", "its worker was stopped by a signal, and was killed")
            self._killed[key] = self._late() if late else stopped
            found.append((key, pid))
        return found

    def _explain(self, key: str, job: Job, message: str) -> WorkerFailure:
        before, self._memory_kills = self._memory_kills, processes.kills()
        stacks = self.folder.trial(job.id).time_out()
        if stacks:
            return self._late(stacks)
        killed = self._killed.pop(key, None)
        return killed or explain(message, killed_for_memory=self._memory_kills > before)

    def _late(self, stacks: str = "") -> WorkerFailure:
        limit = duration(self._watchdog.limit)
        return WorkerFailure("timeout", f"took longer than {limit} (--hours-per-trial)", stacks)

"""Workers that die: why it was, and whether their trial is handed out again."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.core import processes
from harness.core.processes import is_stopped
from harness.core.text import duration, one_line
from harness.scheduling.jobs import WAIT, Job, Jobs, Listener, Wait
from harness.sweep.folder import SweepFolder
from harness.sweep.worker import ENDED

Cause = Literal["death", "memory", "time"]


# How often a trial begins again after each: a machine's hiccup passes, a lack of memory perhaps,
# and what hangs once hangs again.
AGAIN: dict[Cause, int] = {"death": 2, "memory": 1, "time": 0}
_MAX_TEXT = 300


# Ray guesses for everybody alike from here on.
_GUESSES = "There are some potential root causes"


@dataclass(frozen=True)
class Death:
    """How a worker died: the cause, in words, and its threads' stacks where they are known."""

    cause: Cause
    text: str
    stacks: str = ""

    @property
    def error(self) -> Exception:
        """What the trial failed of."""
        sorts = {"death": RuntimeError, "memory": MemoryError, "time": TimeoutError}
        return sorts[self.cause](self.text)


def explain(said: str, *, killed_for_memory: bool) -> Death:
    """Return what Ray's words for a worker's end come to.

    killed_for_memory: the system has killed a process for memory at about that time.
    """
    detail = one_line(said.partition(_GUESSES)[0])[:_MAX_TEXT]
    more = "" if detail in ("", "None") else f": {detail}"
    if killed_for_memory:
        return Death("memory", f"the system killed its worker for memory{more}")
    if processes.ran_out(said):
        return Death("memory", f"Ray killed its worker for memory{more}")
    return Death("death", f"its worker process died{more}")


class Deaths:
    """Counts them by trial and cause."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Cause]] = Counter()

    def again(self, id_: str, cause: Cause) -> bool:
        """Count a death; return whether the trial is to be tried again."""
        self._counts[id_, cause] += 1
        return self._counts[id_, cause] <= AGAIN[cause]

    def of(self, id_: str) -> int:
        """Return how often a trial's workers died."""
        return sum(count for (its, _), count in self._counts.items() if its == id_)


LOOK_SECONDS = 1.0


# Stopped for so long, as by a signal that nobody takes back.
STOPPED_SECONDS = 30.0


# A worker ends itself at its trial's limit; one that does not even do this is ended then.
GRACE_SECONDS = 60.0


@dataclass
class _Watched:
    began: float
    pid: int | None = None
    stopped: float = 0.0  # seconds that it was seen stopped, one after the other


class Watchdog:
    """Knows the workers at work and says which of them are to be killed.

    limit: the seconds that a trial may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._watched: dict[str, _Watched] = {}
        self._looked = time.monotonic()

    def start(self, key: str) -> None:
        """A worker begins."""
        self._watched[key] = _Watched(time.monotonic())

    def here(self, key: str, pid: int) -> None:
        """It is this process of this machine."""
        if key in self._watched:
            self._watched[key].pid = pid

    def end(self, key: str) -> None:
        """A worker is done."""
        self._watched.pop(key, None)

    def look(self) -> list[tuple[str, int | None, bool]]:
        """Return (key, process, whether it is late) of each worker to be killed, each once.

        The others are stopped.
        """
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK_SECONDS:
            return []
        self._looked = now
        found = []
        for key, worker in list(self._watched.items()):
            # A pause of this very process (a closed laptop, Ctrl-Z) is not held against others.
            still = worker.pid is not None and is_stopped(worker.pid)
            worker.stopped = worker.stopped + min(passed, 2 * LOOK_SECONDS) if still else 0.0
            late = now - worker.began > self.limit + GRACE_SECONDS
            if late or worker.stopped >= STOPPED_SECONDS:
                self.end(key)
                found.append((key, worker.pid, late))
        return found


class Dispatch:
    """Knows what runs, and gives out again what died on its way.

    listeners hear of every trial; note: says what belongs to none. limit: the seconds of a trial.
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
        self._killed: dict[str, Death] = {}
        self._deaths = Deaths()
        self._memory_kills = processes.kills()
        self._again: deque[Job] = deque()
        self._later: deque[Job] = deque()  # lacked memory: when less else wants it

    def next(self, key: str) -> Job | Wait | None:
        """Return the next job, to be run under this key; WAIT and None as `Jobs` says."""
        job = self._again.popleft() if self._again else self.jobs.next()
        if not isinstance(job, Job) and self._later:
            job = self._later.popleft()
        if isinstance(job, Job):
            self.running[key] = job
            self.folder.push_order()
            return job
        if self.running:
            return WAIT  # one that dies may be handed out again
        if job is WAIT:
            raise RuntimeError("the search waits for a trial to end, and none runs")
        return None

    def started(self, key: str) -> None:
        """A worker begins with the job of this key."""
        self._watchdog.start(key)
        for listener in self.listeners:
            listener.start(self.running[key])

    def here(self, key: str, pid: int) -> None:
        """Its worker is this process of this machine."""
        self._watchdog.here(key, pid)

    def epoch(self, key: str, metrics: Mapping[str, Any]) -> None:
        """An epoch of it has ended."""
        for listener in self.listeners:
            listener.epoch(self.running[key], metrics)

    def ended(self, key: str, said: str | None = None) -> None:
        """Its worker is done with it, or died; `said` is what was heard of that then."""
        self._watchdog.end(key)
        job = self.running.pop(key)
        self.folder.refresh_trial(job.id)
        trial = self.folder.trial(job.id)
        status = trial.read_status()
        # What a worker that died leaves may be of an earlier run, but for this.
        if status.get("status") not in (ENDED if said is None else ("finished",)):
            death = self._death(key, job, said or "it ended without a word")
            if self._deaths.again(job.id, death.cause):
                (self._later if death.cause == "memory" else self._again).append(job)
                self.note(f"{job.label}: {death.text}; it will go on from its last checkpoint")
                return
            trial.state = {**status, "attempts": max(status.get("attempts", 0), 1)}
            try:
                trial.write_failure(death.error, death.stacks)
            except OSError as error:  # a full disk, perhaps, which may have been the reason too
                trial.state.update(status="failed", error=str(death.error))
                self.note(f"{job.label}: its failure could not be written down: {error}")
            status = trial.state
            self.folder.push_trial(job.id)
        self.jobs.done(job, status)
        for listener in self.listeners:
            listener.end(job, status)

    def to_kill(self) -> list[tuple[str, int | None]]:
        """Return the (key, process of this machine) of workers that are to be killed now."""
        found = []
        for key, pid, late in self._watchdog.look():
            stopped = Death("death", "its worker did not move any more, and was killed")
            self._killed[key] = self._late() if late else stopped
            found.append((key, pid))
        return found

    def _death(self, key: str, job: Job, said: str) -> Death:
        before, self._memory_kills = self._memory_kills, processes.kills()
        stacks = self.folder.trial(job.id).time_out()
        if stacks:
            return self._late(stacks)
        killed = self._killed.pop(key, None)
        return killed or explain(said, killed_for_memory=self._memory_kills > before)

    def _late(self, stacks: str = "") -> Death:
        limit = duration(self._watchdog.limit)
        return Death("time", f"took longer than {limit} (--hours-per-trial)", stacks)

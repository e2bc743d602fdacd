"""Hands jobs to an executor, which calls each of its trials by a key, and hears how they end."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness import memory
from harness.deaths import Death, Deaths, explain
from harness.jobs import WAIT, Job, Jobs, Listener, Wait
from harness.progress import duration
from harness.sweep_folder import SweepFolder
from harness.trial_work import ENDED
from harness.watchdog import Watchdog


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
        self._memory_kills = memory.kills()
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
        before, self._memory_kills = self._memory_kills, memory.kills()
        stacks = self.folder.trial(job.id).time_out()
        if stacks:
            return self._late(stacks)
        killed = self._killed.pop(key, None)
        return killed or explain(said, killed_for_memory=self._memory_kills > before)

    def _late(self, stacks: str = "") -> Death:
        limit = duration(self._watchdog.limit)
        return Death("time", f"took longer than {limit} (--hours-per-trial)", stacks)

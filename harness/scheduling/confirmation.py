"""The best points of a search trained anew: the winner's own score is too high to be reported.

It was chosen for being the highest of many. Fresh training seeds and report seeds know nothing of
that choice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config.search_spec import Confirm, Search
from harness.config.trial_config import config_hash
from harness.core import files
from harness.scheduling.jobs import NONE, WAIT, Job, Parameters, SearchSource, Statuses, Wait
from harness.scheduling.search_history import CONFIRMATION, earlier, make_job

TEXT = "How good are the search's best points with training seeds that it has not seen?"


class ConfirmJobs:
    """The jobs of a search and, once all of them are done, those of its confirmation.

    The points of the confirmation are the search's best, in its order, and behind them those that
    were begun when the search was shorter and others were its best.
    """

    def __init__(
        self,
        jobs: SearchSource,
        search: Search,
        sweep: str,
        directory: Path,
        *,
        retry_failed: bool = False,
        statuses: Statuses = NONE,
    ) -> None:
        assert search.confirm is not None, "a search without a confirmation has no need of this"
        self.jobs, self.search, self.sweep, self.directory = jobs, search, sweep, directory
        self.confirm: Confirm = search.confirm
        self._retry_failed = retry_failed
        self._running: set[str] = set()
        self._chosen: list[tuple[int, Parameters]] | None = None
        self._queue: list[Job] = []
        if not jobs.begun and not jobs.further:
            self._choose(statuses)

    @property
    def begun(self) -> tuple[Job, ...]:
        """The jobs that are known: those of the search that were begun, or of the confirmation."""
        return (*self.jobs.begun, *self._queue)

    @property
    def further(self) -> int:
        """About how many jobs will be found beside those."""
        return self.jobs.further + self._expected

    @property
    def full_trials(self) -> float:
        """About how many trials of full length all these jobs amount to."""
        return self.jobs.full_trials + len(self._queue) + self._expected

    @property
    def typical(self) -> Job:
        """A job in the middle of the space, for an estimate of the time."""
        return self.jobs.typical

    def ranking(self) -> list[tuple[int, Parameters]]:
        """Return the search's points with their numbers, the best first."""
        return self.jobs.ranking()

    def next(self) -> Job | Wait | None:
        """Return the next job; WAIT while the search's last ones run."""
        if self._chosen is None:
            job = self.jobs.next()
            if isinstance(job, Job):
                self._running.add(job.id)
            if job is not None:
                return job
            if self._running:
                return WAIT
            self._choose(NONE)
            self.note()
        return self._queue.pop(0) if self._queue else None

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Pass the end of a search's job on; a confirmation does not change by what comes out."""
        if job.id in self._running:
            self._running.discard(job.id)
            self.jobs.done(job, status)

    def note(self) -> None:
        """Write the confirmation into plan.json as a question, once its points are known."""
        if not self._chosen:
            return
        path = self.directory / "plan.json"
        arms = [
            {"arm": f"#{number}", "config_hash": config_hash(self.search.config(parameters))}
            for number, parameters in self._chosen
        ]
        question = {
            "question": CONFIRMATION,
            "text": TEXT,
            "track": self.search.track,
            "baseline": arms[0]["config_hash"],
            "train_seeds": list(self.confirm.train_seeds),
            "arms": arms,
        }
        files.write_json({**files.read_json(path), "questions": [question]}, path)

    @property
    def _expected(self) -> int:
        if self._chosen is not None:
            return 0
        points = min(self.confirm.winners, self.search.trials)
        return points * len(self.confirm.train_seeds)

    def _choose(self, statuses: Statuses) -> None:
        """Choose the points and queue those of their jobs that are not done."""
        found = earlier(self.directory, self.search, CONFIRMATION, statuses)
        best = self.jobs.ranking()[: self.confirm.winners]
        numbers = {number for number, _ in best}
        before = [each for each in found.parameters.items() if each[0] not in numbers]
        self._chosen = [*best, *before]
        over = {"finished"} if self._retry_failed else {"finished", "failed"}
        # A whole replicate first: an early look at the table is a fair one.
        for seed in self.confirm.train_seeds:
            for number, parameters in self._chosen:
                if found.statuses.get((number, seed), {}).get("status") not in over:
                    self._queue.append(self._job(number, parameters, seed))

    def _job(self, number: int, parameters: Parameters, seed: int) -> Job:
        return make_job(self.search, self.sweep, number, parameters, seed, question=CONFIRMATION)

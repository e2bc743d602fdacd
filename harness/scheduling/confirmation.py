"""The confirmation of a search: its best parameters trained and evaluated with fresh seeds.

The winner's score in the search is biased upwards, because it was chosen for being the highest of
many. Training seeds and test seeds that had no part in the choice give an unbiased one.
"""

from collections.abc import Mapping
from typing import Any

from harness.config.search_spec import Confirm
from harness.config.trial_config import config_hash
from harness.core import files
from harness.scheduling.jobs import Job, Parameters
from harness.scheduling.search_history import CONFIRMATION, SearchRun
from harness.scheduling.search_jobs import SearchJobs

TEXT = "How good are the search's best parameters with training seeds that it has not seen?"


def search_jobs(run: SearchRun) -> "SearchJobs | ConfirmJobs":
    """Return the jobs of a search that are left by the state of its sweep's folder."""
    jobs = SearchJobs(run)
    return jobs if run.search.confirm is None else ConfirmJobs(jobs, run.search.confirm)


class ConfirmJobs:
    """The jobs of a search and, once all of them are done, those of its confirmation.

    Confirmed are the search's best parameters in its order, then those that were confirmed when
    the search was shorter and had other winners.
    """

    def __init__(self, jobs: SearchJobs, confirm: Confirm) -> None:
        self.jobs, self.run, self.confirm = jobs, jobs.run, confirm
        self._chosen: list[tuple[int, Parameters]] | None = None
        self._queue: list[Job] = []
        if not jobs.begun and not jobs.further:
            self._choose()

    @property
    def begun(self) -> tuple[Job, ...]:
        """The known jobs: those of the search that were begun, or those of the confirmation."""
        return (*self.jobs.begun, *self._queue)

    @property
    def further(self) -> int:
        """The approximate number of jobs that follow those."""
        return self.jobs.further + self._expected

    @property
    def full_trials(self) -> float:
        """The approximate number of trials of full length that all these jobs amount to."""
        return self.jobs.full_trials + len(self._queue) + self._expected

    def next(self, idle: bool) -> Job | None:
        """Return the next job, None when there is none or the last ones of the search run."""
        if self._chosen is None:
            job = self.jobs.next(idle)
            if job is not None or not idle:
                return job
            self._choose()
            self.write_question()
        return self._queue.pop(0) if self._queue else None

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Pass the end of a search's job on; a confirmation does not depend on its results."""
        if self._chosen is None:
            self.jobs.done(job, status)

    def write_question(self) -> None:
        """Write the confirmation into plan.json as a question, once its parameters are chosen."""
        if not self._chosen:
            return
        path = self.run.directory / "plan.json"
        arms = [
            {"arm": f"#{number}", "config_hash": config_hash(self.run.search.config(parameters))}
            for number, parameters in self._chosen
        ]
        question = {
            "question": CONFIRMATION,
            "text": TEXT,
            "track": self.run.search.track,
            "baseline": arms[0]["config_hash"],
            "train_seeds": list(self.confirm.train_seeds),
            "arms": arms,
        }
        files.write_json({**files.read_json(path), "questions": [question]}, path)

    @property
    def _expected(self) -> int:
        if self._chosen is not None:
            return 0
        winners = min(self.confirm.winners, self.run.search.trials)
        return winners * len(self.confirm.train_seeds)

    def _choose(self) -> None:
        """Choose the parameters and queue those of their jobs that are not done."""
        found = self.run.earlier(CONFIRMATION)
        best = self.jobs.ranking()[: self.confirm.winners]
        numbers = {number for number, _ in best}
        before = [each for each in found.parameters.items() if each[0] not in numbers]
        self._chosen = [*best, *before]
        # Seed by seed, so that the arms of a partial result can be compared.
        for seed in self.confirm.train_seeds:
            for number, parameters in self._chosen:
                if not self.run.is_over(found.statuses.get((number, seed), {})):
                    job = self.run.job(number, parameters, seed, question=CONFIRMATION)
                    self._queue.append(job)

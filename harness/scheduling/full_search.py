"""The jobs of a search: all parameters with every training seed, each trial to its end."""

from collections.abc import Mapping
from typing import Any

from harness.scheduling.confirmation import ConfirmJobs
from harness.scheduling.jobs import Job, SearchSource
from harness.scheduling.search_history import SearchJobs, SearchRun, finite_score
from harness.scheduling.successive_halving import HalvingJobs


def search_jobs(run: SearchRun) -> SearchSource:
    """Return the jobs of a search that are left by the state of its sweep's folder."""
    jobs = FullJobs(run) if run.search.halving is None else HalvingJobs(run)
    return jobs if run.search.confirm is None else ConfirmJobs(jobs, run)


class FullJobs(SearchJobs):
    """Samples parameters and tells their mean selection score over the training seeds.

    Trials found in the sweep's folder come first: finished ones are told to the sampler, others run
    to their end, failed ones again if asked. So an interrupted search resumes, and a finished one
    can be extended.
    """

    def __init__(self, run: SearchRun) -> None:
        super().__init__(run)
        self._scores: dict[int, dict[int, float | None]] = {}  # by number and training seed
        for number, parameters in self._parameters.items():
            self.sampler.add(number, parameters)
            for seed in run.train_seeds:
                status = self._earlier.statuses.get((number, seed), {})
                if run.is_over(status):
                    self._record(number, seed, status)
                else:
                    self._queue.append(run.job(number, parameters, seed))

    @property
    def further(self) -> int:
        """The number of jobs whose parameters are still to be sampled."""
        return self._left * len(self.run.train_seeds)

    @property
    def full_trials(self) -> float:
        """The number of jobs: each is a whole trial."""
        return float(len(self._queue) + self.further)

    def next(self) -> Job | None:
        """Return the next job, None at the end."""
        if not self._queue and (number := self._sample()) is not None:
            parameters = self._parameters[number]
            self._queue += [self.run.job(number, parameters, s) for s in self.run.train_seeds]
        return self._queue.pop(0) if self._queue else None

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Record a score; the sampler gets the mean when all training seeds are done."""
        self._record(job.info["number"], job.train_seed, status)

    def _order(self) -> list[int]:
        return self._ranked(self._scores)

    def _record(self, number: int, seed: int, status: Mapping[str, Any]) -> None:
        scores = self._scores.setdefault(number, {})
        scores[seed] = finite_score(status) if status.get("status") == "finished" else None
        if scores.keys() >= set(self.run.train_seeds):
            self.sampler.tell(number, self._mean(scores))

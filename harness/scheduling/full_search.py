"""The jobs of a search: every point for every training seed, from its beginning to its end."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from harness.config.plan import Plan
from harness.config.search_spec import Search
from harness.scheduling.confirmation import ConfirmJobs
from harness.scheduling.jobs import NONE, Job, Parameters, SearchSource, Statuses
from harness.scheduling.samplers import points
from harness.scheduling.search_history import earlier, finite_score, make_job, typical_job
from harness.scheduling.successive_halving import HalvingJobs


class _How(TypedDict):
    retry_failed: bool
    statuses: Statuses


def search_jobs(
    plan: Plan,
    sweep: str,
    directory: Path,
    *,
    retry_failed: bool = False,
    statuses: Statuses = NONE,
) -> SearchSource:
    """Return the jobs of a plan's search, as far as the sweep's folder says that they are left.

    statuses: of trials by their names, where they are known already.
    """
    search = plan.search
    assert search is not None, "a plan without a search knows its jobs"
    kind = FullJobs if search.halving is None else HalvingJobs
    how: _How = {"retry_failed": retry_failed, "statuses": statuses}
    found = kind(search, sweep, directory, plan.train_seeds, **how)
    return found if search.confirm is None else ConfirmJobs(found, search, sweep, directory, **how)


class FullJobs:
    """Asks for the next point and tells its mean selection score over the training seeds.

    Points found in the sweep's folder come first: finished ones are told, others are run to their
    end, failed ones again with `retry_failed`. So a killed search goes on, and a finished one can
    be extended.
    """

    def __init__(
        self,
        search: Search,
        sweep: str,
        directory: Path,
        train_seeds: Sequence[int],
        *,
        retry_failed: bool = False,
        statuses: Statuses = NONE,
    ) -> None:
        self.search, self.sweep, self.train_seeds = search, sweep, tuple(train_seeds)
        self.points = points(search, sweep)
        self._parameters: dict[int, Parameters] = {}
        self._scores: dict[int, dict[int, float | None]] = {}  # by point and training seed
        self._queue: list[Job] = []
        self._read(directory, retry_failed, statuses)

    @property
    def begun(self) -> tuple[Job, ...]:
        """The jobs of points that were asked before and are to be run (again)."""
        return tuple(self._queue)

    @property
    def further(self) -> int:
        """How many jobs the points that are still to be asked will have."""
        return self._points_left * len(self.train_seeds)

    @property
    def full_trials(self) -> float:
        """Every job is a whole trial."""
        return float(len(self._queue) + self.further)

    @property
    def typical(self) -> Job:
        """A job in the middle of the space, for an estimate of the time."""
        return typical_job(self.search, self.sweep, self.train_seeds[0])

    def next(self) -> Job | None:
        """Return the next job: one that was begun, or a new point's."""
        if not self._queue and self._points_left:
            point = self.points.ask(self._next, self._parameters.values())
            if point is not None:
                self._parameters[self._next] = point
                self._queue += [self._job(self._next, seed) for seed in self.train_seeds]
                self._next += 1
        return self._queue.pop(0) if self._queue else None

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Tell the score once all training seeds of the point are done."""
        self._take(job.info["number"], job.train_seed, status)

    def ranking(self) -> list[tuple[int, Parameters]]:
        """Return the points with their numbers, the best first; those without a score are out."""
        scored = [(number, self._mean(number)) for number in self._parameters]
        known = [(number, score) for number, score in scored if score is not None]
        known.sort(key=lambda each: (-each[1], each[0]))
        return [(number, self._parameters[number]) for number, _ in known]

    @property
    def _points_left(self) -> int:
        return max(0, self.search.trials - len(self._parameters))

    def _job(self, number: int, seed: int) -> Job:
        return make_job(self.search, self.sweep, number, self._parameters[number], seed)

    def _mean(self, number: int) -> float | None:
        """Return the mean score, None when a training seed failed or is not done."""
        scores = self._scores.get(number, {})
        known = [score for seed in self.train_seeds if (score := scores.get(seed)) is not None]
        return math.fsum(known) / len(known) if len(known) == len(self.train_seeds) else None

    def _take(self, number: int, seed: int, status: Mapping[str, Any]) -> None:
        scores = self._scores.setdefault(number, {})
        scores[seed] = finite_score(status) if status.get("status") == "finished" else None
        if scores.keys() >= set(self.train_seeds):
            self.points.tell(number, self._mean(number))

    def _read(self, directory: Path, retry_failed: bool, statuses: Statuses) -> None:
        """Take up the points of earlier runs, in the order in which they were asked."""
        found = earlier(directory, self.search, statuses=statuses)
        self._next = found.next
        over = {"finished"} if retry_failed else {"finished", "failed"}
        for number, parameters in found.parameters.items():
            self._parameters[number] = parameters
            self.points.add(number, parameters)
            for seed in self.train_seeds:
                status = found.statuses.get((number, seed), {})
                if status.get("status") in over:
                    self._take(number, seed, status)
                else:
                    self._queue.append(self._job(number, seed))

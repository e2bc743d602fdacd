"""Which trial comes next: from a plan that is known beforehand, or from a search as it goes."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, Self

from harness.config.plan import BASELINE, PlannedTrial
from harness.config.trial_config import TrialConfig, config_hash, from_dict, to_dict, trial_id
from harness.storage.trial_folder import TrialFolder

SAME_ERROR_LIMIT = 5


class Wait(Enum):
    """The type of WAIT."""

    WAIT = "wait"


# There is no job now; ask again once one that runs has ended.
WAIT: Final = Wait.WAIT


@dataclass(frozen=True)
class Job:
    """One trial to be run; `info` goes into its config.json.

    until: the optimiser steps after which it pauses with the status "stopped"; None for its end.
    A job that was stopped may be handed out again with more steps.
    """

    config: TrialConfig
    train_seed: int
    label: str
    info: Mapping[str, Any] = field(default_factory=dict)
    until: int | None = None

    @cached_property  # asked for again and again, and in plans of ten thousand
    def id(self) -> str:
        """The name of the trial's folder."""
        return trial_id(config_hash(self.config), self.train_seed)

    def dumps(self) -> str:
        """Return the job as JSON text, as it travels to a worker."""
        content = {**vars(self), "config": to_dict(self.config), "id": self.id}
        return json.dumps(content)

    @classmethod
    def loads(cls, text: str) -> Self:
        """Return the job of `dumps`; ValueError when this code makes another trial of it."""
        content = json.loads(text)
        id_ = content.pop("id")
        job = cls(**{**content, "config": from_dict(content["config"])})
        if job.id != id_:
            raise ValueError(f"the code must not change under a sweep: {id_} is {job.id} by now")
        return job


class Jobs(Protocol):
    """Where jobs come from."""

    def next(self) -> Job | Wait | None:
        """Return the next job; WAIT when there may be one later; None when none is left, ever."""

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Take note of how a job ended: the content of its status.json."""


class Listener(Protocol):
    """Who hears of jobs as they are run."""

    def start(self, job: Job) -> None:
        """A job begins, or begins again."""

    def epoch(self, job: Job, metrics: Mapping[str, Any]) -> None:
        """An epoch has ended; a job that began again may tell of one twice."""

    def end(self, job: Job, status: Mapping[str, Any]) -> None:
        """A job is over: the content of its status.json."""


class PlannedJobs:
    """Jobs in a fixed order."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._left = list(jobs)[::-1]

    def next(self) -> Job | None:
        """Return the next job, None when there is none left."""
        return self._left.pop() if self._left else None

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """A plan does not change by what comes out."""


class StopOnSameError:
    """Gives out no more jobs once several in a row have failed with the same error."""

    def __init__(self, jobs: Jobs, *, limit: int = SAME_ERROR_LIMIT) -> None:
        self._jobs, self._limit = jobs, limit
        self._error: str | None = None
        self._times = 0

    @property
    def reason(self) -> str | None:
        """Why the sweep was stopped, None while it goes on."""
        if self._times < self._limit:
            return None
        return f"stopped: {self._times} trials in a row failed with the same error: {self._error}"

    def next(self) -> Job | Wait | None:
        """Return what is next, None when there is none left or it would be in vain."""
        return None if self.reason else self._jobs.next()

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Count what is the same."""
        error = status.get("error") if status.get("status") == "failed" else None
        self._times = self._times + 1 if error is not None and error == self._error else 1
        self._error = error
        if error is None:
            self._times = 0
        self._jobs.done(job, status)


def planned_job(trial: PlannedTrial, sweep: str) -> Job:
    """Return the job of a planned trial, with the names that it has in this sweep."""
    questions = [name for name in trial.names if name[1] != BASELINE]
    baseline = len(questions) < len(trial.names) or not trial.names
    arm = f"{BASELINE} ({trial.track})" if baseline else questions[0][1]
    question = None if baseline else questions[0][0]
    info = {
        "sweep": sweep,
        "question": question,
        "arm": arm,
        "track": trial.track,
        "arms": [f"{question} / {arm}" for question, arm in trial.names],
    }
    label = arm if question is None else f"{question} / {arm}"
    return Job(trial.config, trial.train_seed, f"{label}, seed {trial.train_seed}", info)


def statuses(directory: Path, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what each trial's folder says of its state, {} for one that has not begun."""
    return {id_: TrialFolder(directory / "trials" / id_).read_status() for id_ in ids}


def sort_longest_first(jobs: Iterable[Job], seconds: Callable[[Job], float]) -> list[Job]:
    """Return jobs with the longest first within a training seed: a long one last waits alone."""
    seeds: dict[int, int] = {}
    jobs = list(jobs)
    for job in jobs:
        seeds.setdefault(job.train_seed, len(seeds))
    return sorted(jobs, key=lambda job: (seeds[job.train_seed], -seconds(job)))


Parameters = Mapping[str, Any]
Statuses = Mapping[str, Mapping[str, Any]]
NONE: Statuses = MappingProxyType({})


class Points(Protocol):
    """Suggests points. What earlier runs asked for is added first, in the order of its numbers."""

    def add(self, number: int, parameters: Parameters) -> None:
        """Take note of a point that was asked for before."""

    def ask(self, number: int, known: Collection[Parameters]) -> Parameters | None:
        """Return a new point, None when there is none that is not known yet."""

    def tell(self, number: int, score: float | None) -> None:
        """Take note of a point's score, None for one that failed."""


class SearchSource(Jobs, Protocol):
    """The jobs of a search, and what is known of them before they are asked for."""

    @property
    def begun(self) -> tuple[Job, ...]:
        """The jobs that come first: of points that were begun before."""

    @property
    def further(self) -> int:
        """About how many jobs will be found beside those."""

    @property
    def full_trials(self) -> float:
        """About how many trials of full length all these jobs amount to."""

    @property
    def typical(self) -> Job:
        """A job in the middle of the space, for an estimate of the time."""

    def ranking(self) -> list[tuple[int, Parameters]]:
        """Return the points with their numbers, the best first; those without a score are out."""

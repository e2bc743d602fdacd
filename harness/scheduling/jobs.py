"""The queue of jobs: a fixed plan, or a search that decides as results arrive."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Protocol, Self

from harness.config.plan import BASELINE, PlannedTrial
from harness.config.trial_config import (
    TrialConfig,
    config_hash,
    from_stored,
    to_dict,
    training_hash,
    trial_id,
)

Parameters = Mapping[str, Any]
Statuses = Mapping[str, Mapping[str, Any]]  # the content of status.json by trial id


def state_of(status: Mapping[str, Any]) -> str:
    """Return the status of a status.json, "pending" where there is none."""
    return str(status.get("status", "pending"))


@dataclass(frozen=True)
class Job:
    """One trial to run; `info` goes into its config.json.

    until: pause with the status "stopped" after so many optimiser steps; None runs to the end. A
    stopped trial may become a job again, with more steps. weights_of: the id of a trial that trains
    the same weights; once it has finished, they are taken from it (`share_trainings`).
    """

    config: TrialConfig
    train_seed: int
    label: str
    info: Mapping[str, Any] = field(default_factory=dict)
    until: int | None = None
    weights_of: str | None = None

    @cached_property  # hashing is slow, and plans may have thousands of jobs
    def config_hash(self) -> str:
        """The hash of the config."""
        return config_hash(self.config)

    @property
    def id(self) -> str:
        """The name of the trial's folder."""
        return trial_id(self.config_hash, self.train_seed)

    def dumps(self) -> str:
        """Return the job as JSON text for a worker."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({**content, "config": to_dict(self.config), "id": self.id})

    @classmethod
    def loads(cls, text: str) -> Self:
        """Return the job of `dumps`; ValueError when this code gives it another id."""
        content = json.loads(text)
        id_ = content.pop("id")
        job = cls(**{**content, "config": from_stored(content["config"])})
        if job.id != id_:
            raise ValueError(f"the code must not change under a sweep: {id_} is {job.id} by now")
        return job


class Jobs(Protocol):
    """A source of jobs."""

    def next(self, idle: bool) -> Job | None:
        """Return the next job, None when there is none now; idle: no job runs, so it is the end."""

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Record the end of a job; status: the content of its status.json."""


class Listener(Protocol):
    """Is notified while jobs run."""

    def start(self, job: Job) -> None:
        """A job starts or restarts."""

    def epoch(self, job: Job, metrics: Mapping[str, Any]) -> None:
        """An epoch has ended; a restarted job may report one twice."""

    def end(self, job: Job, status: Mapping[str, Any]) -> None:
        """A job has ended; status: the content of its status.json."""


class PlannedJobs:
    """Jobs in a fixed order, but those that share another's training after that one."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._left = list(jobs)
        self._running: set[str] = set()

    def next(self, idle: bool) -> Job | None:
        """Return the next job; None while all others share a training that runs, and at the end."""
        job = take(self._left, self._running)
        if job is not None:
            self._running.add(job.id)
        return job

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Record the end of a job."""
        self._running.discard(job.id)


def take(left: list[Job], running: Collection[str]) -> Job | None:
    """Remove and return the first job whose weights no job is still to train, None without one."""
    waiting = {job.id for job in left}.union(running)
    for at, job in enumerate(left):
        if job.weights_of not in waiting:
            return left.pop(at)
    return None


def share_trainings(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return jobs of which every training is done once, by the first that needs its weights."""
    first: dict[tuple[str, int], str] = {}
    found = []
    for job in jobs:
        id_ = first.setdefault((training_hash(job.config), job.train_seed), job.id)
        found.append(job if id_ == job.id else replace(job, weights_of=id_))
    return tuple(found)


def planned_job(trial: PlannedTrial, sweep: str) -> Job:
    """Return the job of a planned trial with its names in this sweep."""
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


def sort_longest_first(jobs: Iterable[Job], seconds: Callable[[Job], float]) -> list[Job]:
    """Return jobs with the longest first within each training seed, so that slots end together."""
    seeds: dict[int, int] = {}
    jobs = list(jobs)
    for job in jobs:
        seeds.setdefault(job.train_seed, len(seeds))
    return sorted(jobs, key=lambda job: (seeds[job.train_seed], -seconds(job)))

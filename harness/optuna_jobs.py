"""Jobs that Optuna suggests. Its study is rebuilt from the trials' own files at every start."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from harness.jobs import Job
from harness.search import Axis, Search
from harness.trial_folder import TrialFolder

_MAX_REPEATS = 100


@dataclass
class _Point:
    number: int
    parameters: dict[str, Any]
    asked: int  # the number of Optuna's trial
    scores: dict[int, float | None] = field(default_factory=dict)  # by training seed

    def mean(self, train_seeds: Sequence[int]) -> float | None:
        """Return the mean score, None when a training seed failed or is not done."""
        scores = [self.scores.get(seed) for seed in train_seeds]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if len(known) == len(scores) else None


class OptunaJobs:
    """Asks a study for the next point and tells it the mean selection score over training seeds.

    Points found in the sweep's folder come first: finished ones are told to the study, others are
    run to their end, failed ones again with `retry_failed`. So a killed search goes on, and a
    finished one can be extended.
    """

    def __init__(
        self,
        search: Search,
        sweep: str,
        directory: Path,
        train_seeds: Sequence[int],
        *,
        retry_failed: bool = False,
    ) -> None:
        self.search, self.sweep, self.train_seeds = search, sweep, tuple(train_seeds)
        self._distributions = {key: _distribution(axis) for key, axis in search.axes.items()}
        self._points: dict[int, _Point] = {}
        self._queue: list[Job] = []
        optuna.logging.set_verbosity(logging.WARNING)
        self.study = optuna.create_study(study_name=sweep, direction="maximize")
        self._read(directory, retry_failed)

    @property
    def begun(self) -> tuple[Job, ...]:
        """The jobs of points that were asked before and are to be run (again)."""
        return tuple(self._queue)

    @property
    def new_points(self) -> int:
        """How many points are still to be asked."""
        return max(0, self.search.trials - len(self._points))

    @property
    def typical(self) -> Job:
        """A job in the middle of the space, for an estimate of the time."""
        point = {key: _middle(axis) for key, axis in self.search.axes.items()}
        return self._job(_Point(-1, point, -1), self.train_seeds[0])

    def next(self) -> Job | None:
        """Return the next job: one that was begun, or a new point's."""
        if not self._queue and self.new_points:
            self._ask()
        return self._queue.pop(0) if self._queue else None

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Tell the study once all training seeds of the point are done."""
        score = status.get("select_score") if status.get("status") == "finished" else None
        self._take(self._points[job.info["number"]], job.train_seed, score)

    def _ask(self) -> None:
        number = max(self._points, default=-1) + 1
        # Seeded by the point, so that a killed search goes on as one that was not.
        self.study.sampler = self._sampler(number)
        for _ in range(_MAX_REPEATS):
            trial = self.study.ask(self._distributions)
            known = [p for p in self._points.values() if p.parameters == trial.params]
            if not known:
                self._add(_Point(number, dict(trial.params), trial.number))
                self._queue += [self._job(self._points[number], seed) for seed in self.train_seeds]
                return
            self._tell(trial.number, known[0].mean(self.train_seeds))

    def _add(self, point: _Point) -> None:
        self._points[point.number] = point

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = self.search.seed * 1_000_003 + number
        if self.search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _job(self, point: _Point, train_seed: int) -> Job:
        info = {
            "sweep": self.sweep,
            "question": "search",
            "arm": f"#{point.number}",
            "track": self.search.track,
            "number": point.number,
            "parameters": point.parameters,
        }
        label = f"search / #{point.number}, seed {train_seed}"
        return Job(self.search.config(point.parameters), train_seed, label, info)

    def _take(self, point: _Point, train_seed: int, score: float | None) -> None:
        point.scores[train_seed] = score
        if point.scores.keys() >= set(self.train_seeds):
            self._tell(point.asked, point.mean(self.train_seeds))

    def _tell(self, asked: int, score: float | None) -> None:
        if score is None:
            self.study.tell(asked, state=TrialState.FAIL)
        else:
            self.study.tell(asked, score)

    def _read(self, directory: Path, retry_failed: bool) -> None:
        """Take up the points of earlier runs, in the order in which they were asked."""
        found: dict[int, dict[str, Any]] = {}
        states: dict[tuple[int, int], dict[str, Any]] = {}
        for path in sorted((directory / "trials").glob("*")):
            folder = TrialFolder(path)
            described = folder.read_config()
            if isinstance(described.get("number"), int) and self._fits(described["parameters"]):
                found[described["number"]] = described["parameters"]
                states[described["number"], described["train_seed"]] = folder.read_status()
        for number, parameters in sorted(found.items()):
            self.study.enqueue_trial(parameters)
            asked = self.study.ask(self._distributions).number
            self._add(_Point(number, parameters, asked))
            for seed in self.train_seeds:
                status = states.get((number, seed), {})
                over = status.get("status")
                if over == "finished" or (over == "failed" and not retry_failed):
                    score = status.get("select_score") if over == "finished" else None
                    self._take(self._points[number], seed, score)
                else:
                    self._queue.append(self._job(self._points[number], seed))

    def _fits(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a point of an earlier run lies in today's space."""
        return parameters.keys() == self._distributions.keys() and all(
            _contains(self._distributions[key], value) for key, value in parameters.items()
        )


def _middle(axis: Axis) -> Any:
    if axis.choices:
        return axis.choices[len(axis.choices) // 2]
    middle = math.sqrt(axis.low * axis.high) if axis.log else (axis.low + axis.high) / 2
    return round(middle) if axis.whole else middle


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return type(value) in (int, float) and distribution.low <= value <= distribution.high

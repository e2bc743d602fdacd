"""Where the points of a search come from: a grid, random draws, TPE."""

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from harness.config.domains import Axis, product, size
from harness.config.search_spec import MAX_TRIALS, Search
from harness.scheduling.jobs import Parameters, Points

_MAX_TRIES = 100


class OptunaPoints:
    """Asks a study (TPE or random) for points and tells it what they scored.

    A point is seeded by its number, so that a killed search goes on as one that was not. What is
    known already, and what is no config that may be run, is asked for again and left out.
    """

    def __init__(self, search: Search, sweep: str) -> None:
        self._search = search
        self._distributions = {key: distribution(axis) for key, axis in search.axes.items()}
        self._asked: dict[int, int] = {}  # Optuna's number of a point
        optuna.logging.set_verbosity(logging.WARNING)
        self.study = optuna.create_study(study_name=sweep, direction="maximize")

    def add(self, number: int, parameters: Parameters) -> None:
        """Take note of a point that was asked for before."""
        self.study.enqueue_trial(encode(self._search.axes, parameters))
        self._asked[number] = self.study.ask(self._distributions).number

    def ask(self, number: int, known: Collection[Parameters]) -> Parameters | None:
        """Return a new point, None when there seems to be none: the last few are looked up."""
        self.study.sampler = self._sampler(number)
        for _ in range(_MAX_TRIES):
            trial = self.study.ask(self._distributions)
            point = decode(self._search.axes, trial.params)
            if point not in known and self._runs(point):
                self._asked[number] = trial.number
                return point
            # Not as a score: a rebuilt study would not know of it, and suggest other points.
            self.study.tell(trial.number, state=TrialState.FAIL)
        if size(self._search.axes) > MAX_TRIALS:
            return None
        for point in product(self._search.axes):
            if point not in known and self._runs(point):
                self.add(number, point)
                return point
        return None

    def tell(self, number: int, score: float | None) -> None:
        """Tell the study a point's score, None for one that failed."""
        if score is None:
            self.study.tell(self._asked[number], state=TrialState.FAIL)
        else:
            self.study.tell(self._asked[number], score)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = self._search.seed * 1_000_003 + number
        if self._search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _runs(self, point: Parameters) -> bool:
        """Whether the point is a config; each value is, but some do not go together."""
        try:
            self._search.config(point)
        except ValueError:
            return False
        return True


def encode(axes: Mapping[str, Axis], parameters: Parameters) -> dict[str, Any]:
    """Return a point as Optuna sees it: a choice is its place among the choices.

    Choices may be lists, which Optuna does not take, and 1 and True, which it takes for the same.
    """
    return {
        key: _place(axes[key], value) if axes[key].choices else value
        for key, value in parameters.items()
    }


def decode(axes: Mapping[str, Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point that Optuna's values stand for."""
    return {
        key: axis.choices[values[key]] if axis.choices else values[key]
        for key, axis in axes.items()
    }


def distribution(axis: Axis) -> BaseDistribution:
    """Return an axis as Optuna's distribution."""
    if axis.choices:
        return CategoricalDistribution(range(len(axis.choices)))
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _place(axis: Axis, value: object) -> int:
    same = (type(value) is type(each) and value == each for each in axis.choices)
    return list(same).index(True)


class GridPoints:
    """Every point of a grid, in the order of the file."""

    def __init__(self, search: Search) -> None:
        self._left: Iterator[Parameters] = product(search.axes)

    def add(self, number: int, parameters: Parameters) -> None:
        """A grid knows its points."""

    def ask(self, number: int, known: Collection[Parameters]) -> Parameters | None:
        """Return the next point, None behind the last."""
        return next((point for point in self._left if point not in known), None)

    def tell(self, number: int, score: float | None) -> None:
        """A grid does not change by what comes out."""


def points(search: Search, sweep: str) -> Points:
    """Return the source of a search's points."""
    if search.sampler == "grid":
        return GridPoints(search)
    pass  # a second of import that few sweeps need

    return OptunaPoints(search, sweep)

"""Samplers of a search's parameters: a grid, random draws, TPE."""

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.config.domains import Axis, product, size
from harness.config.search_spec import MAX_TRIALS, Search
from harness.config.trial_config import TrialConfig
from harness.scheduling.jobs import Parameters

if TYPE_CHECKING:  # its import takes a second, which only searches need
    import optuna

_MAX_ATTEMPTS = 100


class OptunaSampler:
    """Samples parameters with an Optuna study (TPE or random draws).

    The number of a set of parameters seeds its draw, so an interrupted search suggests the same
    ones. Those that are known, and those that are not a valid config, are drawn again.
    """

    def __init__(self, search: Search) -> None:
        import optuna

        self._search = search
        self._distributions = {key: distribution(axis) for key, axis in search.axes.items()}
        self._optuna_numbers: dict[int, int] = {}
        optuna.logging.set_verbosity(logging.WARNING)
        self.study = optuna.create_study(direction="maximize")

    def add(self, number: int, parameters: Parameters) -> None:
        """Add parameters that were suggested before."""
        self.study.enqueue_trial(encode(self._search.axes, parameters))
        self._optuna_numbers[number] = self.study.ask(self._distributions).number

    def ask(self, number: int, known: Collection[Parameters]) -> Parameters | None:
        """Return new parameters; after many failed draws the first ones in the grid's order."""
        import optuna

        random, samplers = self._search.sampler == "random", optuna.samplers
        sampler = samplers.RandomSampler if random else samplers.TPESampler
        self.study.sampler = sampler(seed=self._search.seed * 1_000_003 + number)
        for _ in range(_MAX_ATTEMPTS):
            trial = self.study.ask(self._distributions)
            parameters = decode(self._search.axes, trial.params)
            if parameters not in known and config_of(self._search, parameters) is not None:
                self._optuna_numbers[number] = trial.number
                return parameters
            # Without a score: a study rebuilt after an interruption does not have it either.
            self._fail(trial.number)
        if size(self._search.axes) > MAX_TRIALS:
            return None
        for parameters in product(self._search.axes):
            if parameters not in known and config_of(self._search, parameters) is not None:
                self.add(number, parameters)
                return parameters
        return None

    def tell(self, number: int, score: float | None) -> None:
        """Record the score of some parameters, None where a trial failed."""
        if score is None:
            self._fail(self._optuna_numbers[number])
        else:
            self.study.tell(self._optuna_numbers[number], score)

    def _fail(self, optuna_number: int) -> None:
        from optuna.trial import TrialState

        self.study.tell(optuna_number, state=TrialState.FAIL)


def config_of(search: Search, parameters: Parameters) -> TrialConfig | None:
    """Return the config of some parameters, None where they do not go together."""
    try:
        return search.config(parameters)
    except ValueError:
        return None


def encode(axes: Mapping[str, Axis], parameters: Parameters) -> dict[str, Any]:
    """Return parameters for Optuna: a choice becomes its index among the choices.

    Choices may be lists, which Optuna rejects, or 1 and True, which it does not tell apart.
    """
    return {
        key: _index(axes[key], value) if axes[key].choices else value
        for key, value in parameters.items()
    }


def decode(axes: Mapping[str, Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that `encode` gave to Optuna."""
    return {
        key: axis.choices[values[key]] if axis.choices else values[key]
        for key, axis in axes.items()
    }


def distribution(axis: Axis) -> "optuna.distributions.BaseDistribution":
    """Return an axis as an Optuna distribution."""
    from optuna import distributions

    if axis.choices:
        return distributions.CategoricalDistribution(range(len(axis.choices)))
    if axis.whole:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _index(axis: Axis, value: object) -> int:
    same = (type(value) is type(each) and value == each for each in axis.choices)
    return list(same).index(True)


class GridSampler:
    """Every combination of a grid's values, in the order of the file; scores do not matter."""

    def __init__(self, search: Search) -> None:
        self._left: Iterator[Parameters] = product(search.axes)

    def add(self, number: int, parameters: Parameters) -> None:
        """Do nothing: `ask` is given the known ones."""

    def ask(self, number: int, known: Collection[Parameters]) -> Parameters | None:
        """Return the next combination, None at the end."""
        return next((parameters for parameters in self._left if parameters not in known), None)

    def tell(self, number: int, score: float | None) -> None:
        """Do nothing."""

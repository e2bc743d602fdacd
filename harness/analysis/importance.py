"""Which settings of a search mattered: PED-ANOVA over its points, with bootstrap intervals."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from harness.config.domains import Axis
from harness.scheduling.jobs import Parameters
from harness.scheduling.samplers import distribution, encode
from harness.scheduling.search_history import QUESTION, inside, selection_scores
from harness.storage import json_schemas, tables
from harness.storage.trial_folder import TrialFolder

MIN_POINTS = 20
LEVEL = 0.95
RESAMPLES = 100


# PED-ANOVA asks what sets the top share of the points apart, and wants five of them at least.
TOP_SHARE, TOP_POINTS = 0.1, 5


@dataclass(frozen=True)
class Importance:
    """A setting's share of what sets the best points of a search apart from the others.

    [low, high] is a bootstrap interval over n points.
    """

    key: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Importances:
    """The settings of a search, the most important first, and a sentence on what was measured.

    rows is empty where nothing can be said; `note` says why, and is "" where there is no search.
    """

    rows: tuple[Importance, ...]
    n: int
    note: str


def importances(sweep: Path) -> Importances:
    """Return how important each axis of a sweep's search is (Watanabe et al. 2023, PED-ANOVA).

    Points are compared by the mean over their training seeds of the selection score; those of
    successive halving at the first rung, to which all of them came.
    """
    plan = json_schemas.read_or(sweep / "plan.json")
    search = plan.get("search")
    if not search or not search.get("axes"):
        return Importances((), 0, "")
    axes = {key: _axis(axis) for key, axis in search["axes"].items()}
    rung = (search.get("rungs") or [None])[0]
    points, scores = _scored(sweep, axes, len(plan["train_seeds"]), rung)
    n = len(points)
    if len(axes) < 2:
        return Importances((), n, "one setting is searched, so there is nothing to share out")
    if n < MIN_POINTS:
        note = f"too few points: importance wants {MIN_POINTS} that have a score, there are {n}"
        return Importances((), n, note)
    top = max(TOP_POINTS, math.ceil(TOP_SHARE * n))
    rows = _measure(axes, points, np.asarray(scores), top / n)
    at = "" if rung is None else f" at step {rung}"
    note = (
        f"share of what sets the best {top} of {n} points{at} apart from all (PED-ANOVA); "
        "intervals by resampling the points"
    )
    return Importances(rows, n, note)


def _measure(
    axes: Mapping[str, Axis],
    points: Sequence[Parameters],
    scores: NDArray[np.float64],
    quantile: float,
) -> tuple[Importance, ...]:
    distributions = {key: distribution(axis) for key, axis in axes.items()}
    trials = [
        FrozenTrial(
            number,
            TrialState.COMPLETE,
            value=score,
            datetime_start=None,
            datetime_complete=None,
            params=encode(axes, point),
            distributions=distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=number,
        )
        for number, (point, score) in enumerate(zip(points, scores.tolist(), strict=True))
    ]
    optuna.logging.set_verbosity(logging.WARNING)
    study = _Resampled(trials)
    with warnings.catch_warnings():
        # It is marked as experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
        value = _shares(evaluator.evaluate(study), axes)
        rng = np.random.default_rng((4, len(trials), len(axes)))
        drawn = []
        for _ in range(RESAMPLES):
            study.trials_of = [trials[i] for i in rng.integers(len(trials), size=len(trials))]
            drawn.append(_shares(evaluator.evaluate(study), axes))
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    rows = [
        Importance(key, float(value[i]), float(low[i]), float(high[i]), len(trials))
        for i, key in enumerate(axes)
    ]
    return tuple(sorted(rows, key=lambda row: -row.value))


def _shares(found: Mapping[str, float], axes: Mapping[str, Axis]) -> NDArray[np.float64]:
    """Return importances in the order of the axes, as shares of their sum."""
    values = np.asarray([found.get(key, 0.0) for key in axes])
    total = values.sum()
    return values / total if total > 0 else np.full(len(axes), 1.0 / len(axes))


class _Resampled(optuna.Study):
    """A study that shows the trials it is told to: storing every resample takes far longer."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        storage = optuna.storages.InMemoryStorage()
        name = optuna.create_study(storage=storage, direction="maximize").study_name
        super().__init__(name, storage)
        self.trials_of = trials

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        """Return the trials of this resample; all of them are complete."""
        assert states is None or TrialState.COMPLETE in states, "only complete trials are there"
        return self.trials_of


def _scored(
    sweep: Path, axes: Mapping[str, Axis], train_seeds: int, rung: int | None
) -> tuple[list[Parameters], list[float]]:
    """Return the points that have a score for every training seed, and the means of those."""
    points: dict[str, Parameters] = {}
    scores: dict[str, list[float]] = {}
    for trial in tables.read(sweep, "trials").to_pylist():
        folder = sweep / "trials" / trial["trial"]
        point = TrialFolder(folder).read_config().get("parameters")
        if trial["question"] != QUESTION or not point or not inside(axes, point):
            continue
        if rung is not None:
            score = selection_scores(folder).get(rung)
        else:
            score = trial["select_score"] if trial["status"] == "finished" else None
        if score is not None and math.isfinite(score):
            points[trial["config_hash"]] = point
            scores.setdefault(trial["config_hash"], []).append(score)
    whole = [hash_ for hash_, each in scores.items() if len(each) >= train_seeds]
    return [points[hash_] for hash_ in whole], [
        math.fsum(scores[h]) / len(scores[h]) for h in whole
    ]


def _axis(given: Mapping[str, Any]) -> Axis:
    return Axis(**{**given, "choices": tuple(given["choices"])})

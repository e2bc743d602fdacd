"""Importance of a search's settings: PED-ANOVA over its trials, with bootstrap intervals."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.domains import Axis
from harness.scheduling.jobs import Parameters
from harness.scheduling.samplers import distribution, encode
from harness.scheduling.search_history import QUESTION, inside, selection_scores
from harness.stats.intervals import Estimate
from harness.storage import json_schemas, tables
from harness.storage.trial_folder import TrialFolder

MIN_TRIALS = 20
LEVEL = 0.95
RESAMPLES = 100
# PED-ANOVA compares the best tenth of the trials with all of them; at least five.
TOP_SHARE, MIN_TOP = 0.1, 5


def importances(sweep: Path) -> tuple[dict[str, Estimate], str]:
    """Return the importance of each axis of a sweep's search (PED-ANOVA, Watanabe et al. 2023).

    By setting, the most important first: its share of the total with a bootstrap interval over n
    trials; and a note on what was measured. Without numbers the note gives the reason, "" without
    a search. Trials are compared by their mean validation score over training seeds; those of
    successive halving at the first rung, which all of them reach.
    """
    plan = json_schemas.read_or(sweep / "plan.json")
    search = plan.get("search")
    if not search or not search.get("axes") or "train_seeds" not in plan:
        return {}, ""
    axes = {
        key: Axis(**{**axis, "choices": tuple(axis.get("choices", ()))})
        for key, axis in search["axes"].items()
    }
    rung = (search.get("rungs") or [None])[0]
    scored = _scored(sweep, axes, len(plan["train_seeds"]), rung)
    n = len(scored)
    if len(axes) < 2:
        return {}, "only one setting is searched: no importance to compute"
    if n < MIN_TRIALS:
        return {}, f"importance needs at least {MIN_TRIALS} trials with a score, there are {n}"
    top = max(MIN_TOP, math.ceil(TOP_SHARE * n))
    at = "" if rung is None else f" at step {rung}"
    note = f"PED-ANOVA: the best {top} of {n} trials{at} against all; bootstrap 95 % intervals"
    return _measure(axes, scored, top / n), note


def _measure(
    axes: Mapping[str, Axis], scored: Sequence[tuple[Parameters, float]], quantile: float
) -> dict[str, Estimate]:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

    class Resampled(optuna.Study):
        """A study with the given trials: storing every resample takes far longer."""

        resample: list[FrozenTrial]

        def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
            return self.resample

    distributions = {key: distribution(axis) for key, axis in axes.items()}
    trials = [
        FrozenTrial(
            number,
            TrialState.COMPLETE,
            value=score,
            datetime_start=None,
            datetime_complete=None,
            params=encode(axes, given),
            distributions=distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=number,
        )
        for number, (given, score) in enumerate(scored)
    ]
    optuna.logging.set_verbosity(logging.WARNING)
    storage = optuna.storages.InMemoryStorage()
    name = optuna.create_study(storage=storage, direction="maximize").study_name
    study = Resampled(name, storage)

    def shares(resample: list[FrozenTrial]) -> NDArray[np.float64]:
        study.resample = resample
        found = evaluator.evaluate(study)
        values = np.asarray([found.get(key, 0.0) for key in axes])
        total = values.sum()
        return values / total if total > 0 else np.full(len(axes), 1.0 / len(axes))

    n = len(trials)
    with warnings.catch_warnings():
        # The evaluator is marked as experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
        value = shares(trials)
        rng = np.random.default_rng((4, n, len(axes)))
        resampled = [shares([trials[i] for i in rng.integers(n, size=n)]) for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    order = np.argsort(-value, kind="stable")
    keys = list(axes)
    return {keys[i]: Estimate(float(value[i]), float(low[i]), float(high[i]), n) for i in order}


def _scored(
    sweep: Path, axes: Mapping[str, Axis], train_seeds: int, rung: int | None
) -> list[tuple[Parameters, float]]:
    """Return the parameters that have a score for every training seed, with their mean scores."""
    parameters: dict[str, Parameters] = {}
    scores: dict[str, list[float]] = {}
    for trial in tables.read(sweep, "trials").to_pylist():
        folder = sweep / "trials" / trial["trial"]
        given = TrialFolder(folder).read_config().get("parameters")
        if trial["question"] != QUESTION or not given or not inside(axes, given):
            continue
        if rung is not None:
            score = selection_scores(folder).get(rung)
        else:
            score = trial["select_score"] if trial["status"] == "finished" else None
        if score is not None and math.isfinite(score):
            parameters[trial["config_hash"]] = given
            scores.setdefault(trial["config_hash"], []).append(score)
    return [
        (parameters[hash_], math.fsum(each) / len(each))
        for hash_, each in scores.items()
        if len(each) >= train_seeds
    ]

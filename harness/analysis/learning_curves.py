"""A trial's validation score and training loss by step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.config.trial_config import trial_id
from harness.core.seeds import SELECT_SEEDS
from harness.storage import episode_table, tables

SCORE, LOSS = "score by step", "loss by step"


def validation_scores(sweep_dir: Path) -> pa.Table:
    """Return a row for each trial and selected step with the mean score, ordered by step.

    Columns: config_hash, train_seed, checkpoint_step, score_mean.
    """
    rows = episode_table.within(tables.read(sweep_dir, "episodes"), SELECT_SEEDS)
    keys = ["config_hash", "train_seed", "checkpoint_step"]
    return rows.group_by(keys).aggregate([("score", "mean")]).sort_by("checkpoint_step")


def by_trial(
    sweep_dir: Path, trials: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[str, list[float]]]:
    """Return for each trial the kind of its curve (SCORE or LOSS) and its values by step.

    The validation score where it is known at two steps or more, else the training loss by epoch;
    trials with neither are left out.
    """
    wanted = {trial["trial"] for trial in trials}
    scores = _split(validation_scores(sweep_dir), "score_mean")
    found = {name: (SCORE, values) for name, values in scores.items() if name in wanted}
    if wanted - found.keys():
        losses = _split(tables.read(sweep_dir, "curves").sort_by("step"), "train_loss")
        found |= {name: (LOSS, losses[name]) for name in (wanted - found.keys()) & losses.keys()}
    return found


def _split(rows: pa.Table, column: str) -> dict[str, list[float]]:
    """Return a column's values by trial, where a trial has two or more."""
    found: dict[str, list[float]] = {}
    columns = (rows[name].to_pylist() for name in ("config_hash", "train_seed", column))
    for config_hash, train_seed, value in zip(*columns, strict=True):
        if value is not None:
            found.setdefault(trial_id(config_hash, train_seed), []).append(value)
    return {name: values for name, values in found.items() if len(values) > 1}

"""How a trial's numbers went over its steps: what a sparkline is drawn of."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.config.trial_config import trial_id
from harness.core import seeds as store
from harness.storage import tables

SCORE, LOSS = "score by step", "loss by step"


def lines(
    sweep_dir: Path, trials: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[str, list[float]]]:
    """Return of each trial what it is (SCORE or LOSS) and its numbers by step.

    The selection's mean score at every step where there are two steps or more, else the training
    loss by epoch; trials with neither are left out.
    """
    wanted = {trial["trial"] for trial in trials}
    found = {name: (SCORE, values) for name, values in _scores(sweep_dir, wanted).items()}
    if wanted - found.keys():
        for name, values in _losses(sweep_dir, wanted - found.keys()).items():
            found[name] = LOSS, values
    return found


def _scores(sweep_dir: Path, wanted: Collection[str]) -> dict[str, list[float]]:
    rows = tables.read(sweep_dir, "episodes")
    seeds = store.SELECT_SEEDS
    within = pc.and_(
        pc.greater_equal(rows["env_seed"], seeds.start), pc.less(rows["env_seed"], seeds.stop)
    )
    rows = rows.select(["config_hash", "train_seed", "checkpoint_step", "score"]).filter(within)
    keys = ["config_hash", "train_seed", "checkpoint_step"]
    means = rows.group_by(keys).aggregate([("score", "mean")])
    return _several(_by_trial(means, "checkpoint_step", "score_mean", wanted))


def _losses(sweep_dir: Path, wanted: Collection[str]) -> dict[str, list[float]]:
    rows = tables.read(sweep_dir, "curves")
    return _several(_by_trial(rows, "step", "train_loss", wanted))


def _several(found: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in found.items() if len(values) > 1}


def _by_trial(
    rows: pa.Table, step: str, column: str, wanted: Collection[str]
) -> dict[str, list[float]]:
    rows = rows.select(["config_hash", "train_seed", step, column]).sort_by(step)
    found: dict[str, list[float]] = {}
    columns = (rows[name].to_pylist() for name in ("config_hash", "train_seed", column))
    for config_hash, train_seed, value in zip(*columns, strict=True):
        name = trial_id(config_hash, train_seed)
        if name in wanted and value is not None:
            found.setdefault(name, []).append(value)
    return found

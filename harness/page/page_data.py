"""What a page is made of: a sweep read once, with its curves and its selections by step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.analysis import verdicts
from harness.analysis.sweep_results import Arm, Sweep
from harness.core import seeds as store
from harness.storage import episode_table, tables

Array = NDArray[np.float64]


# Values that bootstraps may resample for the page's extras, 2,000 times each: a few seconds.
MOST_RESAMPLED = 25_000
CURVES = ("train_loss", "val_loss", "train_loss_ratio", "val_loss_ratio", "val_action_error_px")


@dataclass(frozen=True)
class Band:
    """A curve's mean over training seeds at steps (n,) and, of several seeds, their extremes."""

    steps: Array
    mean: Array
    low: Array | None
    high: Array | None
    seeds: int


class Material:
    """A sweep's folder as the sections of the page need it."""

    def __init__(self, folder: Path) -> None:
        self.sweep = Sweep(folder)
        self.arms: list[Arm] = self.sweep.arms()
        self.answers = verdicts.answers(self.sweep, self.arms)
        self._left = MOST_RESAMPLED

    def afford(self, values: int) -> bool:
        """Whether so many values may still be resampled; large sweeps leave extras out."""
        if values > self._left:
            return False
        self._left -= values
        return True

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return self.sweep.folder

    @property
    def search(self) -> Mapping[str, Any]:
        """The search's part of the plan; empty where arms were named."""
        found = self.sweep.plan.get("search")
        return found if isinstance(found, Mapping) else {"search": found} if found else {}

    @cached_property
    def _curves(self) -> dict[str, dict[int, dict[str, Array]]]:
        table = tables.read(self.folder, "curves")
        names = [name for name in CURVES if name in table.schema.names]
        columns = {
            name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            for name in ("step", *names)
        }
        found: dict[str, dict[int, dict[str, Array]]] = {}
        keys = zip(table["config_hash"].to_pylist(), table["train_seed"].to_pylist(), strict=True)
        for (config_hash, seed), rows in _runs(keys):
            part = {name: values[rows] for name, values in columns.items()}
            found.setdefault(config_hash, {})[seed] = part
        return found

    def curve(self, config_hash: str, name: str) -> Band | None:
        """Return a metric's curve over the training seeds, or None where nothing is logged.

        Seeds still in training would bend the mean where they end: only those that have come
        nine tenths as far as the farthest count, at the steps that all of them have.
        """
        parts = []
        for part in self._curves.get(config_hash, {}).values():
            if name in part:
                good = np.isfinite(part["step"]) & np.isfinite(part[name])
                if good.any():
                    parts.append((part["step"][good], part[name][good]))
        if not parts:
            return None
        farthest = max(steps.max() for steps, _ in parts)
        parts = [(steps, values) for steps, values in parts if steps.max() >= 0.9 * farthest]
        common = parts[0][0]
        for steps, _ in parts[1:]:
            common = np.intersect1d(common, steps)
        common = np.unique(common)
        if not common.size:
            return None
        grid = np.stack([_at(steps, values, common) for steps, values in parts])
        if len(grid) == 1:
            return Band(common, grid[0], None, None, 1)
        return Band(common, grid.mean(0), grid.min(0), grid.max(0), len(grid))

    @cached_property
    def _selections(self) -> dict[str, dict[int, list[float]]]:
        # Reading every episode again is for those sweeps alone that select more than once.
        if not any(trial.get("select.every") for trial in self.sweep.trials):
            return {}
        rows = episode_table.within(tables.read(self.folder, "episodes"), store.SELECT_SEEDS)
        names = ["config_hash", "train_seed", "checkpoint_step"]
        means = rows.group_by(names).aggregate([("score", "mean")]).sort_by("checkpoint_step")
        found: dict[str, dict[int, list[float]]] = {}
        for row in means.to_pylist():
            step, score = row["checkpoint_step"], row["score_mean"]
            if step is not None and score is not None and np.isfinite(score):
                found.setdefault(row["config_hash"], {}).setdefault(step, []).append(score)
        return found

    def selections(self, config_hash: str) -> dict[int, list[float]]:
        """Return each training seed's mean selection score by step, where trials select often."""
        return self._selections.get(config_hash, {})


def _runs(keys: Iterator[tuple[Any, Any]]) -> Iterator[tuple[tuple[Any, Any], slice]]:
    """Yield each key with the rows where it stands; the table is sorted by it."""
    start, last, number = 0, None, -1
    for number, key in enumerate(keys):
        if key != last:
            if last is not None:
                yield last, slice(start, number)
            start, last = number, key
    if last is not None:
        yield last, slice(start, number + 1)


def _at(steps: Array, values: Array, wanted: Array) -> Array:
    """Return the last value at each wanted step; a resumed epoch may stand there twice."""
    order = np.argsort(steps, kind="stable")
    found = np.searchsorted(steps[order], wanted, side="right") - 1
    return np.asarray(values[order][found])

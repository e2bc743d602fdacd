"""What the page shows: a sweep read once, with its curves and validation scores by step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.analysis import learning_curves, verdicts
from harness.analysis.sweep_results import Arm, Sweep
from harness.storage import tables

Array = NDArray[np.float64]
# Scores of which interquartile means are computed: of more they would take minutes.
MAX_SCORES = 25_000
CURVES = ("train_loss", "val_loss", "train_loss_ratio", "val_loss_ratio", "val_action_error_px")


@dataclass(frozen=True)
class Band:
    """A curve at steps (n,): the mean over training seeds and, of several, min and max."""

    steps: Array
    mean: Array
    low: Array | None
    high: Array | None
    seeds: int


class PageData:
    """A sweep's folder as the sections of the page need it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep = Sweep(folder)
        self.arms: list[Arm] = self.sweep.arms()
        self.answers = verdicts.answers(self.sweep, self.arms)
        self._scores_left = MAX_SCORES

    def has_time_for(self, scores: int) -> bool:
        """Whether interquartile means of so many scores are computed; counts them if so."""
        if scores > self._scores_left:
            return False
        self._scores_left -= scores
        return True

    @property
    def search(self) -> Mapping[str, Any]:
        """The search's part of the plan; empty for a sweep without a search."""
        found = self.sweep.plan.get("search")
        return found if isinstance(found, Mapping) else {"search": found} if found else {}

    @cached_property
    def _curves(self) -> dict[str, list[dict[str, Array]]]:
        """Every config's curves, a dict of columns for each training seed."""
        table = tables.read(self.folder, "curves")
        names = [name for name in CURVES if name in table.schema.names]
        columns = {
            name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            for name in ("step", *names)
        }
        found: dict[str, list[dict[str, Array]]] = {}
        keys = zip(table["config_hash"].to_pylist(), table["train_seed"].to_pylist(), strict=True)
        for (config_hash, _), rows in _runs(keys):
            part = {name: values[rows] for name, values in columns.items()}
            found.setdefault(config_hash, []).append(part)
        return found

    def curve(self, config_hash: str, name: str) -> Band | None:
        """Return a metric's curve over the training seeds, None where it was not logged.

        Only seeds trained for at least nine tenths of the longest are averaged, at the steps that
        they have in common: a seed that ends early would bend the mean there.
        """
        parts = []
        for part in self._curves.get(config_hash, ()):
            if name in part:
                good = np.isfinite(part["step"]) & np.isfinite(part[name])
                if good.any():
                    parts.append((part["step"][good], part[name][good]))
        if not parts:
            return None
        farthest = max(steps.max() for steps, _ in parts)
        parts = [(steps, values) for steps, values in parts if steps.max() >= 0.9 * farthest]
        common = np.unique(parts[0][0])
        for steps, _ in parts[1:]:
            common = np.intersect1d(common, steps)
        if not common.size:
            return None
        grid = np.stack([_at(steps, values, common) for steps, values in parts])
        if len(grid) == 1:
            return Band(common, grid[0], None, None, 1)
        return Band(common, grid.mean(0), grid.min(0), grid.max(0), len(grid))

    @cached_property
    def _validation(self) -> dict[str, dict[int, list[float]]]:
        # Only sweeps that select repeatedly have several steps: others need not read the episodes.
        if not any(trial.get("select.every") for trial in self.sweep.trials):
            return {}
        found: dict[str, dict[int, list[float]]] = {}
        for row in learning_curves.validation_scores(self.folder).to_pylist():
            step, score = row["checkpoint_step"], row["score_mean"]
            if step is not None and score is not None and np.isfinite(score):
                found.setdefault(row["config_hash"], {}).setdefault(step, []).append(score)
        return found

    def validation_scores(self, config_hash: str) -> dict[int, list[float]]:
        """Return each training seed's mean validation score by step."""
        return self._validation.get(config_hash, {})


def _runs(keys: Iterator[tuple[Any, Any]]) -> Iterator[tuple[tuple[Any, Any], slice]]:
    """Yield each key of a sorted table with its rows."""
    start, last, number = 0, None, -1
    for number, key in enumerate(keys):
        if key != last:
            if last is not None:
                yield last, slice(start, number)
            start, last = number, key
    if last is not None:
        yield last, slice(start, number + 1)


def _at(steps: Array, values: Array, wanted: Array) -> Array:
    """Return the last value at each wanted step; a resumed epoch may occur twice."""
    order = np.argsort(steps, kind="stable")
    found = np.searchsorted(steps[order], wanted, side="right") - 1
    return np.asarray(values[order][found])

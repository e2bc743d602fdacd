"""What the page shows: a sweep read once, with its curves and validation scores by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.analysis import learning_curves, verdicts
from harness.analysis.sweep_results import Sweep
from harness.storage import tables

VALIDATION = "score_mean"  # the column of validation scores


@dataclass(frozen=True)
class Band:
    """A curve over S training seeds: steps (n,) and values (S, n)."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


class PageData:
    """A sweep's folder as the sections of the page need it."""

    def __init__(self, folder: Path, asked: Sequence[str] = ()) -> None:
        self.folder = folder
        self.sweep = Sweep(folder, asked)
        self.arms = self.sweep.arms()
        self.answers = verdicts.answers(self.sweep)

    @cached_property
    def _curves(self) -> pa.Table:
        return tables.read(self.folder, "curves")

    @cached_property
    def _validation(self) -> pa.Table:
        # Only sweeps that select repeatedly have several steps: others need not read the episodes.
        if not any(trial.get("select.every") for trial in self.sweep.trials):
            return self._curves  # which has no such column
        found = learning_curves.validation_scores(self.folder)
        return found.rename_columns({"checkpoint_step": "step"})

    def curve(self, config_hash: str, column: str) -> Band | None:
        """Return a metric by step over the training seeds, None where it was not logged.

        Only seeds trained for at least nine tenths of the longest count, at the steps that they
        have in common: a seed that ends early would bend the mean there.
        """
        table = self._validation if column == VALIDATION else self._curves
        if column not in table.schema.names:
            return None
        rows = table.filter(pc.equal(table["config_hash"], config_hash))
        columns = (rows[name].to_pylist() for name in ("train_seed", "step", column))
        by_seed: dict[int, dict[int, float]] = {}
        for seed, step, value in zip(*columns, strict=True):
            if step is not None and value is not None and math.isfinite(value):
                by_seed.setdefault(seed, {})[step] = value  # the last one of a resumed epoch
        farthest = max((step for values in by_seed.values() for step in values), default=0)
        parts = [values for values in by_seed.values() if max(values) >= 0.9 * farthest]
        steps = sorted(set(parts[0]).intersection(*parts)) if parts else []
        if not steps:
            return None
        grid = np.array([[values[step] for step in steps] for values in parts], np.float64)
        return Band(np.array(steps, np.float64), grid)

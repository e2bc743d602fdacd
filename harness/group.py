"""Trials of one config with their episodes, as grids of training seeds by environment seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness import stats
from harness.stats import Crossed

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Trials of one config, told apart by their training seeds, with their best checkpoints' rows.

    episodes: select and report rows of finished trials, each trial's of one protocol.
    """

    name: str
    trials: tuple[Trial, ...]
    episodes: pa.Table
    _grids: dict[tuple[str, range], Crossed] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    _seeds: dict[range, NDArray[np.int64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def finished(self) -> int:
        """How many of its trials are finished."""
        return sum(trial["status"] == "finished" for trial in self.trials)

    def grid(self, column: str, seeds: range) -> Crossed:
        """Return a column over training seeds and environment seeds."""
        at = column, seeds
        if at not in self._grids:
            self._grids[at] = self._crossed(column, seeds)
        return self._grids[at]

    def env_seeds(self, seeds: range) -> NDArray[np.int64]:
        """Return the environment seeds in the range on which any of its trials has an episode."""
        if seeds not in self._seeds:
            env = self.episodes["env_seed"].to_numpy()
            self._seeds[seeds] = np.unique(env[(env >= seeds.start) & (env < seeds.stop)])
        return self._seeds[seeds]

    def _crossed(self, column: str, seeds: range) -> Crossed:
        env = self.episodes["env_seed"].to_numpy()
        train = pc.fill_null(self.episodes["train_seed"], -1).to_numpy()
        values = pc.cast(self.episodes[column], pa.float64()).to_numpy(zero_copy_only=False)
        rows = (env >= seeds.start) & (env < seeds.stop)
        env, train, values = env[rows], train[rows], values[rows]
        whole = _whole_grid(train, env, values)
        return stats.crossed(train, env, values) if whole is None else whole


def _whole_grid(
    train: NDArray[np.int64], env: NDArray[np.int64], values: NDArray[np.float64]
) -> Crossed | None:
    """Return what `stats.crossed` does of sorted rows without holes; None for any others."""
    starts = np.flatnonzero(np.diff(train, prepend=train[:1] - 1))
    if len(starts) == 0 or len(train) % len(starts):
        return None
    seeds, grid = train[starts], env.reshape(len(starts), -1)
    sorted_ = (np.diff(seeds) > 0).all() and (np.diff(grid[0]) > 0).all()
    even = (starts == np.arange(len(starts)) * grid.shape[1]).all()
    if not (sorted_ and even and (grid == grid[0]).all() and np.isfinite(values).all()):
        return None
    # Laid out as by `stats.crossed`: sums in another order would differ in their last bits.
    cells = np.asfortranarray(values.reshape(grid.shape))
    return Crossed(tuple(seeds.tolist()), grid[0], cells)

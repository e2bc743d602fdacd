"""Trials of one config as grids of scores, and paired comparisons of two of them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.core.errors import UserError
from harness.stats import intervals, seed_variance
from harness.stats.intervals import LEVEL, Crossed, Estimate
from harness.stats.seed_variance import SeedVariance, SharedVariances
from harness.storage import episode_table, tables

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Trials of one config, one for each training seed, with their best checkpoints' episodes.

    episodes: on selection and report seeds, of finished trials, each trial's of one protocol.
    """

    name: str
    trials: tuple[Trial, ...]
    episodes: pa.Table
    _grids: dict[tuple[str, range], Crossed] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def finished(self) -> int:
        """How many of its trials are finished."""
        return sum(trial["status"] == "finished" for trial in self.trials)

    def grid(self, column: str, seeds: range) -> Crossed:
        """Return a column (S, E) over S training seeds and E environment seeds in the range."""
        at = column, seeds
        if at not in self._grids:
            columns = self.episodes.select(["train_seed", "env_seed", column])
            rows = episode_table.within(columns, seeds)
            train = pc.fill_null(rows["train_seed"], -1).to_numpy()
            env = rows["env_seed"].to_numpy()
            values = pc.cast(rows[column], pa.float64()).to_numpy()
            whole = _whole_grid(train, env, values)
            self._grids[at] = intervals.crossed(train, env, values) if whole is None else whole
        return self._grids[at]


def _whole_grid(
    train: NDArray[np.int64], env: NDArray[np.int64], values: NDArray[np.float64]
) -> Crossed | None:
    """Return what `intervals.crossed` returns, faster, for complete sorted rows; else None."""
    E = np.count_nonzero(train == train[:1])
    if E == 0 or len(train) % E:
        return None
    seeds, starts = train.reshape(-1, E), env.reshape(-1, E)
    whole = (seeds == seeds[:, :1]).all() and (starts == starts[0]).all()
    in_order = (np.diff(seeds[:, 0]) > 0).all() and (np.diff(starts[0]) > 0).all()
    if not (whole and in_order and np.isfinite(values).all()):
        return None
    # The memory layout of `intervals.crossed`: another order of sums changes the last bits.
    cells = np.asfortranarray(values.reshape(starts.shape))
    return Crossed(tuple(seeds[:, 0].tolist()), starts[0], cells)


def evaluation_group(folder: Path) -> Group:
    """Return the episodes of results/evaluations/<name> as a group without trials.

    UserError for those of several policies, which have no common mean.
    """
    episodes = tables.read(folder, "episodes")
    episodes = episode_table.of_one_protocol(episodes.filter(pc.is_null(episodes["error"])))
    hashes = pc.unique(episodes["policy_hash"]).to_pylist()
    if len(hashes) > 1:
        raise UserError(
            f"an evaluation holds the episodes of one policy, and {folder} those of "
            f"{len(hashes)}: {', '.join(map(str, hashes))[:120]}"
        )
    return Group(folder.name, (), episodes)


@dataclass(frozen=True)
class Paired:
    """Two groups' values (S, E) on the environment seeds that all their trials have.

    shared: the variances of all arms' training seeds on these, None where too few show one; seeds:
    those of a and b, None where both keep their own.
    """

    a: Crossed
    b: Crossed
    shared: SharedVariances | None = None
    seeds: tuple[SeedVariance, SeedVariance] | None = None

    def difference(self, level: float = LEVEL) -> Estimate:
        """Return mean(a) - mean(b)."""
        return intervals.paired_difference(self.a.values, self.b.values, level, self.seeds)

    def limited(self, level: float) -> "Paired":
        """Return the same with what other arms count limited as for intervals of this level."""
        if self.seeds is None:
            return self
        a, b = self.seeds
        return replace(self, seeds=(a.limited(level), b.limited(level)))


class Pairing:
    """Pairs of a sweep's groups, which share the variance of their training seeds.

    A config that is an arm of several questions counts once.
    """

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups: dict[str, Group] = {}
        for group in groups:
            self._groups.setdefault(group.name, group)
        self._index = {name: index for index, name in enumerate(self._groups)}
        self._shared: dict[tuple[str, range, bytes], SharedVariances | None] = {}

    def pair(self, a: Group, b: Group, column: str, seeds: range) -> Paired:
        """Return a and b, paired by the environment seeds in the range."""
        cut = intervals.common(a.grid(column, seeds), b.grid(column, seeds))
        if min(len(side.train_seeds) for side in cut) < 2 or not len(cut[0].env_seeds):
            return Paired(*cut)
        at = column, seeds, cut[0].env_seeds.tobytes()
        if at not in self._shared:
            self._shared[at] = self._share(column, seeds, cut[0].env_seeds)
        shared = self._shared[at]
        if shared is None:
            return Paired(*cut)
        of_a, of_b = (shared.arms[self._index[side.name]] for side in (a, b))
        if of_a is None or of_b is None or not (of_a.borrows or of_b.borrows):
            return Paired(*cut, shared)
        return Paired(*cut, shared, (of_a, of_b))

    def _share(
        self, column: str, seeds: range, starts: NDArray[np.int64]
    ) -> SharedVariances | None:
        """Return the variances of the groups that have all of these environment seeds."""
        grids = []
        for group in self._groups.values():
            grid = group.grid(column, seeds)
            whole = np.isin(starts, grid.env_seeds).all()
            columns = np.searchsorted(grid.env_seeds, starts if whole else starts[:0])
            grids.append(grid.values[:, columns])
        return seed_variance.share(grids)

    def names(self, indices: Iterable[int]) -> list[str]:
        """Return the names (config hashes) of groups by their index in `Paired.shared`."""
        names = list(self._groups)
        return [names[index] for index in indices]


@dataclass(frozen=True)
class Comparison:
    """Two groups on the environment seeds that all their trials have, and the difference a - b.

    dropped: how many environment seeds only some of them have.
    """

    column: str
    a: Estimate
    b: Estimate
    difference: Estimate
    seeds_a: int
    seeds_b: int
    dropped: int

    def as_row(self, a: str, b: str, on: str) -> dict[str, Any]:
        """Return plain values for JSON and CSV; a and b: the groups' names."""
        return {
            "column": self.column,
            "a": a,
            "b": b,
            "on": on,
            **estimate_columns("mean_a", self.a),
            **estimate_columns("mean_b", self.b),
            **estimate_columns("difference", self.difference),
            "train_seeds_a": self.seeds_a,
            "train_seeds_b": self.seeds_b,
        }


def compare(a: Group, b: Group, column: str, seeds: range) -> Comparison:
    """Compare a column ("score", "success", "final_coverage") of two groups, paired by env seed."""
    cut_a, cut_b = intervals.common(a.grid(column, seeds), b.grid(column, seeds))
    every = pa.concat_tables([group.episodes.select(["env_seed"]) for group in (a, b)])
    known = pc.count_distinct(episode_table.within(every, seeds)["env_seed"]).as_py()
    return Comparison(
        column,
        intervals.share_interval(cut_a.values),
        intervals.share_interval(cut_b.values),
        intervals.paired_difference(cut_a.values, cut_b.values),
        len(cut_a.train_seeds),
        len(cut_b.train_seeds),
        known - len(cut_a.env_seeds),
    )


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, Any]:
    """Return value, low, high and n as four columns; None where unknown."""
    found = estimate or Estimate(math.nan, math.nan, math.nan, 0)
    numbers = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    plain = {key: None if math.isnan(value) else value for key, value in numbers.items()}
    return {**plain, f"{name}_n": None if estimate is None else estimate.n}

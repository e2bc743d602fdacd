"""What a difference between two arms amounts to: many comparisons, robust means, seeds needed.

Legend: S training seeds, E environment seeds; values are grids (S, E), see harness/stats.py.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats import LEVEL, RESAMPLES, Estimate, student_quantile

MOST_SEEDS, MOST_STARTS = 100, 10_000


def shared_level(comparisons: int, level: float = LEVEL) -> float:
    """Return the level of each of several intervals, so that all hold together with `level`.

    Bonferroni's inequality (Dunn 1961): right whatever the dependence between them. ValueError
    below one comparison.
    """
    if comparisons < 1:
        raise ValueError(f"there must be at least one comparison, got {comparisons}")
    return 1.0 - (1.0 - level) / comparisons


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values (n,) adjusted for having been looked at together (Holm 1979), in order."""
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be (n,) and lie in [0, 1], got {p!r:.100}")
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def interquartile_mean(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of the middle half of values (S, E), with a bootstrap interval.

    Robust to a few lost episodes where the mean is not, and of less variance than the median
    (Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", section 4.3, there
    over runs and tasks; here environment seeds take the place of tasks). Training seeds and
    environment seeds are resampled independently (Owen 2007). NaN without values, no interval
    with fewer than two environment seeds.
    """
    grid = _grid(values)
    E = grid.shape[1]
    if grid.size == 0:
        return Estimate(math.nan, math.nan, math.nan, E)
    value = float(_middle_mean(grid.reshape(1, -1))[0])
    if E < 2:
        return Estimate(value, math.nan, math.nan, E)
    means = np.concatenate([_middle_mean(part) for part in _resamples(grid)])
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Estimate(value, float(low), float(high), E)


def _middle_mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of every row (R, n) between its quartiles, ends weighed by their share."""
    ordered = np.sort(rows, 1)
    n = rows.shape[1]
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    means: NDArray[np.float64] = ordered @ (weights / weights.sum())
    return means


def _resamples(grid: NDArray[np.float64], at_once: int = 100) -> list[NDArray[np.float64]]:
    S, E = grid.shape
    rng = np.random.default_rng((2, S, E))
    parts = []
    for _ in range(RESAMPLES // at_once):
        rows = rng.integers(S, size=(at_once, S))[:, :, None]
        columns = rng.integers(E, size=(at_once, E))[:, None, :]
        parts.append(grid[rows, columns].reshape(at_once, -1))
    return parts


def probability_of_improvement(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return how often a training run of `a` beats one of `b` on an environment seed; ties half.

    values (S_a, E) and (S_b, E) on the same environment seeds: the Mann-Whitney statistic averaged
    over environment seeds (Agarwal et al. 2021, section 4.3). Training seeds of each side and
    environment seeds, paired, are resampled independently. ValueError when the numbers of
    environment seeds differ.
    """
    grid_a, grid_b = _grid(a), _grid(b)
    E = grid_a.shape[1]
    if grid_b.shape[1] != E:
        raise ValueError(
            f"paired values need the same environment seeds, got {E} and {grid_b.shape[1]} of them"
        )
    if min(grid_a.size, grid_b.size) == 0:
        return Estimate(math.nan, math.nan, math.nan, E)
    above = np.sign(grid_a[:, None] - grid_b[None]) * 0.5 + 0.5  # (S_a, S_b, E)
    value = float(above.mean())
    if E < 2:
        return Estimate(value, math.nan, math.nan, E)
    rng = np.random.default_rng((3, len(grid_a), len(grid_b), E))
    # The mean over a resample is a product of how often each seed was drawn.
    of_a, of_b, of_env = (_counts(rng, n) for n in above.shape)
    wins = np.einsum("ra,rb,re,abe->r", of_a, of_b, of_env, above, optimize=True)
    low, high = np.quantile(wins, ((1 - level) / 2, (1 + level) / 2))
    return Estimate(value, float(low), float(high), E)


def _counts(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES) / n


@dataclass(frozen=True)
class Spread:
    """Where the uncertainty of a paired difference comes from, as variances of single values.

    starts: of a column's difference between environment seeds; a, b: of a training seed's mean, 0
    where there is one training seed and nothing is known.
    """

    starts: float
    a: float
    b: float

    def half_width(self, train_seeds: int, starts: int, level: float = LEVEL) -> float:
        """Return half the width of the difference's interval with so many seeds on each side.

        A true difference of this size is shown half of the time; see `detectable`.
        """
        tail = 0.5 + level / 2
        of_starts = self.starts / starts * student_quantile(tail, max(1, starts - 1)) ** 2
        of_seeds = (self.a + self.b) / train_seeds
        if train_seeds > 1:
            of_seeds *= student_quantile(tail, 2 * (train_seeds - 1)) ** 2
        return math.sqrt(of_starts + of_seeds)

    def detectable(
        self, train_seeds: int, starts: int, power: float = 0.8, level: float = LEVEL
    ) -> float:
        """Return the smallest true difference that is shown with this probability."""
        sd = math.sqrt(self.starts / starts + (self.a + self.b) / train_seeds)
        return self.half_width(train_seeds, starts, level) + NormalDist().inv_cdf(power) * sd

    def needed(
        self, half_width: float, starts: int, level: float = LEVEL
    ) -> tuple[int, int] | None:
        """Return the fewest training seeds, and starts, for an interval of this half width.

        As few starts above those there are as will do. None beyond 100 seeds and 10,000 starts.
        """
        while starts <= MOST_STARTS:
            for train_seeds in range(2, MOST_SEEDS + 1):
                if self.half_width(train_seeds, starts, level) <= half_width:
                    return train_seeds, starts
            starts *= 2
        return None


def spread(a: ArrayLike, b: ArrayLike) -> Spread:
    """Return where the uncertainty of mean(a) - mean(b) comes from, grids (S_a, E) and (S_b, E)."""
    grids = _grid(a), _grid(b)
    columns = grids[0].mean(0) - grids[1].mean(0)

    def between(grid: NDArray[np.float64]) -> float:
        return float(grid.mean(1).var(ddof=1)) if len(grid) > 1 else 0.0

    starts = float(columns.var(ddof=1)) if len(columns) > 1 else 0.0
    return Spread(starts, between(grids[0]), between(grids[1]))


def _grid(values: ArrayLike) -> NDArray[np.float64]:
    grid = np.asarray(values, np.float64)
    if grid.ndim != 2 or not np.isfinite(grid).all():
        raise ValueError(f"values must be finite and of shape (S, E), got {grid.shape}")
    return grid

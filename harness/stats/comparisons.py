"""What a difference between two arms amounts to: many comparisons, robust means, seeds needed.

Legend: S training seeds, E environment seeds; values are grids (S, E).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.intervals import (
    LEVEL,
    Estimate,
    bounded,
    group_mean,
    share_interval,
    student_quantile,
)

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
    over runs and tasks; here environment seeds take the place of tasks). Resampling two or three
    training seeds makes intervals far too narrow, so that what is resampled is what each value
    does to this mean: the values with their outer quarters drawn in to the quartiles (winsorised:
    Yuen 1974, Biometrika 61(1)), as `group_mean` does it. NaN without values, no interval with
    fewer than three environment seeds.
    """
    grid = _grid(values)
    S, E = grid.shape
    if grid.size == 0:
        return Estimate(math.nan, math.nan, math.nan, E)
    value = float(_middle_mean(grid.reshape(1, -1))[0])
    if E < 3:
        return Estimate(value, math.nan, math.nan, E)
    drawn_in = np.clip(grid, *np.quantile(grid, (0.25, 0.75)))
    # Twice the deviation, as the middle half is kept; the factor is Yuen's for small n.
    pull = 2 * (drawn_in - drawn_in.mean()) * math.sqrt((S * E - 1) / max(1, S * E - 2))
    if grid.min() < 0 or grid.max() > 1:
        moved = group_mean(pull, level)
        return Estimate(value, value + moved.low, value + moved.high, E)
    low, high = _past_ties(grid, bounded(value, value + pull.mean(0), [pull], level), level)
    low_loss, high_loss = _past_ties(1 - grid, Estimate(1 - value, 1 - high, 1 - low, E), level)
    return Estimate(value, 1 - high_loss, 1 - low_loss, E)


def _past_ties(grid: NDArray[np.float64], found: Estimate, level: float) -> tuple[float, float]:
    """Return the interval widened where it may be that more, or fewer, than three quarters tie.

    Values that tie at the top hide how far below them the next ones are. So the interval of the
    tied share is carried over to the mean (Woodruff 1952, JASA 47, for quantiles).
    """
    top = float(grid.max())
    tied = share_interval((grid == top) * 1.0, level)
    low, high = found.low, found.high
    if tied.high >= 0.75:
        high = max(high, top)
        fewer = max(0.0, 0.25 - (tied.value - tied.low))
        low = min(low, float(_middle_mean(grid.reshape(1, -1), fewer)[0]))
    return low, high


def _middle_mean(rows: NDArray[np.float64], first: float = 0.25) -> NDArray[np.float64]:
    """Return the mean of every row's (R, n) half from this quantile on, ends by their share."""
    ordered = np.sort(rows, 1)
    n = rows.shape[1]
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], first + 0.5) - np.maximum(edges[:-1], first), 0.0, None)
    means: NDArray[np.float64] = ordered @ (weights / weights.sum())
    return means


def probability_of_improvement(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return how often a training run of `a` beats one of `b` on an environment seed; ties half.

    values (S_a, E) and (S_b, E) on the same environment seeds: the Mann-Whitney statistic averaged
    over environment seeds (Agarwal et al. 2021, section 4.3). Its interval is that of
    `stats.share_interval`, the training seeds' part from each run's own share of wins (the first
    term of Hoeffding's decomposition). ValueError when the numbers of environment seeds differ.
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
    of_a, of_b = above.mean(1), above.mean(0)
    columns = above.mean((0, 1))
    return bounded(float(above.mean()), columns, [of_a, of_b], level)


@dataclass(frozen=True)
class Distribution:
    """The share of episodes with a score above each threshold, with a band; arrays (T,).

    n: environment seeds. Where nothing is known of others, low and high are NaN.
    """

    thresholds: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: int


THRESHOLDS = tuple(i / 100 for i in range(100))


def score_distribution(
    values: ArrayLike, level: float = LEVEL, thresholds: ArrayLike = THRESHOLDS
) -> Distribution:
    """Return how many of values (S, E) lie above each threshold (T,): a performance profile.

    Agarwal et al. 2021, section 4.2 (there "score distribution"). The band is pointwise, at every
    threshold the interval of `stats.share_interval`.
    """
    grid, over = _grid(values), np.asarray(thresholds, np.float64)
    found = [share_interval((grid > threshold) * 1.0, level) for threshold in over]
    share, low, high = (
        np.array([getattr(estimate, name) for estimate in found])
        for name in ("value", "low", "high")
    )
    return Distribution(over, share, low, high, grid.shape[1])


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


@dataclass(frozen=True)
class Pair:
    """What is said of two grids of scores beside their mean difference.

    middle_a, middle_b: interquartile means. better: how often a's runs beat b's. detectable: the
    smallest true difference that these seeds and starts show four times of five, NaN where one
    start or nothing is there.
    """

    middle_a: Estimate
    middle_b: Estimate
    better: Estimate
    detectable: float

    def columns(self) -> dict[str, float | None]:
        """Return plain values for JSON and CSV."""
        found: dict[str, float | None] = {}
        for name, estimate in (
            ("middle_half_a", self.middle_a),
            ("middle_half_b", self.middle_b),
            ("probability_a_better", self.better),
        ):
            for end, value in (
                ("", estimate.value),
                ("_low", estimate.low),
                ("_high", estimate.high),
            ):
                found[f"{name}{end}"] = None if math.isnan(value) else value
        found["detectable"] = None if math.isnan(self.detectable) else self.detectable
        return found


def pair(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Pair:
    """Return what is said of grids (S_a, E) and (S_b, E) beside their mean difference."""
    grids = _grid(a), _grid(b)
    detectable, E = math.nan, grids[0].shape[1]
    if E > 1 and min(map(len, grids)) > 0:
        detectable = spread(*grids).detectable(min(map(len, grids)), E, level=level)
    better = probability_of_improvement(*grids, level)
    return Pair(interquartile_mean(grids[0]), interquartile_mean(grids[1]), better, detectable)

"""Comparisons of two arms: multiple comparisons, robust means, seeds needed.

Legend: S training seeds, E environment seeds; values are grids (S, E).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats import seed_variance
from harness.stats.intervals import (
    LEVEL,
    Estimate,
    as_grid,
    bounded,
    share_interval,
    student_quantile,
)
from harness.stats.seed_variance import SeedVariance

MOST_SEEDS, MOST_STARTS = 100, 10_000


def shared_level(comparisons: int, level: float = LEVEL) -> float:
    """Return the level of each of several intervals for a simultaneous level of `level`.

    Bonferroni's inequality (Dunn 1961), valid for any dependence between them. ValueError below
    one comparison.
    """
    if comparisons < 1:
        raise ValueError(f"there must be at least one comparison, got {comparisons}")
    return 1.0 - (1.0 - level) / comparisons


def interquartile_mean(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of the middle half of values (S, E) in [0, 1], with its interval.

    More robust to a few failed episodes than the mean, and of less variance than the median
    (Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", section 4.3, there
    over runs and tasks; here environment seeds replace tasks). Resampling two or three training
    seeds makes intervals far too narrow. So the interval is that of `intervals.share_interval`
    for the influence of each value on this mean: the values with their outer quarters clipped to
    the quartiles (winsorised: Yuen 1974, Biometrika 61(1)). NaN without values, no interval with
    fewer than three environment seeds.
    """
    grid = as_grid(values)
    S, E = grid.shape
    if grid.size == 0:
        return Estimate(math.nan, math.nan, math.nan, E)
    value = float(_middle_mean(grid.reshape(1, -1))[0])
    if E < 3:
        return Estimate(value, math.nan, math.nan, E)
    clipped = np.clip(grid, *np.quantile(grid, (0.25, 0.75)))
    # Twice the deviation, as half of the values count; the factor is Yuen's for small n.
    influence = 2 * (clipped - clipped.mean()) * math.sqrt((S * E - 1) / max(1, S * E - 2))
    low, high = _widen_ties(
        grid, bounded(value, value + influence.mean(0), [influence], level), level
    )
    low_loss, high_loss = _widen_ties(1 - grid, Estimate(1 - value, 1 - high, 1 - low, E), level)
    return Estimate(value, 1 - high_loss, 1 - low_loss, E)


def _widen_ties(grid: NDArray[np.float64], found: Estimate, level: float) -> tuple[float, float]:
    """Return the interval, widened where about three quarters of the values tie at the top.

    Tied values do not show how far below them the next ones are. So the interval of the tied share
    is transferred to the mean (Woodruff 1952, JASA 47, for quantiles).
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
    """Return the mean of half of each row (R, n) from quantile `first` on, its ends weighted."""
    ordered = np.sort(rows, 1)
    n = rows.shape[1]
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], first + 0.5) - np.maximum(edges[:-1], first), 0.0, None)
    means: NDArray[np.float64] = ordered @ (weights / weights.sum())
    return means


def probability_of_improvement(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return how often a run of `a` beats one of `b` on an environment seed; ties count half.

    values (S_a, E) and (S_b, E) on the same environment seeds: the Mann-Whitney statistic averaged
    over environment seeds (Agarwal et al. 2021, section 4.3). Its interval is that of
    `intervals.share_interval`, with the variance between training seeds from each run's share of
    wins (the first term of Hoeffding's decomposition). ValueError when the numbers of environment
    seeds differ.
    """
    grid_a, grid_b = as_grid(a), as_grid(b)
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


def not_worse(difference: Estimate, margin: float) -> bool | None:
    """Return whether a difference a - b shows that a is not worse than b by more than `margin`.

    True where the interval's lower end is above -margin (a non-inferiority test, Schuirmann 1987,
    at 2.5 % for a 95 % interval), False where its upper end is below, so that a is worse, None
    where neither is shown.
    """
    if difference.low > -margin:
        return True
    return False if difference.high < -margin else None


@dataclass(frozen=True)
class Spread:
    """The sources of a paired difference's uncertainty, as variances of single values.

    starts: between the columns' differences, by environment seed. a, b: between the training
    seeds' means of each side, 0 where one training seed does not show it. prior_df: degrees of
    freedom that other arms estimate the latter with, see `seed_variance`.
    """

    starts: float
    a: float
    b: float
    prior_df: float = 0.0

    def half_width(self, train_seeds: int, starts: int, level: float = LEVEL) -> float:
        """Return half the width of the difference's interval with so many seeds on each side.

        A true difference of this size is detected with 50 % power; see `detectable`.
        """
        tail = 0.5 + level / 2
        of_starts = self.starts / starts * student_quantile(tail, max(1, starts - 1)) ** 2
        of_seeds = (self.a + self.b) / train_seeds
        if train_seeds > 1:
            own = train_seeds - 1
            limited = float(seed_variance.limited(self.prior_df, own, level))
            df = seed_variance.total_df(limited, own)
            of_seeds *= student_quantile(tail, df) ** 2
        return math.sqrt(of_starts + of_seeds)

    def detectable(
        self, train_seeds: int, starts: int, power: float = 0.8, level: float = LEVEL
    ) -> float:
        """Return the minimum detectable difference: the one that is detected with this power."""
        sd = math.sqrt(self.starts / starts + (self.a + self.b) / train_seeds)
        return self.half_width(train_seeds, starts, level) + NormalDist().inv_cdf(power) * sd

    def needed(
        self, half_width: float, starts: int, level: float = LEVEL
    ) -> tuple[int, int] | None:
        """Return the training seeds and environment seeds needed for an interval's half width.

        The fewest training seeds (at least 2) with `starts` environment seeds, doubled while 100
        training seeds do not suffice. None beyond 100 training and 10,000 environment seeds.
        """
        while starts <= MOST_STARTS:
            for train_seeds in range(2, MOST_SEEDS + 1):
                if self.half_width(train_seeds, starts, level) <= half_width:
                    return train_seeds, starts
            starts *= 2
        return None


def spread(
    a: ArrayLike,
    b: ArrayLike,
    seeds: tuple[SeedVariance, SeedVariance] | None = None,
    level: float = LEVEL,
) -> Spread:
    """Return the variances of mean(a) - mean(b) for grids (S_a, E) and (S_b, E).

    seeds: the variances of a's and b's training seeds, where a sweep's arms share them, as they
    count for intervals of this level.
    """
    grids = as_grid(a), as_grid(b)
    means = grids[0].mean(0) - grids[1].mean(0), grids[0].mean(1), grids[1].mean(1)
    starts, *own = (float(each.var(ddof=1)) if len(each) > 1 else 0.0 for each in means)
    if seeds is None:
        return Spread(starts, *own)
    prior_df = min(float(side.estimated_df) for side in seeds)
    of_a, of_b = (float(side.moderated(level)) for side in seeds)
    return Spread(starts, of_a, of_b, prior_df)


@dataclass(frozen=True)
class Pair:
    """Statistics of two grids of scores besides their mean difference.

    middle_a, middle_b: interquartile means. better: probability of improvement of a over b.
    detectable: the minimum detectable difference at 80 % power, NaN with fewer than two
    environment seeds.
    """

    middle_a: Estimate
    middle_b: Estimate
    better: Estimate
    detectable: float

    def columns(self) -> dict[str, float | None]:
        """Return plain values for JSON and CSV."""
        found = {}
        for name, estimate in (
            ("middle_half_a", self.middle_a),
            ("middle_half_b", self.middle_b),
            ("probability_a_better", self.better),
        ):
            found[name] = estimate.value
            found[f"{name}_low"], found[f"{name}_high"] = estimate.low, estimate.high
        found["detectable"] = self.detectable
        return {name: None if math.isnan(value) else value for name, value in found.items()}


def pair(
    a: ArrayLike,
    b: ArrayLike,
    level: float = LEVEL,
    seeds: tuple[SeedVariance, SeedVariance] | None = None,
) -> Pair:
    """Return the statistics of grids (S_a, E) and (S_b, E) besides their mean difference.

    seeds: see `spread`.
    """
    grids = as_grid(a), as_grid(b)
    detectable, S, E = math.nan, min(map(len, grids)), grids[0].shape[1]
    if E > 1 and S > 0:
        detectable = spread(*grids, seeds, level).detectable(S, E, level=level)
    better = probability_of_improvement(*grids, level)
    return Pair(interquartile_mean(a), interquartile_mean(b), better, detectable)

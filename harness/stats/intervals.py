"""Confidence intervals of rates, means and differences.

Legend: S training seeds, E environment seeds; values are grids (S, E).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats import seed_variance
from harness.stats.seed_variance import LEVEL as LEVEL
from harness.stats.seed_variance import SeedVariance

RESAMPLES = 2000
# For more values the bootstrap distribution of the mean is normal to the third digit.
_MOST_RESAMPLED = 4000


@lru_cache(maxsize=4096)
def student_quantile(p: float, df: float) -> float:
    """Return the quantile of Student's t for 0 < p < 1 and df > 0 degrees of freedom."""
    from scipy.special import stdtrit  # a quarter of a second that most commands do not need

    return float(stdtrit(df, p))


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, both ends NaN where n values do not determine one."""

    value: float
    low: float
    high: float
    n: int


def wilson(k: int, n: int, level: float = LEVEL) -> Estimate:
    """Return the rate k / n with Wilson's score interval (1927), valid for k = 0 and k = n too.

    ValueError unless 0 <= k <= n; n = 0 gives NaN.
    """
    if not 0 <= k <= n:
        raise ValueError(f"a rate needs 0 <= k <= n, given k = {k}, n = {n}")
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    low, high = _wilson_bounds(k / n, n, level)
    return Estimate(k / n, 0.0 if k == 0 else low, 1.0 if k == n else high, n)


def _wilson_bounds(rate: float, n: float, level: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _resampled(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of bootstrap resamples minus the mean of the sample: (RESAMPLES,)."""
    n = len(sample)
    if n > _MOST_RESAMPLED:
        return np.asarray(_normal_draws(n) * (sample.std() / math.sqrt(n)))
    centred = (sample - sample.mean()).astype(np.float32)
    return np.asarray((_resample_counts(n) @ centred).astype(np.float64) / n)


@lru_cache(maxsize=8)
def _resample_counts(n: int) -> NDArray[np.float32]:
    """Return how often each of n values occurs in each resample: (RESAMPLES, n)."""
    # The seed is fixed so that the same data give the same interval in every run.
    drawn = np.random.default_rng(n).integers(n, size=(RESAMPLES, n))
    drawn += n * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * n)
    return counts.reshape(RESAMPLES, n).astype(np.float32)


@lru_cache(maxsize=8)
def _normal_draws(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng((1, seed)).standard_normal(RESAMPLES)


@dataclass(frozen=True)
class Crossed:
    """One finite number for each training seed and environment seed: values (S, E).

    dropped: environment seeds left out because a training seed has no finite number there.
    """

    train_seeds: tuple[int, ...]
    env_seeds: NDArray[np.int64]
    values: NDArray[np.float64]
    dropped: int = 0


def crossed(train_seeds: ArrayLike, env_seeds: ArrayLike, values: ArrayLike) -> Crossed:
    """Arrange rows (n,) of (training seed, environment seed, value) as a complete grid.

    Rows that are not finite count as missing. ValueError for a pair of seeds that occurs twice.
    """
    train = np.asarray(train_seeds, np.int64)
    env = np.asarray(env_seeds, np.int64)
    value = np.asarray(values, np.float64)
    finite = np.isfinite(value)
    names, rows = np.unique(train, return_inverse=True)
    seen, columns = np.unique(env, return_inverse=True)
    grid = np.full((len(names), len(seen)), np.nan)
    if len(np.unique(rows * max(1, len(seen)) + columns)) != len(value):
        raise ValueError("each pair of training seed and environment seed may come once only")
    grid[rows[finite], columns[finite]] = value[finite]
    whole = np.isfinite(grid).all(0)
    return Crossed(tuple(names.tolist()), seen[whole], grid[:, whole], int((~whole).sum()))


def common(a: Crossed, b: Crossed) -> tuple[Crossed, Crossed]:
    """Restrict two grids to their common environment seeds, so that columns are paired."""
    shared, of_a, of_b = np.intersect1d(a.env_seeds, b.env_seeds, return_indices=True)

    def cut(grid: Crossed, columns: NDArray[np.intp]) -> Crossed:
        dropped = grid.dropped + grid.values.shape[1] - len(columns)
        return Crossed(grid.train_seeds, shared, grid.values[:, columns], dropped)

    return cut(a, of_a), cut(b, of_b)


def group_mean(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of values (S, E) of S training seeds on E common environment seeds.

    The interval generalises to other training and environment seeds, see `paired_difference`;
    with S = 1 it does not generalise to other training seeds.
    """
    return _two_way([(1.0, as_grid(values))], level)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    level: float = LEVEL,
    seeds: tuple[SeedVariance, SeedVariance] | None = None,
) -> Estimate:
    """Return mean(a) - mean(b) for values (S_a, E) and (S_b, E) on the same environment seeds.

    Hierarchical bootstrap of a crossed design: training seeds of each side and environment seeds,
    paired, vary independently (the pigeonhole bootstrap, Owen 2007, Annals of Applied Statistics
    1(2)). Environment seeds are resampled. Training seeds are too few for that (two have only
    three resamples), so normal draws with the variance of their means replace them. The spread is
    then scaled: each part by its own Student's t (the modified large-sample interval, Graybill and
    Wang 1980; degrees of freedom of the two sides' seeds together after Welch and Satterthwaite),
    minus the noise of the single cells, which both parts contain. In simulations, the 95 % interval
    covers 95 to 99 %. With `seeds`, the variances of a's and b's training seeds shared by a sweep's
    arms, the width is that of `seed_variance.half_width`. ValueError when the numbers of
    environment seeds differ.
    """
    grids = as_grid(a), as_grid(b)
    if grids[0].shape[1] != grids[1].shape[1]:
        raise ValueError(
            "paired values need the same environment seeds, given "
            f"{grids[0].shape[1]} and {grids[1].shape[1]} of them"
        )
    found = _two_way([(1.0, grids[0]), (-1.0, grids[1])], level, seeds)
    if all(grid.size and grid.min() >= 0 and grid.max() <= 1 for grid in grids):
        # Two shares differ by at most 1; NaN stays NaN.
        low, high = (float(np.clip(end, -1.0, 1.0)) for end in (found.low, found.high))
        return Estimate(found.value, low, high, found.n)
    return found


def as_grid(values: ArrayLike) -> NDArray[np.float64]:
    """Return finite values as floats (S, E); ValueError for anything else."""
    grid = np.asarray(values, np.float64)
    if grid.ndim != 2 or not np.isfinite(grid).all():
        raise ValueError(f"values must be finite and of shape (S, E), given {grid.shape}")
    return grid


def _two_way(
    signed: list[tuple[float, NDArray[np.float64]]],
    level: float,
    seeds: tuple[SeedVariance, SeedVariance] | None = None,
) -> Estimate:
    """Return the mean of the signed sum of grids that share their columns."""
    E = signed[0][1].shape[1]
    if E == 0 or any(len(grid) == 0 for _, grid in signed):
        return Estimate(math.nan, math.nan, math.nan, E)
    value = float(sum(sign * grid.mean() for sign, grid in signed))
    if E == 1:
        return Estimate(value, math.nan, math.nan, E)
    columns = np.sum([sign * grid.mean(0) for sign, grid in signed], axis=0)
    of_env = float(columns.var(ddof=1)) / E
    grids = [grid for _, grid in signed]
    if seeds is None:
        half, of_seeds = half_width(of_env, E, grids, level)
    else:
        noise = [_interaction(grid) for grid in grids]
        half, of_seeds = map(float, seed_variance.half_width(of_env, E, seeds, noise, level))
    if half == 0:
        return Estimate(value, value, value, E)
    tail = 0.5 + level / 2
    spread = _resampled(columns) * math.sqrt(E / (E - 1)) + _normal_draws(0) * math.sqrt(of_seeds)
    scale = half / (NormalDist().inv_cdf(tail) * math.sqrt(of_env + of_seeds))
    low, high = np.quantile(spread, (1 - tail, tail)) * scale
    return Estimate(value, value + float(low), value + float(high), E)


def half_width(
    of_env: float, E: int, grids: Sequence[NDArray[np.float64]], level: float = LEVEL
) -> tuple[float, float]:
    """Return half the width of a crossed mean's interval, and its variance from training seeds.

    of_env: its variance from E >= 2 environment seeds. grids (S, E), one per side, give the
    variance between training seeds; it is unknown for S = 1. See `paired_difference`.
    """
    seeds = [(float(g.mean(1).var(ddof=1)) / len(g), len(g) - 1) for g in grids if len(g) > 1]
    of_seeds = sum(variance for variance, _ in seeds)
    tail = 0.5 + level / 2
    wide_env, wide_seeds = of_env * student_quantile(tail, E - 1) ** 2, 0.0
    if of_seeds:
        df = of_seeds**2 / sum(variance**2 / n for variance, n in seeds)
        wide_seeds = of_seeds * student_quantile(tail, df) ** 2
    noise = NormalDist().inv_cdf(tail) ** 2 * sum(_interaction(grid) for grid in grids)
    return math.sqrt(max(wide_env + wide_seeds - noise, wide_env, wide_seeds)), of_seeds


def share_interval(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of numbers in [0, 1], scores or successes, (n,) or (S, E), with an interval.

    Wilson's interval with the n that gives the variance of the mean (for rates of clustered
    samples: Korn and Graubard 1998, Survey Methodology 24(2)). It stays inside [0, 1], where
    symmetric intervals do not, and the bootstrap is too narrow if most scores are 1. The variance
    is that of `group_mean`, for other environment and, with S > 1, other training seeds. As few
    values below 1 and above 0 estimate it badly, the largest possible variance of numbers in
    [0, 1] is added with the weight of half a value. n = E is the number of environment seeds; 0
    gives NaN. ValueError for numbers outside [0, 1].
    """
    sample = np.asarray(values, np.float64)
    grid = as_grid(sample[None] if sample.ndim == 1 else sample)
    E = grid.shape[1]
    if grid.size == 0:
        return Estimate(math.nan, math.nan, math.nan, E)
    if grid.min() < -1e-9 or grid.max() > 1 + 1e-9:
        raise ValueError(f"shares lie in [0, 1], given {grid.min():g} to {grid.max():g}")
    columns = np.clip(grid.mean(0), 0.0, 1.0)
    return bounded(float(columns.mean()), columns, [grid], level)


def bounded(
    value: float,
    columns: NDArray[np.float64],
    grids: Sequence[NDArray[np.float64]],
    level: float = LEVEL,
) -> Estimate:
    """Return the interval of `share_interval` for a mean in [0, 1].

    columns (E,): its means by environment seed. grids (S, E): one per side, see `half_width`.
    """
    E = len(columns)
    if E < 2:
        return Estimate(value, math.nan, math.nan, E)
    largest = value * (1 - value)
    if largest <= 0:  # all 0 or all 1: Wilson's interval of one outcome per environment seed
        low, high = _wilson_bounds(value, E, level)
        return Estimate(value, min(low, value), max(high, value), E)
    inner = min(int((columns < 1).sum()), int((columns > 0).sum()))
    of_env = (inner * float(columns.var(ddof=1)) + 0.5 * largest) / (inner + 0.5) / E
    half, _ = half_width(of_env, E, grids, level)
    n = largest * (NormalDist().inv_cdf(0.5 + level / 2) / half) ** 2
    low, high = _wilson_bounds(value, n, level)
    return Estimate(value, low, high, E)


def _interaction(grid: NDArray[np.float64]) -> float:
    """Return the part of the mean's variance that is noise of single cells: MS / (S E)."""
    S, E = grid.shape
    if S < 2:
        return 0.0
    rest = grid - grid.mean(0) - grid.mean(1)[:, None] + grid.mean()
    return float((rest**2).sum() / ((S - 1) * (E - 1)) / (S * E))

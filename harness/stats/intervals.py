"""Student's t without scipy: its distribution function and quantiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


@lru_cache(maxsize=4096)
def student_quantile(p: float, df: float) -> float:
    """Return the quantile of Student's t for 0 < p < 1 and df > 0, by Newton's method."""
    if p < 0.5:
        return -student_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while student_cdf(high, df) < p:
        low, high = high, 2 * high
    t = NormalDist().inv_cdf(p)
    for _ in range(100):
        if not low <= t <= high:  # far out the slope misleads
            t = (low + high) / 2
        over = student_cdf(t, df) - p
        low, high = (low, t) if over > 0 else (t, high)
        step = over / _density(t, df)
        t -= step
        if abs(step) <= 1e-12 * max(1.0, t):
            break
    return t


def _density(t: float, df: float) -> float:
    front = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(front - (df + 1) / 2 * math.log1p(t * t / df))


def student_cdf(t: float, df: float) -> float:
    """Return P(T <= t) of Student's t through the incomplete beta function."""
    tail = _beta(df / (df + t * t), df / 2, 0.5) / 2
    return 1 - tail if t > 0 else tail


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b).

    Its continued fraction (Abramowitz and Stegun 26.5.8) by Lentz's method.
    """
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    if x <= 0:
        return 0.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 200):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / (1 + even * d), 1 + even / c
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / (1 + odd * d), 1 + odd / c
        value *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return front * value / a


LEVEL = 0.95
RESAMPLES = 2000


# Above this many values the mean's bootstrap distribution is the normal one to the third digit.
_MOST_RESAMPLED = 4000


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; `low` and `high` are NaN where n says nothing about it."""

    value: float
    low: float
    high: float
    n: int


def wilson(k: int, n: int, level: float = LEVEL) -> Estimate:
    """Return the rate k of n with Wilson's score interval (1927), good down to k = 0 and k = n.

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


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of finite values (n,) with a bootstrap interval.

    The expanded percentile interval of Hesterberg (2015, "What teachers should know about the
    bootstrap", section 4.2): the plain percentile one is too narrow for small n. ValueError for a
    value that is not finite; n = 0 gives NaN, n = 1 a mean without an interval.
    """
    sample = _finite(values)
    n = len(sample)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(sample.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(0.5 + level / 2, n - 1))
    low, high = np.quantile(_resampled(sample), (tail, 1 - tail))
    return Estimate(mean, mean + float(low), mean + float(high), n)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError(f"values must be finite and of shape (n,), given {sample!r:.120}")
    return sample


def _resampled(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each bootstrap resample less the sample's mean: (RESAMPLES,)."""
    n = len(sample)
    if n > _MOST_RESAMPLED:
        return np.asarray(_normal_draws(n) * (sample.std() / math.sqrt(n)))
    centred = (sample - sample.mean()).astype(np.float32)
    return np.asarray((_resample_counts(n) @ centred).astype(np.float64) / n)


@lru_cache(maxsize=8)
def _resample_counts(n: int) -> NDArray[np.float32]:
    """Return how often each of n values is drawn in every resample: (RESAMPLES, n)."""
    # A fixed seed: the same data must print the same interval in every run.
    drawn = np.random.default_rng(n).integers(n, size=(RESAMPLES, n))
    drawn += n * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * n)
    return counts.reshape(RESAMPLES, n).astype(np.float32)


@lru_cache(maxsize=8)
def _normal_draws(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng((1, seed)).standard_normal(RESAMPLES)


@dataclass(frozen=True)
class Crossed:
    """One number for every training seed and every environment seed: values (S, E).

    dropped: environment seeds left out because some training seed lacks a finite number there.
    """

    train_seeds: tuple[int, ...]
    env_seeds: NDArray[np.int64]
    values: NDArray[np.float64]
    dropped: int = 0


def crossed(train_seeds: ArrayLike, env_seeds: ArrayLike, values: ArrayLike) -> Crossed:
    """Arrange rows (n,) of (training seed, environment seed, value) as a grid without holes.

    Rows that are not finite count as absent. ValueError when a pair of seeds comes twice.
    """
    train = np.asarray(train_seeds, np.int64)
    env = np.asarray(env_seeds, np.int64)
    value = np.asarray(values, np.float64)
    seen = np.unique(env)
    finite = np.isfinite(value)
    names, rows = np.unique(train, return_inverse=True)
    grid = np.full((len(names), len(seen)), np.nan)
    columns = np.searchsorted(seen, env)
    if len(np.unique(rows * max(1, len(seen)) + columns)) != len(value):
        raise ValueError("each pair of training seed and environment seed may come once only")
    grid[rows[finite], columns[finite]] = value[finite]
    whole = np.isfinite(grid).all(0)
    seeds = tuple(int(name) for name in names)
    return Crossed(seeds, seen[whole], grid[:, whole], int((~whole).sum()))


def common(a: Crossed, b: Crossed) -> tuple[Crossed, Crossed]:
    """Cut two grids to the environment seeds that both have, so that columns pair."""
    shared, of_a, of_b = np.intersect1d(a.env_seeds, b.env_seeds, return_indices=True)
    return (
        Crossed(
            a.train_seeds, shared, a.values[:, of_a], a.dropped + a.values.shape[1] - len(of_a)
        ),
        Crossed(
            b.train_seeds, shared, b.values[:, of_b], b.dropped + b.values.shape[1] - len(of_b)
        ),
    )


def group_mean(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of values (S, E) of S training seeds on E common environment seeds.

    Its interval is for other training seeds and other environment seeds, see
    `paired_difference`; with S = 1 it says nothing of other training seeds.
    """
    grid = _grid(values)
    return _two_way([(1.0, grid)], level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return mean(a) - mean(b) for values (S_a, E) and (S_b, E) on the same environment seeds.

    Hierarchical bootstrap of a crossed design: training seeds of each side and environment seeds,
    paired, vary independently (the pigeonhole bootstrap, Owen 2007, Annals of Applied Statistics
    1(2)). Environment seeds are resampled; training seeds are too few for that (two have only
    three resamples), so normal draws of their means' variance stand for them. The spread is then
    scaled: each part by its own Student's t (the modified large-sample interval, Graybill and Wang
    1980; degrees of freedom of the two sides' seeds together after Welch and Satterthwaite), less
    the cells' own noise, which varying both would count twice. Simulated, the 95 % interval covers
    95 to 99 %. ValueError when the numbers of environment seeds differ.
    """
    grids = _grid(a), _grid(b)
    if grids[0].shape[1] != grids[1].shape[1]:
        raise ValueError(
            "paired values need the same environment seeds, given "
            f"{grids[0].shape[1]} and {grids[1].shape[1]} of them"
        )
    found = _two_way([(1.0, grids[0]), (-1.0, grids[1])], level)
    if all(grid.size and grid.min() >= 0 and grid.max() <= 1 for grid in grids):
        # Two shares are never further apart; NaN stays NaN.
        low, high = (float(np.clip(end, -1.0, 1.0)) for end in (found.low, found.high))
        return Estimate(found.value, low, high, found.n)
    return found


def _grid(values: ArrayLike) -> NDArray[np.float64]:
    grid = np.asarray(values, np.float64)
    if grid.ndim != 2 or not np.isfinite(grid).all():
        raise ValueError(f"values must be finite and of shape (S, E), given {grid.shape}")
    return grid


def _two_way(signed: list[tuple[float, NDArray[np.float64]]], level: float) -> Estimate:
    """Return the mean of the signed sum of grids that share their columns."""
    E = signed[0][1].shape[1]
    if E == 0 or any(len(grid) == 0 for _, grid in signed):
        return Estimate(math.nan, math.nan, math.nan, E)
    value = float(sum(sign * grid.mean() for sign, grid in signed))
    if E == 1:
        return Estimate(value, math.nan, math.nan, E)
    columns = np.sum([sign * grid.mean(0) for sign, grid in signed], axis=0)
    of_env = float(columns.var(ddof=1)) / E
    half, of_seeds = half_width(of_env, E, [grid for _, grid in signed], level)
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

    of_env: its variance from E >= 2 environment seeds. grids (S, E), one a side: the training
    seeds' own part; S = 1 says nothing of others. See `paired_difference`.
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

    Wilson's interval with the n that would give the mean's own variance (for rates of clustered
    samples: Korn and Graubard 1998, Survey Methodology 24(2)): it bends away from 0 and 1 where
    the bootstrap of scores that pile up at 1 is too narrow and symmetric ones leave [0, 1]. The
    variance is that of `group_mean`, for other environment and, with S > 1, other training seeds;
    as few values off the ends say little of it, the largest that numbers in [0, 1] can have counts
    like half a value. n = E is the number of environment seeds; 0 gives NaN. ValueError for
    numbers outside [0, 1].
    """
    sample = np.asarray(values, np.float64)
    grid = _grid(sample[None] if sample.ndim == 1 else sample)
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

    columns (E,): its parts by environment seed. grids (S, E): one a side, see `half_width`.
    """
    E = len(columns)
    if E < 2:
        return Estimate(value, math.nan, math.nan, E)
    largest = value * (1 - value)
    if largest <= 0:  # all at one end: one outcome a start is all that is known
        low, high = _wilson_bounds(value, E, level)
        return Estimate(value, min(low, value), max(high, value), E)
    inner = min(int((columns < 1).sum()), int((columns > 0).sum()))
    of_env = (inner * float(columns.var(ddof=1)) + 0.5 * largest) / (inner + 0.5) / E
    half, _ = half_width(of_env, E, grids, level)
    n = largest * (NormalDist().inv_cdf(0.5 + level / 2) / half) ** 2
    low, high = _wilson_bounds(value, n, level)
    return Estimate(value, low, high, E)


def _interaction(grid: NDArray[np.float64]) -> float:
    """Return the share of the mean's variance that is the cells' own noise: MS / (S E)."""
    S, E = grid.shape
    if S < 2:
        return 0.0
    rest = grid - grid.mean(0) - grid.mean(1)[:, None] + grid.mean()
    return float((rest**2).sum() / ((S - 1) * (E - 1)) / (S * E))

"""Means, rates and differences, each with its 95 % interval and the n it rests on."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
RESAMPLES = 2000


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
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = k / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Estimate(rate, low, high, n)


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
    means = _resample_counts(n) @ sample / n
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(0.5 + level / 2, n - 1))
    low, high = np.quantile(means, (tail, 1 - tail))
    return Estimate(mean, float(low), float(high), n)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError(f"values must be finite and of shape (n,), given {sample!r:.120}")
    return sample


@lru_cache(maxsize=8)
def _resample_counts(n: int) -> NDArray[np.float64]:
    """Return how often each of n values is drawn in every resample: (RESAMPLES, n)."""
    # A fixed seed: the same data must print the same interval in every run.
    rng = np.random.default_rng(n)
    drawn = rng.integers(n, size=(RESAMPLES, n))
    counts = np.zeros((RESAMPLES, n))
    np.add.at(counts, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
    return counts


@lru_cache(maxsize=256)
def student_quantile(p: float, df: float) -> float:
    """Return the quantile of Student's t for 0 < p < 1 and df > 0, by bisection of its cdf."""
    if p < 0.5:
        return -student_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while student_cdf(high, df) < p:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


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

"""Student's t without scipy: its distribution function and quantiles."""

import math
from functools import lru_cache
from statistics import NormalDist


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

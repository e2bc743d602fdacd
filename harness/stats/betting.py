"""Confidence sequences: intervals of a mean that hold at every sample size at once.

So one may look after every sample and stop when the answer is clear. Source: Waudby-Smith and
Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS B 86(1),
arXiv:2010.09686: the hedged capital process (theorem 3) with its predictable plug-in bets.

Legend: R independent sequences, T values of each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.intervals import LEVEL, Estimate

_TRUNCATION = 0.5  # a bet risks at most this share of the capital
_HALVINGS = 40  # of an interval of length 1, to find an end: 1e-12

Floats = NDArray[np.float64]


def bets(shares_RT: ArrayLike, level: float = LEVEL) -> Floats:
    """Return how much to bet on each of the values (R, T) in [0, 1], given those before it."""
    x = np.asarray(shares_RT, np.float64)
    t = np.arange(1, x.shape[1] + 1)
    means = (0.5 + np.cumsum(x, 1)) / (t + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2, 1)) / (t + 1)
    before = np.concatenate([np.full((len(x), 1), 0.25), variances[:, :-1]], 1)
    found: Floats = np.sqrt(2 * math.log(2 / (1 - level)) / (before * t * np.log(t + 1)))
    return found


def log_capital(shares_RT: ArrayLike, bets_RT: ArrayLike, mean: float, sign: int) -> Floats:
    """Return the log of the capital (R, T) after betting that the true mean is not `mean`.

    sign: 1 bets that it is higher, -1 that it is lower. If it is `mean`, the capital that began at
    1 ever reaches c with a probability of at most 1 / c (Ville's inequality).
    """
    x, largest = np.asarray(shares_RT, np.float64), mean if sign > 0 else 1 - mean
    most = _TRUNCATION / largest if largest > 0 else math.inf
    found: Floats = np.cumsum(np.log1p(sign * np.minimum(bets_RT, most) * (x - mean)), 1)
    return found


def excluded_from(shares_RT: ArrayLike, bets_RT: ArrayLike, mean: float, level: float) -> Floats:
    """Return after how many values (R,) each sequence excludes `mean`; infinity where never."""
    threshold = math.log(2 / (1 - level))  # half of the capital on each side
    capital = [log_capital(shares_RT, bets_RT, mean, sign) for sign in (1, -1)]
    crossed = np.maximum(*capital) >= threshold
    return np.where(crossed.any(1), crossed.argmax(1) + 1.0, math.inf)


def anytime_mean(shares: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of numbers (n,) in [0, 1], in the order in which they were seen.

    The interval is the intersection of those after 1, 2, ..., n values, and all of these contain
    the true mean together with a probability of `level`. It depends on the values and their order
    alone, not on when anyone looked. NaN for n = 0. ValueError for values outside [0, 1].
    """
    x = np.asarray(shares, np.float64)
    if x.ndim != 1 or not ((x >= 0) & (x <= 1)).all():
        raise ValueError("a confidence sequence needs a row of numbers in [0, 1]")
    if len(x) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    bet, threshold = bets(x[None], level), math.log(2 / (1 - level))

    def end(sign: int) -> float:
        # The capital that bets on a higher mean falls with `mean`, so bisection finds the end.
        outside, inside = (0.0, 1.0) if sign > 0 else (1.0, 0.0)
        if log_capital(x[None], bet, outside, sign).max() < threshold:
            return outside
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if log_capital(x[None], bet, middle, sign).max() < threshold:
                inside = middle
            else:
                outside = middle
        return outside

    return Estimate(float(x.mean()), end(1), end(-1), len(x))


def anytime_difference(differences: ArrayLike, level: float = LEVEL) -> Estimate:
    """Return the mean of paired differences (n,) in [-1, 1], see `anytime_mean`."""
    found = anytime_mean((np.asarray(differences, np.float64) + 1) / 2, level)
    value, low, high = (2 * number - 1 for number in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n)


@dataclass(frozen=True)
class Decision:
    """What a confidence sequence of paired differences says, and after how many of them.

    verdict: "higher" or "lower" where it excludes 0; "alike" where it lies inside (-delta, delta);
    None while neither is so. difference: the mean and its interval after `starts` differences.
    """

    verdict: str | None
    starts: int
    difference: Estimate


@dataclass(frozen=True)
class PairResult:
    """What is known of two policies, a and b, on the starts that the decision needed.

    decision: on their paired differences in score, a - b. success: the difference in success rate.
    score_a, score_b: their means. All intervals hold at any time, each for itself. rolled_out: on
    how many starts both have rows. failed: starts left out, as an episode failed there.
    """

    decision: Decision
    success: Estimate
    score_a: Estimate
    score_b: Estimate
    delta: float
    rolled_out: int
    failed: int


def decide(
    differences: ArrayLike, looks: Sequence[int], delta: float, level: float = LEVEL
) -> Decision:
    """Return the first decision at one of the looks, after so many of the differences (n,).

    It is a function of the differences in their order and of the looks, so who resumes decides the
    same. All claims together are wrong with a probability of at most 1 - level.
    """
    d = np.asarray(differences, np.float64)
    if looks and len(d):
        x = (d[None] + 1) / 2
        bet = bets(x, level)
        out = {m: excluded_from(x, bet, (m + 1) / 2, level)[0] for m in (-delta, 0.0, delta)}
        alike = max(out[-delta], out[delta])
        for look in looks:
            if out[0.0] <= look:
                found = anytime_difference(d[:look], level)
                return Decision("higher" if found.low + found.high > 0 else "lower", look, found)
            if alike <= look:
                return Decision("alike", look, anytime_difference(d[:look], level))
    starts = looks[-1] if looks else 0
    return Decision(None, starts, anytime_difference(d[:starts], level))

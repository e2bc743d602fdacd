"""Repeated rollouts of the same starts: what is the start's difficulty, what the policy's noise.

Legend: E starts, K rollouts of each.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.intervals import LEVEL, RESAMPLES, Estimate, as_grid, share_interval


@dataclass(frozen=True)
class VarianceSplit:
    """The variance of one episode's value: between starts, and of rollouts of the same start.

    share: of the variance between starts, NaN where nothing varies. A control variate that knows
    the starts alone can save at most this share of the episodes.
    """

    starts: float
    noise: float
    share: Estimate


def variance_split(values: ArrayLike, level: float = LEVEL) -> VarianceSplit:
    """Return the variance components of values (E, K), K at least 2.

    One-way random effects analysis of variance (Fisher 1925); the share is the intraclass
    correlation ICC(1) (Shrout and Fleiss 1979). Its interval resamples starts (percentiles), as
    scores that pile up at 1 are not normal; NaN for fewer than 10 starts. ValueError for K < 2.
    """
    grid = as_grid(values)
    E, K = grid.shape
    if K < 2:
        raise ValueError(f"a variance split needs at least two rollouts of each start, given {K}")
    nothing = Estimate(math.nan, math.nan, math.nan, E)
    if E < 2:
        return VarianceSplit(math.nan, math.nan, nothing)
    means, within = grid.mean(1), grid.var(1, ddof=1)
    starts, noise = _components(means[None], within[None], np.ones((1, E)), K)
    if starts[0] + noise[0] == 0:
        return VarianceSplit(0.0, 0.0, nothing)
    share = float(starts[0] / (starts[0] + noise[0]))
    if E < 10:
        return VarianceSplit(
            float(starts[0]), float(noise[0]), Estimate(share, math.nan, math.nan, E)
        )
    # The seed is fixed so that the same rows give the same interval.
    counts = np.random.default_rng(E).multinomial(E, np.full(E, 1 / E), RESAMPLES).astype(float)
    drawn = _components(means[None], within[None], counts, K)
    total = drawn[0] + drawn[1]
    shares = drawn[0][total > 0] / total[total > 0]
    low, high = np.quantile(shares, (0.5 - level / 2, 0.5 + level / 2))
    return VarianceSplit(
        float(starts[0]), float(noise[0]), Estimate(share, float(low), float(high), E)
    )


def _components(
    means: NDArray[np.float64], within: NDArray[np.float64], counts: NDArray[np.float64], K: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the variances between starts and of rollouts (R,) for resamples' counts (R, E)."""
    E = counts.shape[1]
    noise = (counts * within).sum(1) / E
    centre = (counts * means).sum(1, keepdims=True) / E
    between = (counts * (means - centre) ** 2).sum(1) / (E - 1)
    return np.maximum(0.0, between - noise / K), noise


def pass_all(successes: ArrayLike, k: int, level: float = LEVEL) -> Estimate:
    """Return pass^k: how often k rollouts of a start all succeed, from successes (E, K) of 0 or 1.

    Yao et al. 2024, "tau-bench", arXiv:2406.12045: the mean over starts of C(c, k) / C(K, k), c of
    K rollouts successful, which has no bias. The interval is that of `intervals.share_interval`
    over starts. ValueError unless 1 <= k <= K.
    """
    grid = as_grid(successes)
    K = grid.shape[1]
    if not 1 <= k <= K:
        raise ValueError(f"pass^k needs 1 <= k <= {K} rollouts of each start, given k = {k}")
    chances = np.array([math.comb(c, k) / math.comb(K, k) for c in range(K + 1)])
    return share_interval(chances[grid.sum(1).round().astype(int)], level)

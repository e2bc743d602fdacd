"""The variance between training seeds, with strength borrowed from all arms of a sweep.

Two or three seeds hardly show an arm's own variance. Moderated t statistics (Smyth 2004,
Statistical Applications in Genetics and Molecular Biology 3(1); the R package limma) estimate from
all arms what variance to expect of an arm, and how many degrees of freedom this expectation counts
beside the arm's own. Legend: A arms, S training seeds; "..." are further axes, of several sweeps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]

LEVEL = 0.95  # of all of a question's intervals together
MIN_ARMS = 4  # with fewer, a wide arm is not told from the others
TREND_ARMS = 10  # with fewer, a trend follows single arms
# Most degrees of freedom of the prior, as a multiple of the squared own ones and of the number of
# comparisons: an arm of few seeds that vary much more than the others' often looks like them, and
# would get false verdicts, above all where few comparisons leave the intervals narrow. Chosen by
# benchmarks/interval_coverage.py, whose last tables show what more would gain and cost.
WEIGHT, MOST_COMPARISONS = 0.1, 15
WIDE = 0.05  # level of the test that an arm's seeds vary more than the others'
_ROUNDS = 20  # of Newton's method, which needs about 6


@dataclass(frozen=True)
class SeedVariance:
    """The variance of an arm's means between training seeds: its own, and what other arms expect.

    own: the sample variance of S means, df = S - 1. prior: expected, as if it were known from
    estimated_df degrees of freedom; 0 where the arm keeps its own variance. All are arrays (...),
    for one arm (), and df is a number where it is the same for all.
    """

    own: Numbers
    df: int | NDArray[np.int64]
    prior: Numbers
    estimated_df: Numbers

    @property
    def borrows(self) -> bool:
        """Whether there is a prior."""
        return bool((self.estimated_df > 0).any())

    def limited(self, level: float) -> "SeedVariance":
        """Return the same with a prior that counts as `limited` for a level."""
        return replace(self, estimated_df=limited(self.estimated_df, self.df, level))

    def moderated(self, level: float) -> Numbers:
        """Return the mean of both, weighted by degrees of freedom, for an interval's level."""
        prior_df = limited(self.estimated_df, self.df, level)
        return (prior_df * self.prior + self.df * self.own) / (prior_df + self.df)


@dataclass(frozen=True)
class SharedVariances:
    """The variances of all arms, and the check whether they are alike.

    arms: one for each arm given, None for one without variance. estimated_df: degrees of freedom of
    the prior, infinite where the variances differ no more than by chance. sd: the standard
    deviation that the prior stands for, at the arms' middle. equal: p-value of equal variances,
    see `bartlett`. wide: arms (by index) that keep their own variance.
    """

    arms: tuple[SeedVariance | None, ...]
    estimated_df: float
    sd: float
    equal: float
    wide: tuple[int, ...]


def limited(prior_df: ArrayLike, df: ArrayLike, level: float) -> Numbers:
    """Return degrees of freedom of a prior for an arm with df own ones, see WEIGHT.

    level: that of the interval, which tells for how many comparisons it is (Bonferroni).
    """
    comparisons = min((1 - LEVEL) / (1 - level), MOST_COMPARISONS)
    return np.asarray(np.minimum(prior_df, WEIGHT * comparisons * np.square(df)), np.float64)


def total_df(prior_df: float, df: int) -> float:
    """Return the degrees of freedom of the sum of two sides' moderated variances, both with df.

    The prior is common to both (Satterthwaite 1946, Biometrics Bulletin 2(6)).
    """
    weight = prior_df / (prior_df + df)
    of_prior = weight**2 / prior_df if prior_df else 0.0
    return 1 / (of_prior + (1 - weight) ** 2 / (2 * df))


def trigamma_inverse(values: ArrayLike) -> Numbers:
    """Return y with trigamma(y) = values > 0, by Newton's method (Smyth 2004, appendix)."""
    from scipy.special import polygamma  # a quarter of a second that most commands do not need

    given = np.asarray(values, np.float64)
    # Its convergence is monotonic from here; beyond these ends the expansions are exact.
    x = np.clip(given, 1e-6, 1e7)
    y = 0.5 + 1 / x
    for _ in range(_ROUNDS):
        trigamma = polygamma(1, y)
        y += trigamma * (1 - trigamma / x) / polygamma(2, y)
    return np.where(given > 1e7, 1 / np.sqrt(given), np.where(given < 1e-6, 1 / given, y))


def fit_prior(variances: ArrayLike, df: ArrayLike, fitted: int = 1) -> tuple[Numbers, Numbers]:
    """Return the prior's variance (...) and degrees of freedom (...) for variances (..., A) > 0.

    Mean and variance of log s**2 are matched to those of Smyth 2004, section 6.2 (limma's
    fitFDist); df: those of the arms, (..., A). Where log s**2 varies no more than by chance, the
    degrees of freedom are infinite and the variance is the mean, weighted by df. fitted: how many
    parameters the mean of log s**2 has, 2 with a trend.
    """
    from scipy.special import digamma, polygamma

    s2, own = np.broadcast_arrays(np.asarray(variances, np.float64), np.asarray(df, np.float64))
    logs = np.log(s2) - digamma(own / 2) + np.log(own / 2)
    excess = logs.var(-1, ddof=fitted) - polygamma(1, own / 2).mean(-1)
    finite = excess > 0
    half = trigamma_inverse(np.where(finite, excess, 1.0))
    centre = np.exp(logs.mean(-1) + digamma(half) - np.log(half))
    pooled = (s2 * own).sum(-1) / own.sum(-1)
    return np.where(finite, centre, pooled), np.where(finite, 2 * half, np.inf)


def trend(variances: ArrayLike, means: ArrayLike) -> Numbers:
    """Return how variances (..., A) > 0 follow the mean scores (..., A), with mean log 0.

    limma's trend (fitFDist with a covariate) as a line: log s**2 by log m (1 - m), where a slope
    of 1 is that of outcomes 0 and 1. It is kept within 0 to 2, so that scores near an end never
    spread more. 1 for fewer than TREND_ARMS arms.
    """
    logs = np.log(np.asarray(variances, np.float64))
    if logs.shape[-1] < TREND_ARMS:
        return np.ones_like(logs)
    m = np.clip(means, 1e-3, 1 - 1e-3)
    x = np.log(m * (1 - m))
    x = x - x.mean(-1, keepdims=True)
    square = (x**2).sum(-1, keepdims=True)
    slope = (x * logs).sum(-1, keepdims=True) / np.where(square > 0, square, 1.0)
    return np.asarray(np.exp(np.clip(slope, 0.0, 2.0) * x))


def moderate(variances: ArrayLike, df: ArrayLike, means: ArrayLike) -> tuple[Numbers, Numbers]:
    """Return each arm's prior variance and estimated degrees of freedom: variances (..., A).

    Arms that vary more than the others (F test against their mean, at level WIDE) get 0 degrees of
    freedom, and count for the others with the test's critical value (winsorised, as in Phipson et
    al. 2016, Annals of Applied Statistics 10(2)). df, means (..., A), see `trend`. No prior counts
    more than the other arms' degrees of freedom together.
    """
    from scipy.special import fdtri

    s2, own = np.asarray(variances, np.float64), np.asarray(df, np.float64)
    line = trend(s2, means)
    ratios = s2 / line
    rest = own.sum(-1, keepdims=True) - own
    others = ((ratios * own).sum(-1, keepdims=True) - ratios * own) / rest
    fitted = 1 if s2.shape[-1] < TREND_ARMS else 2
    most = others * fdtri(own, rest, 1 - WIDE)
    variance, prior_df = fit_prior(np.minimum(ratios, most), own, fitted)
    counted = np.minimum(prior_df[..., None], rest)
    return variance[..., None] * line, np.where(ratios > most, 0.0, counted)


def bartlett(variances: ArrayLike, df: ArrayLike) -> float:
    """Return the p-value of equal variances (A,) > 0 (Bartlett 1937)."""
    from scipy.special import chdtrc

    s2, own = np.asarray(variances, np.float64), np.asarray(df, np.float64)
    total, arms = own.sum(), len(own)
    statistic = total * math.log((s2 * own).sum() / total) - (own * np.log(s2)).sum()
    correction = 1 + ((1 / own).sum() - 1 / total) / (3 * (arms - 1))
    return float(chdtrc(arms - 1, statistic / correction))


def share(grids: Sequence[Numbers]) -> SharedVariances | None:
    """Return the shared variances of arms' values (S, E) on the same starts.

    An arm takes part with at least two training seeds whose means differ. None with fewer than
    MIN_ARMS of them.
    """
    own = [float(g.mean(1).var(ddof=1)) if len(g) > 1 and g.size else 0.0 for g in grids]
    part = [index for index, variance in enumerate(own) if variance > 1e-20]
    if len(part) < MIN_ARMS:
        return None
    s2 = np.array([own[index] for index in part])
    s2 = np.maximum(s2, 1e-5 * np.median(s2))  # limma's floor: a few rounded means may coincide
    df = np.array([len(grids[index]) - 1 for index in part])
    means = np.array([grids[index].mean() for index in part])
    prior, estimated = moderate(s2, df, means)
    arms: list[SeedVariance | None] = [None] * len(grids)
    for at, index in enumerate(part):
        arms[index] = SeedVariance(
            np.asarray(own[index]), int(df[at]), np.asarray(prior[at]), np.asarray(estimated[at])
        )
    return SharedVariances(
        arms=tuple(arms),
        estimated_df=float(estimated.max()),
        sd=math.sqrt(float(np.median(prior))),
        equal=bartlett(s2 / trend(s2, means), df),
        wide=tuple(index for at, index in enumerate(part) if estimated[at] == 0),
    )


def half_width(
    of_env: ArrayLike,
    starts: int,
    sides: Sequence[SeedVariance],
    noise: Sequence[ArrayLike],
    level: float,
    *,
    limit: bool = True,
) -> tuple[Numbers, Numbers]:
    """Return half the width of a crossed difference's interval, and its variance from seeds.

    of_env: the variance of the mean difference from its starts (at least 2); noise: of each side,
    the part of its mean's variance from single cells, which starts and seeds both contain. So the
    variance is of_env + seeds - noise, at least of_env, and Student's t has the degrees of freedom
    of Satterthwaite 1946 (Biometrics Bulletin 2(6)) for its parts: starts, the prior (common to
    both sides), each side's own seeds, and noise. limit: whether a prior counts as `limited`.
    """
    from scipy.special import stdtrit

    of_starts = np.asarray(of_env, np.float64)
    error = of_starts**2 / (starts - 1)  # half the variance of the estimated variance
    of_prior, of_seeds, cells = (np.zeros_like(of_starts) for _ in range(3))
    for side, single in zip(sides, noise, strict=True):
        count, single_cells = side.df + 1, np.asarray(single, np.float64)
        counted = limited(side.estimated_df, side.df, level) if limit else side.estimated_df
        weight = counted / (counted + side.df)
        prior, own = weight * side.prior / count, (1 - weight) * side.own / count
        of_prior = of_prior + prior / np.sqrt(np.maximum(counted, 1e-9))
        error = error + own**2 / side.df + single_cells**2 / (side.df * (starts - 1))
        of_seeds = of_seeds + prior + own
        cells = cells + single_cells
    error = error + of_prior**2
    variance = np.maximum(of_starts + of_seeds - cells, of_starts)
    df = np.maximum(variance**2 / np.maximum(error, 1e-300), 1.0)
    return np.asarray(stdtrit(df, 0.5 + level / 2) * np.sqrt(variance)), of_seeds

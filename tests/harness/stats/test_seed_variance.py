"""Variances shared by arms: against limma's formulas, scipy, closed forms, and known truth."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks import interval_coverage
from benchmarks.interval_coverage import Drawn, Effects
from harness.stats import comparisons, intervals, seed_variance
from harness.stats.seed_variance import SeedVariance


def arms(seed: int, count: int = 6, seeds: int = 3, starts: int = 60) -> NDArray[np.float64]:
    """Scores (count, S, E) of arms whose training seeds vary alike."""
    rng = np.random.default_rng(seed)
    trained = rng.normal(0, 0.02, (count, seeds, 1))
    return 0.6 + trained + rng.normal(0, 0.1, (count, seeds, starts))


@given(st.floats(1e-9, 1e9))
def test_trigamma_is_inverted(value: float) -> None:
    y = float(seed_variance.trigamma_inverse(value))
    assert float(scipy.special.polygamma(1, y)) == pytest.approx(value, rel=1e-5)


def test_the_prior_is_limmas() -> None:
    """By fitFDist, written out: the excess of var log s**2 over trigamma(df / 2)."""
    s2 = np.array([0.2, 9.0, 0.9, 0.05, 2.5, 30.0])
    variance, df = seed_variance.fit_prior(s2, np.full(6, 4))
    e = np.log(s2) - (1 - np.euler_gamma) + math.log(2)  # digamma(2) = 1 - gamma
    excess = ((e - e.mean()) ** 2).sum() / 5 - (math.pi**2 / 6 - 1)  # trigamma(2)
    assert excess > 0
    half = scipy.optimize.brentq(lambda y: scipy.special.polygamma(1, y) - excess, 1e-3, 1e3)
    assert df == pytest.approx(2 * half)
    centre = math.exp(e.mean() + scipy.special.digamma(half) - math.log(half))
    assert variance == pytest.approx(centre)


def test_alike_variances_are_pooled() -> None:
    variance, df = seed_variance.fit_prior([1.0, 1.1, 0.9, 1.2], [2, 2, 2, 6])
    assert math.isinf(df)
    assert variance == pytest.approx((2 * 3.0 + 6 * 1.2) / 12)


def test_a_known_prior_is_found() -> None:
    rng = np.random.default_rng(0)
    true = 8.0 / rng.chisquare(8, 40_000) * 0.02  # variance 0.02 with 8 degrees of freedom
    variance, df = seed_variance.fit_prior(true * rng.chisquare(2, 40_000) / 2, np.full(40_000, 2))
    assert df == pytest.approx(8, rel=0.1)
    assert variance == pytest.approx(0.02, rel=0.03)


def test_scores_near_one_spread_less() -> None:
    means = np.linspace(0.4, 0.98, 30)
    expected = means * (1 - means)
    line = seed_variance.trend(0.01 * expected, means)
    assert line / line[0] == pytest.approx(expected / expected[0])
    assert seed_variance.trend(0.01 / expected, means) == pytest.approx(np.ones(30))  # not more
    assert (seed_variance.trend(0.01 * expected[:9], means[:9]) == 1).all()


def test_a_wide_arm_keeps_its_own_variance() -> None:
    s2 = np.array([1.0, 0.8, 1.3, 0.9, 1.1, 60.0])
    prior, df = seed_variance.moderate(s2, np.full(6, 2), np.full(6, 0.5))
    assert df[5] == 0
    assert (df[:5] > 0).all()
    assert prior.max() < 3
    # Exactly at the level of the F test against the mean of the others.
    most = scipy.stats.f.isf(seed_variance.WIDE, 2, 10) * s2[:5].mean()
    for share, counted in ((0.999, True), (1.001, False)):
        s2[5] = most * share
        df = seed_variance.moderate(s2, np.full(6, 2), np.full(6, 0.5))[1]
        assert (df[5] > 0) == counted


def test_the_check_is_scipys_bartlett() -> None:
    rng = np.random.default_rng(1)
    samples = [rng.normal(0, sd, n) for sd, n in ((1, 3), (2, 4), (1, 2), (0.5, 8))]
    found = seed_variance.bartlett([s.var(ddof=1) for s in samples], [len(s) - 1 for s in samples])
    assert found == pytest.approx(scipy.stats.bartlett(*samples).pvalue)


def test_arms_share() -> None:
    grids = arms(2)
    found = seed_variance.share(list(grids))
    assert found is not None
    own = grids.mean(2).var(1, ddof=1)
    assert [float(arm.own) for arm in found.arms if arm] == pytest.approx(own)
    for arm in found.arms:
        assert arm is not None
        for level, most in ((0.95, 0.4), (0.99, 2.0), (0.9995, 6.0)):
            counted = float(seed_variance.limited(arm.estimated_df, 2, level))
            assert counted == pytest.approx(min(most, float(arm.estimated_df)))
            expected = (counted * float(arm.prior) + 2 * float(arm.own)) / (counted + 2)
            assert float(arm.moderated(level)) == pytest.approx(expected)
    # One seed, no start and seeds that all score alike say nothing about the variance.
    others = [grids[0, :1], grids[0][:, :0], np.ones((3, 60))]
    more = seed_variance.share([*grids, *others])
    assert more is not None
    assert more.arms == (*found.arms, None, None, None)
    assert seed_variance.share([*grids[:3], *others]) is None


def test_the_width_is_students_where_the_parts_are_known() -> None:
    # Only the prior: a t interval with its degrees of freedom.
    zero, one = np.array(0.0), np.array(1.0)
    side = SeedVariance(zero, 1, np.array(0.5), np.array(1e9))
    half, of_seeds = seed_variance.half_width(0.0, 10, (side, side), (0, 0), 0.95, limit=False)
    assert of_seeds == pytest.approx(0.5)
    assert half == pytest.approx(1.959964 * math.sqrt(0.5), rel=1e-5)
    # Only own seeds: Welch's interval.
    a, b = np.array([0.1, 0.5, 0.3]), np.array([0.2, 0.25, 0.4, 0.1])
    sides = [SeedVariance(np.array(x.var(ddof=1)), len(x) - 1, one, zero) for x in (a, b)]
    half, _ = seed_variance.half_width(0.0, 10, sides, (0.0, 0.0), 0.95)
    theirs = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert half == pytest.approx((theirs.high - theirs.low) / 2)
    # Only starts: the paired t interval. Never less, whatever the noise of single cells.
    half, _ = seed_variance.half_width(0.04, 10, sides, (9.0, 9.0), 0.95)
    assert half >= scipy.stats.t.ppf(0.975, 9) * 0.2


def test_a_difference_with_shared_variances_is_narrower_and_has_the_same_value() -> None:
    widths = []
    for seed in range(40):
        grids = arms(seed, starts=300)
        found = seed_variance.share(list(grids))
        assert found is not None
        seeds = found.arms[1], found.arms[0]
        assert seeds[0] is not None
        assert seeds[1] is not None
        own = intervals.paired_difference(grids[1], grids[0], 0.99)
        shared = intervals.paired_difference(grids[1], grids[0], 0.99, seeds)
        assert shared.value == own.value
        widths.append((shared.high - shared.low) / (own.high - own.low))
        foretold = comparisons.spread(grids[1], grids[0], seeds)
        assert foretold.prior_df == min(float(s.estimated_df) for s in seeds)
    assert np.median(widths) < 0.9


def test_the_benchmarks_widths_are_those_of_the_code() -> None:
    grids = arms(3, starts=40)
    columns, means = grids.mean(1), grids.mean(2)
    noise = np.array([intervals._interaction(grid) for grid in grids])
    of_env = (columns[1:] - columns[0]).var(1, ddof=1) / 40
    drawn = Drawn(
        seeds=np.full(6, 3),
        starts=40,
        difference=(means[1:].mean(1) - means[0].mean())[None],
        of_env=of_env[None],
        of_seeds=means.var(1, ddof=1)[None],
        noise=noise[None],
    )
    found = seed_variance.share(list(grids))
    assert found is not None
    for at in range(1, 6):
        own = intervals.half_width(of_env[at - 1], 40, [grids[at], grids[0]], 0.99)[0]
        assert drawn.own(0.99)[0, at - 1] == pytest.approx(own)
        sides = [arm for arm in (found.arms[at], found.arms[0]) if arm is not None]
        cells = noise[at], noise[0]
        shared, _ = seed_variance.half_width(of_env[at - 1], 40, sides, cells, 0.99)
        assert drawn.shared(0.99)[0, at - 1] == pytest.approx(shared)


def test_drawn_questions_are_those_of_whole_grids() -> None:
    effects, rng = Effects(), np.random.default_rng(4)
    drawn = effects.draw(rng, 4000, 3, 50)
    whole = rng.normal(0, 0.01, (4000, 2, 3, 1)) + rng.normal(0, 0.21, (4000, 2, 3, 50))
    difference = whole[:, 1].mean((1, 2)) - whole[:, 0].mean((1, 2))
    assert drawn.difference[:, 0].std() == pytest.approx(difference.std(), rel=0.05)
    assert drawn.of_seeds.mean() == pytest.approx(whole.mean(3).var(2, ddof=1).mean(), rel=0.05)
    of_env = (whole[:, 1] - whole[:, 0]).mean(1).var(1, ddof=1).mean() / 50
    assert drawn.of_env.mean() == pytest.approx(of_env, rel=0.05)
    noise = np.mean([intervals._interaction(grid) for grid in whole[:500, 0]])
    assert drawn.noise.mean() == pytest.approx(noise, rel=0.05)


@pytest.mark.parametrize(("seeds", "starts"), [(2, 200), (3, 50), (3, 500), (5, 200)])
def test_shared_variances_show_more_at_the_same_error_rate(seeds: int, starts: int) -> None:
    """The quick part of the tables of benchmarks/interval_coverage.py."""
    level, rng = comparisons.shared_level(5), np.random.default_rng((seeds, starts))
    shown = {}
    for wide, which in ((1.0, 1), (4.0, 1), (8.0, 1), (4.0, 0)):
        drawn = Effects(wide=wide, which=which).draw(rng, 1500, seeds, starts)
        half = {name: way(drawn, level) for name, way in interval_coverage.METHODS.items()}
        wrong = (np.abs(drawn.difference) > half["shared"]).any(1).mean()
        assert wrong <= 0.05 + 3 * 0.0056, (wide, which)  # three standard errors
        if wide == 1:
            shown = {name: (drawn.difference + 0.05 > each).mean() for name, each in half.items()}
            covers = (np.abs(drawn.difference) <= drawn.shared(0.95)).mean()
            assert 0.93 <= covers <= 0.995
    assert shown["shared"] > 1.1 * shown["own"]

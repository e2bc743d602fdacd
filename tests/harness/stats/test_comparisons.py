"""What differences amount to: against closed forms, scipy, and simulations where truth is known."""

import math

import numpy as np
import pytest
import scipy.stats

from benchmarks import interval_coverage
from harness.stats import comparisons, intervals


def test_shared_intervals_hold_together() -> None:
    rng = np.random.default_rng(1)
    assert comparisons.shared_level(1) == intervals.LEVEL
    level = comparisons.shared_level(5)
    held = []
    for _ in range(400):
        grids = rng.normal(size=(6, 4, 30)) + rng.normal(size=(6, 4, 1)) * 0.3
        found = [intervals.paired_difference(g, grids[0], level) for g in grids[1:]]
        held.append(all(each.low <= 0 <= each.high for each in found))
    assert np.mean(held) >= 0.93
    with pytest.raises(ValueError, match="at least one comparison, got 0"):
        comparisons.shared_level(0)


@pytest.mark.parametrize("n", [1, 4, 5, 6, 7, 40])
def test_the_middle_mean_is_scipys_where_quarters_are_whole(n: int) -> None:
    values = np.random.default_rng(n).random((1, n))
    ours = comparisons.interquartile_mean(values).value
    if n % 4 == 0:
        assert ours == pytest.approx(scipy.stats.trim_mean(values[0], 0.25))
    # In general it is the integral of the quantile function over the middle half.
    grid = (np.arange(100_000) + 0.5) / 100_000
    middle = grid[(grid > 0.25) & (grid < 0.75)]
    exact = np.sort(values[0])[np.minimum((middle * n).astype(int), n - 1)].mean()
    assert ours == pytest.approx(exact, abs=1e-4)


def test_the_interquartile_mean_is_robust_and_its_interval_covers() -> None:
    rng = np.random.default_rng(2)
    values = np.minimum(rng.normal(0.8, 0.05, (3, 60)), 1)
    lost = values.copy()
    lost[:, :3] = 0.0
    moved = abs(
        comparisons.interquartile_mean(lost).value - comparisons.interquartile_mean(values).value
    )
    assert moved < 0.01 < abs(lost.mean() - values.mean())
    held = []
    for _ in range(200):
        found = comparisons.interquartile_mean(np.clip(rng.normal(0.5, 0.1, (3, 50)), 0, 1))
        held.append(found.low <= 0.5 <= found.high)
    assert np.mean(held) >= 0.93
    assert math.isnan(comparisons.interquartile_mean(np.zeros((2, 1))).low)


def test_probability_of_improvement_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((7, 1)) + 0.2, rng.random((5, 1))
    u = scipy.stats.mannwhitneyu(a[:, 0], b[:, 0]).statistic
    assert comparisons.probability_of_improvement(a, b).value == pytest.approx(u / 35)
    tied = np.full((2, 10), 0.5)
    assert comparisons.probability_of_improvement(tied, tied).value == 0.5
    far = comparisons.probability_of_improvement(tied + 1, tied)
    # Ten starts won out of ten do not rule out that one in five is lost.
    assert (far.value, far.low, far.high) == pytest.approx((1.0, 0.7225, 1.0), abs=1e-4)
    with pytest.raises(ValueError, match="same environment seeds, got 3 and 4"):
        comparisons.probability_of_improvement(np.zeros((1, 3)), np.zeros((1, 4)))


def test_probability_of_improvement_covers_one_half_under_the_null() -> None:
    rng = np.random.default_rng(4)
    held = []
    for _ in range(200):
        found = comparisons.probability_of_improvement(
            rng.normal(size=(4, 40)), rng.normal(size=(4, 40))
        )
        held.append(found.low <= 0.5 <= found.high)
    assert np.mean(held) >= 0.93


def test_a_spread_foretells_the_interval() -> None:
    rng = np.random.default_rng(5)
    foretold, found = [], []
    for _ in range(100):
        seeds = rng.normal(0, 0.05, (2, 5, 1))
        a, b = seeds + rng.normal(0, 0.2, (2, 5, 60))
        spread = comparisons.spread(a, b)
        interval = intervals.paired_difference(a, b)
        foretold.append(spread.half_width(5, 60))
        found.append((interval.high - interval.low) / 2)
    assert np.mean(foretold) == pytest.approx(np.mean(found), rel=0.15)


def test_what_is_detectable_is_detected_with_its_power() -> None:
    rng = np.random.default_rng(6)
    spread = comparisons.Spread(starts=2 * 0.2**2 / 5, a=0.05**2, b=0.05**2)
    shift = spread.detectable(5, 60)
    shown = []
    for _ in range(300):
        noise = rng.normal(0, 0.05, (2, 5, 1)) + rng.normal(0, 0.2, (2, 5, 60))
        shown.append(intervals.paired_difference(noise[0] + shift, noise[1]).low > 0)
    assert 0.72 < np.mean(shown) < 0.92


def test_how_many_seeds_are_needed() -> None:
    spread = comparisons.Spread(starts=0.1, a=0.002, b=0.002)
    needed = spread.needed(0.05, 100)
    assert needed is not None
    train_seeds, starts = needed
    assert spread.half_width(train_seeds, starts) <= 0.05
    assert starts == 200  # 100 starts alone have a half width of 0.063
    assert spread.half_width(train_seeds - 1, starts) > 0.05
    assert comparisons.Spread(1e3, 1.0, 1.0).needed(0.001, 50) is None


def test_wilsons_interval_is_that_of_one_training_seed() -> None:
    for k, n in ((0, 20), (7, 25), (24, 25), (50, 50)):
        outcomes = np.arange(n) < k
        ours, theirs = intervals.share_interval(outcomes * 1.0), intervals.wilson(k, n)
        assert ours.value == theirs.value
        assert (ours.n, ours.low <= theirs.value <= ours.high) == (n, True)
        # Student's t in the place of the normal quantile: a little wider, never narrower.
        assert ours.low == pytest.approx(theirs.low, abs=0.02)
        assert ours.high == pytest.approx(theirs.high, abs=0.02)
        assert ours.high - ours.low >= theirs.high - theirs.low - 1e-9


def test_shares_stay_where_they_can_be() -> None:
    for values in ([0.0] * 9, [1.0] * 9, [1.0] * 8 + [0.99], [0.5] * 9):
        found = intervals.share_interval(values)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0
    assert intervals.share_interval([1.0] * 25).low == pytest.approx(intervals.wilson(25, 25).low)
    assert math.isnan(intervals.share_interval([]).value)
    assert math.isnan(intervals.share_interval([0.5]).low)
    with pytest.raises(ValueError, match=r"shares lie in \[0, 1\], given 0.5 to 1.5"):
        intervals.share_interval([0.5, 1.5])


def test_a_middle_half_near_its_end_is_bounded_by_how_many_tie() -> None:
    ties = np.sort(np.concatenate([np.ones(77), np.linspace(0.2, 0.9, 23)]))[None]
    found = comparisons.interquartile_mean(ties)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.98  # 77 of 100 do not rule out 70 of 100
    mirrored = comparisons.interquartile_mean(1 - ties)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low))


@pytest.mark.parametrize(("seeds", "starts"), [(1, 25), (1, 100), (2, 50), (3, 50), (5, 25)])
def test_what_is_reported_covers_scores_that_pile_up_at_one(seeds: int, starts: int) -> None:
    """The quick part of benchmarks/interval_coverage.py."""
    world, repeats = interval_coverage.World(0.85, 0.3 if seeds > 1 else 0.0), 150
    everyone, held = world.population(), dict[str, int]()
    rng = np.random.default_rng((seeds, starts))
    for _ in range(repeats):
        a, b = world.draw(rng, 2, seeds, starts)
        for name, found, truth in interval_coverage.intervals(a, b, everyone):
            covers = found.low - 1e-9 <= truth <= found.high + 1e-9
            held[name] = held.get(name, 0) + covers
    # Three standard errors of a coverage of 95 % are 5 points here.
    assert {name: n / repeats for name, n in held.items() if n / repeats < 0.9} == {}


def test_alike_arms_are_seldom_told_apart() -> None:
    """The rate of wrong verdicts of a question with five arms, all like its first."""
    world, level, wrong = interval_coverage.World(0.8, 0.3), comparisons.shared_level(5), 0
    rng = np.random.default_rng(8)
    for _ in range(200):
        grids = world.draw(rng, 6, 3, 50)
        found = [intervals.paired_difference(grid, grids[0], level) for grid in grids[1:]]
        wrong += any(each.low > 0 or each.high < 0 for each in found)
    assert wrong <= 10


def test_a_pair_is_told_by_all_three() -> None:
    rng = np.random.default_rng(9)
    a, b = np.clip(rng.normal(0.8, 0.1, (2, 3, 40)), 0, 1)
    found = comparisons.pair(a, b)
    assert found.middle_a == comparisons.interquartile_mean(a)
    assert found.better == comparisons.probability_of_improvement(a, b)
    assert found.detectable == comparisons.spread(a, b).detectable(3, 40)
    assert None not in found.columns().values()
    alone = comparisons.pair(a[:, :1], b[:, :1]).columns()
    assert alone["detectable"] is None
    assert alone["middle_half_a_low"] is None


def test_a_gate_passes_only_where_the_interval_says_so() -> None:
    def found(low: float, high: float) -> bool | None:
        return comparisons.not_worse(intervals.Estimate((low + high) / 2, low, high, 100), 0.02)

    assert found(-0.01, 0.05) is True
    assert found(-0.05, -0.03) is False
    assert found(-0.05, 0.05) is None
    assert found(-0.02, 0.05) is None
    assert found(math.nan, math.nan) is None

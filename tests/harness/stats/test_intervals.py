"""Intervals agree with scipy's and hold what they promise when the truth is known."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from harness.stats import intervals as stats
from harness.stats.intervals import student_quantile


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, level: float) -> None:
    k = round(share * n)
    ours = stats.wilson(k, n, level)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.low <= ours.value <= ours.high


def test_wilson_at_its_ends() -> None:
    assert stats.wilson(0, 50).low == 0.0
    assert stats.wilson(0, 50).high == pytest.approx(0.0713, abs=1e-4)
    assert stats.wilson(50, 50).high == 1.0
    assert math.isnan(stats.wilson(0, 0).value)
    for k, n in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="0 <= k <= n"):
            stats.wilson(k, n)


@given(st.floats(0.0001, 0.9999), st.floats(1, 1e5))
def test_student_is_scipys(p: float, df: float) -> None:
    assert student_quantile(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=1e-12, abs=1e-12)


def covered(intervals: list[stats.Estimate], truth: float) -> float:
    return float(np.mean([i.low <= truth <= i.high for i in intervals]))


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_wilson_covers_the_truth(rate: float) -> None:
    # Exact, as there are few outcomes: averaged over n, since any one n is lumpy.
    cover = []
    for n in range(100, 140):
        inside = [stats.wilson(k, n).low <= rate <= stats.wilson(k, n).high for k in range(n + 1)]
        cover.append(scipy.stats.binom.pmf(np.arange(n + 1), n, rate)[inside].sum())
    assert 0.93 <= float(np.mean(cover)) <= 0.97


@pytest.mark.parametrize("n", [20, 100])
def test_the_mean_of_scores_is_covered(n: int) -> None:
    # Scores pile up at 1 and spread below: min(1, Beta(2, 1) / 0.8).
    rng = np.random.default_rng(5)
    truth = (0.8**3 * 2 / 3) / 0.8 + (1 - 0.8**2)  # below the cap and at it
    intervals = [stats.group_mean(np.minimum(1, rng.beta(2, 1, (1, n)) / 0.8)) for _ in range(1500)]
    assert 0.93 <= covered(intervals, truth) <= 0.97


def test_the_interval_of_a_mean_is_near_scipys_bootstrap() -> None:
    sample = np.random.default_rng(0).beta(0.7, 0.5, 300)
    ours = stats.group_mean([sample])
    theirs = scipy.stats.bootstrap((sample,), np.mean, n_resamples=9999, rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)
    assert stats.group_mean([sample]) == ours


def test_small_and_broken_samples() -> None:
    assert math.isnan(stats.group_mean(np.empty((1, 0))).value)
    one = stats.group_mean([[0.5]])
    assert (one.value, one.n) == (0.5, 1)
    assert math.isnan(one.low)
    assert stats.group_mean([[0.25] * 9]) == stats.Estimate(0.25, 0.25, 0.25, 9)
    for values in ([[0.1, math.nan]], [0.1], [[math.inf]]):
        with pytest.raises(ValueError, match="finite"):
            stats.group_mean(values)


def simulate(
    rng: np.random.Generator, seeds: int, episodes: int, seed_sd: float, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two arms on the same starts: some are hard for both, training seeds differ, and luck."""
    starts = rng.normal(0.5, 0.3, episodes)
    luck = rng.normal(0, 0.15, (2, seeds, episodes))
    trained = rng.normal(0, seed_sd, (2, seeds, 1))
    a, b = starts + trained + luck
    return a + shift, b


@pytest.mark.parametrize(
    ("seeds", "episodes", "seed_sd"), [(1, 100, 0.0), (2, 200, 0.05), (3, 200, 0.05), (5, 200, 0.1)]
)
def test_differences_between_arms_are_covered(seeds: int, episodes: int, seed_sd: float) -> None:
    rng = np.random.default_rng(seeds)
    pairs = [simulate(rng, seeds, episodes, seed_sd, 0.07) for _ in range(800)]
    intervals = [stats.paired_difference(a, b) for a, b in pairs]
    # 800 runs: the standard error of the coverage is 0.8 points.
    assert 0.93 <= covered(intervals, 0.07) <= 0.98
    means = [stats.group_mean(a) for a, _ in pairs]
    assert 0.93 <= covered(means, 0.57) <= 0.98


def test_pairing_takes_the_hard_starts_out() -> None:
    a, b = simulate(np.random.default_rng(1), 1, 500, 0.0, 0.05)
    paired = stats.paired_difference(a, b)
    alone = stats.group_mean(a)
    assert paired.high - paired.low < 0.75 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="same environment seeds, given 500 and 499"):
        stats.paired_difference(a, b[:, 1:])


def test_one_training_seed_each_is_the_paired_bootstrap() -> None:
    a, b = simulate(np.random.default_rng(2), 1, 200, 0.0, 0.0)
    ours = stats.paired_difference(a, b)
    theirs = scipy.stats.ttest_rel(a[0], b[0]).confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_grids_are_cut_to_what_all_have() -> None:
    rows = [(0, 7, 0.1), (0, 8, 0.2), (1, 8, 0.4), (1, 7, math.nan), (0, 9, 0.3), (1, 9, 0.5)]
    grid = stats.crossed(*zip(*rows, strict=True))
    assert (grid.train_seeds, grid.env_seeds.tolist(), grid.dropped) == ((0, 1), [8, 9], 1)
    assert grid.values.tolist() == [[0.2, 0.3], [0.4, 0.5]]
    other = stats.crossed([5, 5], [9, 10], [1.0, 2.0])
    left, right = stats.common(grid, other)
    assert left.values.tolist() == [[0.3], [0.5]]
    assert right.values.tolist() == [[1.0]]
    assert (left.dropped, right.dropped) == (2, 1)
    with pytest.raises(ValueError, match="may come once only"):
        stats.crossed([0, 0], [7, 7], [0.1, 0.1])
    assert math.isnan(stats.group_mean(stats.crossed([], [], []).values).value)


def test_degenerate_grids() -> None:
    assert stats.group_mean([[0.5]]).value == 0.5
    assert math.isnan(stats.group_mean([[0.5], [0.7]]).low)
    assert stats.group_mean(np.full((3, 4), 0.25)).high == 0.25
    same = np.random.default_rng(0).random((3, 50))
    assert stats.paired_difference(same, same).value == 0.0


def test_many_values_need_no_resampling() -> None:
    sample = np.random.default_rng(3).random(20_000)
    ours = stats.group_mean([sample])
    half = 1.96 * sample.std() / math.sqrt(len(sample))
    assert ours.high - ours.value == pytest.approx(half, rel=0.08)
    assert ours.value - ours.low == pytest.approx(half, rel=0.08)


def test_shares_differ_by_one_at_most() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random((2, 2, 10)) * [[[0.9]], [[0.1]]] + [[[0.0], [0.1]], [[0.0], [0.5]]]
    assert stats.paired_difference(a, b).low == -1.0
    assert stats.paired_difference(a + 1, b + 1).low < -1.0

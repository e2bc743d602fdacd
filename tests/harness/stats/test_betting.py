"""Confidence sequences by betting: the published process, its error rate, decisions."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.stats import betting
from harness.stats.betting import anytime_difference, anytime_mean, decide


def capital_by_hand(x: NDArray[np.float64], mean: float, alpha: float) -> tuple[float, float]:
    """Both capitals after all values, one value at a time as the paper defines them."""
    up = down = 1.0
    total, squares, variance = 0.5, 0.25, 0.25
    for t, value in enumerate(x, 1):
        bet = math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(t + 1)))
        up *= 1 + min(bet, 0.5 / mean) * (value - mean)
        down *= 1 - min(bet, 0.5 / (1 - mean)) * (value - mean)
        total += value
        squares += (value - total / (t + 1)) ** 2
        variance = squares / (t + 1)
    return up, down


def test_the_capital_is_the_published_one_and_the_ends_are_where_it_crosses() -> None:
    x = np.random.default_rng(0).beta(6, 2, 60)
    bets = betting.bets(x[None])
    for mean in (0.2, 0.7, 0.9):
        for sign, expected in zip((1, -1), capital_by_hand(x, mean, 0.05), strict=True):
            found = np.exp(betting.log_capital(x[None], bets, mean, sign)[0, -1])
            assert found == pytest.approx(expected, rel=1e-9)
    found = anytime_mean(x)
    assert found.low < 0.75 < found.high
    for end, sign in ((found.low, 0), (found.high, 1)):
        most = max(capital_by_hand(x[:n], end, 0.05)[sign] for n in range(1, 61))
        assert most == pytest.approx(40, rel=1e-6)  # 2 / alpha
    assert anytime_difference(2 * x - 1).low == pytest.approx(2 * found.low - 1)


def test_looking_after_every_value_costs_no_errors() -> None:
    """Differences like ours: mostly 0, a few of 1 and -1, their true mean known."""
    rng = np.random.default_rng(1)
    for chances in ((0.05, 0.9, 0.05), (0.02, 0.9, 0.08), (0.0, 0.98, 0.02)):
        truth = chances[2] - chances[0]
        d = rng.choice((-1.0, 0.0, 1.0), (600, 500), p=chances)
        x = (d + 1) / 2
        out = betting.excluded_from(x, betting.bets(x), (truth + 1) / 2, 0.95)
        assert np.isfinite(out).mean() < 0.05
    n = np.arange(25, 501)
    d = rng.choice((-1.0, 0.0, 1.0), (600, 500), p=(0.05, 0.9, 0.05))
    mean = np.cumsum(d, 1)[:, 24:] / n
    ordinary = np.abs(mean) > 1.96 * math.sqrt(0.1) / np.sqrt(n)
    assert ordinary.any(1).mean() > 0.2  # what looking costs an ordinary interval


def test_a_decision_depends_on_the_values_and_looks_alone() -> None:
    rng = np.random.default_rng(2)
    d = rng.choice((-1.0, 0.0, 1.0), 400, p=(0.05, 0.7, 0.25))
    looks = list(range(25, 401, 25))
    found = decide(d, looks, 0.05)
    assert found.verdict == "higher"
    assert found.starts < 200
    assert found.starts in looks
    assert found.difference.low > 0
    assert found.difference == anytime_difference(d[: found.starts])
    for more in (found.starts, 300):  # what comes later does not matter
        assert decide(d[:more], [look for look in looks if look <= more], 0.05) == found
    assert decide(d[: found.starts - 25], looks[: found.starts // 25 - 1], 0.05).verdict is None
    assert decide(-d, looks, 0.05).verdict == "lower"
    equal = decide(d * 0.05, looks, 0.05)
    assert equal.verdict == "alike"
    assert -0.05 < equal.difference.low < equal.difference.high < 0.05


def test_no_values_and_wrong_ones() -> None:
    assert math.isnan(anytime_mean([]).value)
    assert decide([], [], 0.05).verdict is None
    one = anytime_mean([1.0])
    assert (one.low, one.high, one.n) == (0.0, 1.0, 1)
    bad: Any
    for bad in ([0.5, 1.1], [math.nan], [[0.5]], [-0.1]):
        with pytest.raises(ValueError, match="in \\[0, 1\\]"):
            anytime_mean(bad)

"""Repeated rollouts: variance components with a known truth, pass^k by counting."""

from itertools import combinations

import numpy as np
import pytest

from harness.stats.repeats import pass_all, variance_split


def test_the_share_of_the_starts_is_found_and_covered() -> None:
    """Scores that pile up at 1; the truth from very many starts."""
    rng = np.random.default_rng(0)

    def draw(starts: int, rollouts: int) -> np.ndarray:
        latent = rng.normal(0.5, 0.6, (starts, 1)) + rng.normal(0, 0.9, (starts, rollouts))
        return np.clip(1 + 0.35 * latent, 0, 1)

    pairs = draw(200_000, 2)  # two rollouts of a start share what the start does
    truth = np.cov(pairs.T)[0, 1] / pairs.var()
    found = [variance_split(draw(100, 5)).share for _ in range(60)]
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.03)
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.85
    alone = variance_split(rng.normal(size=(400, 3)))
    assert alone.noise == pytest.approx(1, abs=0.15)
    assert alone.share.value < 0.1


def test_what_does_not_vary_and_too_few() -> None:
    equal = variance_split(np.ones((20, 3)))
    assert (equal.starts, equal.noise) == (0, 0)
    assert np.isnan(equal.share.value)
    fixed = variance_split(np.repeat(np.arange(20.0)[:, None], 3, 1))  # no noise: all the start's
    assert (fixed.share.value, fixed.share.low, fixed.share.high) == (1, 1, 1)
    few = variance_split([[0.0, 1.0], [1.0, 1.0]]).share
    assert np.isnan(few.low)
    with pytest.raises(ValueError, match="at least two rollouts of each start, given 1"):
        variance_split([[1.0], [0.0]])


def test_pass_all_is_the_share_of_subsets_that_succeed() -> None:
    successes = np.random.default_rng(1).random((30, 4)) < 0.7
    for k in (1, 2, 3, 4):
        chosen = [successes[:, list(which)].all(1) for which in combinations(range(4), k)]
        found = pass_all(successes, k)
        assert found.value == pytest.approx(np.mean(chosen))
        assert 0 <= found.low <= found.value <= found.high <= 1
    for k in (0, 5):
        with pytest.raises(ValueError, match="1 <= k <= 4"):
            pass_all(successes, k)

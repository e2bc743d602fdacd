"""How often the 95 % intervals that are reported cover the truth, on data with known truth.

    python benchmarks/interval_coverage.py [--repeats N]

Scores are drawn like those of policies that mostly succeed: effects of the start, the training seed
and the episode add up; values above a threshold score 1, lower ones less. So most scores are 1.
Prints three Markdown tables: the share of intervals that cover the truth, by interval; the lowest
and highest share by numbers of training seeds and starts; and how often a question whose arms are
all equal gets a wrong "helps" or "hurts".
"""

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from harness.core import errors
from harness.stats import comparisons
from harness.stats import intervals as stats

SLOPE = 0.35  # of the score, per standard deviation between starts
LUCK = 0.8  # noise of an episode, in standard deviations between starts
SEEDS, STARTS = (1, 2, 3, 5), (25, 100, 500)
SUCCESS, SKILL = (0.3, 0.75, 0.9), (0.0, 0.15, 0.5)
ARMS = 5

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """A population: its success rate and the standard deviation between training seeds."""

    success: float
    skill: float

    @property
    def spread(self) -> float:
        """The standard deviation of an episode's latent value."""
        return math.sqrt(1 + self.skill**2 + LUCK**2)

    def draw(self, rng: np.random.Generator, sides: int, seeds: int, starts: int) -> Scores:
        """Scores (sides, seeds, starts); all sides have the same starts."""
        latent = NormalDist().inv_cdf(self.success) * self.spread + rng.normal(0, 1, starts)
        latent = latent + rng.normal(0, self.skill, (sides, seeds, 1))
        return _score(latent + rng.normal(0, LUCK, (sides, seeds, starts)))

    def population(self) -> Scores:
        """Its scores at evenly spaced ranks."""
        ranks = (np.arange(20_000) + 0.5) / 20_000
        quantiles = np.array([NormalDist().inv_cdf(float(rank)) for rank in ranks])
        return _score((NormalDist().inv_cdf(self.success) + quantiles) * self.spread)


def _score(latent: Scores) -> Scores:
    return np.clip(1 + SLOPE * latent, 0.0, 1.0)


def intervals(
    a: Scores, b: Scores, everyone: Scores
) -> Iterator[tuple[str, stats.Estimate, float]]:
    """Yield every reported interval of two equal arms, with the truth."""
    quarter = len(everyone) // 4
    middle = float(everyone[quarter:-quarter].mean())
    success, success_b = (a >= 1) * 1.0, (b >= 1) * 1.0
    yield "mean score", stats.share_interval(a), float(everyone.mean())
    yield "success rate", stats.share_interval(success), float((everyone >= 1).mean())
    yield "share above 0.8", stats.share_interval((a > 0.8) * 1.0), float((everyone > 0.8).mean())
    yield "IQM of the scores", comparisons.interquartile_mean(a), middle
    yield "difference in score", stats.paired_difference(a, b), 0.0
    yield "difference in success", stats.paired_difference(success, success_b), 0.0
    yield "probability of improvement", comparisons.probability_of_improvement(a, b), 0.5


def coverage(repeats: int) -> dict[tuple[str, int, int], list[float]]:
    """Return the share of intervals that cover the truth, by name, training seeds and starts."""
    found = defaultdict(list)
    for success in SUCCESS:
        for skill in SKILL:
            world = World(success, skill)
            everyone = world.population()
            for seeds in SEEDS:
                if seeds == 1 and skill:  # the interval for one seed does not cover other seeds
                    continue
                for starts in STARTS:
                    rng = np.random.default_rng((seeds, starts, int(1000 * (success + skill))))
                    held = defaultdict(int)
                    for _ in range(repeats):
                        a, b = world.draw(rng, 2, seeds, starts)
                        for name, interval, truth in intervals(a, b, everyone):
                            held[name] += interval.low - 1e-9 <= truth <= interval.high + 1e-9
                    for name, count in held.items():
                        found[name, seeds, starts].append(count / repeats)
    return found


def false_verdicts(repeats: int) -> Iterator[tuple[int, int, float, float]]:
    """Yield how often a question with five arms equal to its first gets a wrong verdict."""
    level = comparisons.shared_level(ARMS)
    for seeds in (2, 3, 5):
        for starts in (50, 500):
            for skill in SKILL:
                rng = np.random.default_rng((seeds, starts, int(100 * skill)))
                world, wrong = World(0.8, skill), 0
                for _ in range(repeats):
                    grids = world.draw(rng, ARMS + 1, seeds, starts)
                    found = [stats.paired_difference(g, grids[0], level) for g in grids[1:]]
                    wrong += any(each.low > 0 or each.high < 0 for each in found)
                yield seeds, starts, skill, wrong / repeats


def main() -> int:
    parser = errors.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    given: argparse.Namespace = parser.parse_args()
    found = coverage(given.repeats)
    names = list(dict.fromkeys(name for name, _, _ in found))
    print(
        f"{given.repeats} draws each: standard error {math.sqrt(0.95 * 0.05 / given.repeats):.1%}\n"
    )
    print("| 95 % interval of | covers, mean | lowest | highest |\n|---|--:|--:|--:|")
    for name in names:
        shares = [share for key, each in found.items() if key[0] == name for share in each]
        print(f"| {name} | {np.mean(shares):.1%} | {min(shares):.1%} | {max(shares):.1%} |")
    print("\n| lowest to highest, % | " + " | ".join(f"{E} starts" for E in STARTS) + " |")
    print("|---|" + "---|" * len(STARTS))
    for name in names:
        for seeds in SEEDS:
            cells = [
                f"{100 * min(found[name, seeds, E]):.0f} to {100 * max(found[name, seeds, E]):.0f}"
                for E in STARTS
            ]
            print(f"| {name}, training seeds: {seeds} | {' | '.join(cells)} |")
    print(f"\n| training seeds | starts | seeds' skill | wrong verdicts, {ARMS} arms |")
    print("|--:|--:|--:|--:|")
    for seeds, starts, skill, share in false_verdicts(given.repeats):
        print(f"| {seeds} | {starts} | {skill:g} | {share:.1%} |")
    return errors.OK


if __name__ == "__main__":
    sys.exit(errors.run(main))

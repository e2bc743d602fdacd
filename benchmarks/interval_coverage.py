"""How often intervals cover the truth and verdicts are right, on data with known truth.

    python benchmarks/interval_coverage.py [--repeats N] [--power | --rounds]

Scores are drawn like those of policies that mostly succeed: effects of the start, the training seed
and the episode add up; values above a threshold score 1, lower ones less. So most scores are 1.
Prints Markdown tables: the share of intervals that cover the truth, by interval; the lowest and
highest share by numbers of training seeds and starts; how often a question whose arms are all equal
gets a wrong "helps" or "hurts"; and, from normal effects with the given standard deviations, how
often a true difference is shown, and how often arms that are equal are told apart although one of
them varies more between training seeds. --power prints only the latter two (a minute). Last, what
sweeps decide that train in rounds until every verdict is reached, and with how many trials;
--rounds prints only this (minutes; --draws sets how many sweeps).

"own" is the interval whose variance between training seeds is each arm's own, "shared" the one
whose variance borrows from all arms, which verdicts use.
"""

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from harness.config.plan import baseline_seeds
from harness.core import errors
from harness.stats import comparisons, seed_variance, sequential
from harness.stats import intervals as stats
from harness.stats.seed_variance import SeedVariance

SLOPE = 0.35  # of the score, per standard deviation between starts
LUCK = 0.8  # noise of an episode, in standard deviations between starts
SEEDS, STARTS = (1, 2, 3, 5), (25, 100, 500)
SUCCESS, SKILL = (0.3, 0.75, 0.9), (0.0, 0.15, 0.5)
ARMS = 5
CHUNK = 100  # sweeps of rounds that are drawn together
DELTA = 0.03

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


def false_verdicts(repeats: int) -> Iterator[tuple[int, int, float, list[float], float]]:
    """Yield how often a question with five arms equal to its first gets a wrong verdict.

    In score and in success rate, each with own and with shared variances; last, how often a shared
    95 % interval of the difference in score covers 0.
    """
    level = comparisons.shared_level(ARMS)
    for seeds in (2, 3, 5):
        for starts in (50, 500):
            for skill in SKILL:
                rng = np.random.default_rng((seeds, starts, int(100 * skill)))
                world, wrong, held = World(0.8, skill), np.zeros(4), 0
                for _ in range(repeats):
                    scores = world.draw(rng, ARMS + 1, seeds, starts)
                    for at, grids in enumerate((scores, (scores >= 1) * 1.0)):
                        pairs = _variances(grids)
                        for shared in (False, True):
                            found = [
                                stats.paired_difference(
                                    a, grids[0], level, pair if shared else None
                                )
                                for a, pair in zip(grids[1:], pairs, strict=True)
                            ]
                            wrong[2 * at + shared] += any(f.low > 0 or f.high < 0 for f in found)
                    one = stats.paired_difference(scores[1], scores[0], seeds=_variances(scores)[0])
                    held += one.low <= 0 <= one.high
                yield seeds, starts, skill, list(wrong / repeats), held / repeats


def _variances(grids: Scores) -> list[tuple[SeedVariance, SeedVariance] | None]:
    """Return the shared variances of each arm and the first, as verdicts use them."""
    shared = seed_variance.share(list(grids))
    if shared is None:
        return [None] * (len(grids) - 1)
    first, *others = shared.arms
    return [
        (arm, first) if arm and first and (arm.borrows or first.borrows) else None for arm in others
    ]


@dataclass(frozen=True)
class Effects:
    """Standard deviations of normal effects on the scores of `arms` arms.

    seed: between training seeds; start: between starts, the same for all arms, so no paired
    difference contains it; own: an episode's own. wide: how many times as much the seeds of
    arm number `which` (0 is the baseline) vary. baseline: how many times as many training seeds
    the baseline has, rounded. compared: how many arms the question has beside the baseline; the
    others, of other questions, only share their variances.
    """

    arms: int = ARMS + 1
    seed: float = 0.01
    start: float = 0.10
    own: float = 0.21
    wide: float = 1.0
    which: int = 1
    baseline: float = 1.0
    compared: int = ARMS

    def draw(self, rng: np.random.Generator, repeats: int, seeds: int, starts: int) -> "Drawn":
        """Draw what intervals depend on, without the single episodes, exactly."""
        count = np.full(self.arms, seeds)
        count[0] = round(seeds * self.baseline)
        sd = np.full(self.arms, self.seed)
        sd[self.which] *= self.wide
        columns = rng.normal(size=(repeats, self.arms, starts))
        columns *= self.own / np.sqrt(count)[:, None]
        mean = columns.mean(2) + rng.normal(size=(repeats, self.arms)) * sd / np.sqrt(count)
        rest = (count - 1) * (starts - 1)
        squares = [rng.chisquare(df, (repeats, self.arms)) / df for df in (count - 1, rest)]
        return Drawn(
            seeds=count,
            starts=starts,
            difference=mean[:, 1:] - mean[:, :1],
            of_env=(columns[:, 1:] - columns[:, :1]).var(2, ddof=1) / starts,
            of_seeds=(sd**2 + self.own**2 / starts) * squares[0],
            noise=self.own**2 * squares[1] / (count * starts),
        )


@dataclass(frozen=True)
class Drawn:
    """Repeated questions (R, A): arms 1.. against arm 0; see `intervals.half_width`.

    difference, of_env (R, A - 1): of means, and its variance from starts. of_seeds, noise (R, A):
    the variance of seeds' means, and the part of the mean's variance from single cells. seeds (A,).
    """

    seeds: NDArray[np.int64]
    starts: int
    difference: Scores
    of_env: Scores
    of_seeds: Scores
    noise: Scores

    def own(self, level: float) -> Scores:
        """Half widths (R, A - 1) with each arm's own variance: `intervals.half_width`."""
        tail = 0.5 + level / 2
        parts = self.of_seeds / self.seeds
        of_seeds = parts[:, 1:] + parts[:, :1]
        error = parts**2 / (self.seeds - 1)
        both = of_seeds**2 / (error[:, 1:] + error[:, :1])
        wide_env = self.of_env * stdtrit(self.starts - 1, tail) ** 2
        wide_seeds = of_seeds * stdtrit(both, tail) ** 2
        noise = ndtri(tail) ** 2 * (self.noise[:, 1:] + self.noise[:, :1])
        return np.sqrt(np.maximum(np.maximum(wide_env + wide_seeds - noise, wide_env), wide_seeds))

    def shared(self, level: float, *, limited: bool = True) -> Scores:
        """Half widths (R, A - 1) with shared variances: `seed_variance.half_width`.

        limited: whether the prior counts at most what `seed_variance.limited` allows.
        """
        df = self.seeds - 1
        prior, estimated = seed_variance.moderate(self.of_seeds, df, np.full(len(df), 0.5))
        sides = []
        for at in (slice(1, None), slice(0, 1)):
            own, counted = int(df[at][0]), estimated[:, at]
            expected = np.broadcast_to(prior, estimated.shape)[:, at]
            sides.append(SeedVariance(self.of_seeds[:, at], own, expected, counted))
        noise = self.noise[:, 1:], self.noise[:, :1]
        return seed_variance.half_width(
            self.of_env, self.starts, sides, noise, level, limit=limited
        )[0]


METHODS: dict[str, Callable[[Drawn, float], Scores]] = {
    "own": Drawn.own,
    "shared": Drawn.shared,
    "no limit": lambda drawn, level: drawn.shared(level, limited=False),
}
DIFFERENCES = (0.02, 0.05, 0.10)
POWER_SEEDS, POWER_STARTS = (2, 3, 5, 8), (50, 200, 500)


def power(effects: Effects, repeats: int) -> None:
    """Print how often a true difference is shown, wrong verdicts, and coverage."""
    compared = effects.compared
    level = comparisons.shared_level(compared)
    head = " | ".join(f"{d:.2f} {name}" for d in DIFFERENCES for name in METHODS)
    print(f"\nA true difference is shown (wrong verdicts: in a question of {compared + 1} arms):\n")
    print(
        f"| seeds | starts | {head} | wrong: {' | wrong: '.join(METHODS)} | covers: own | shared |"
    )
    print("|" + "--:|" * (4 + 3 * (len(DIFFERENCES) + 1)))
    for seeds in POWER_SEEDS:
        for starts in POWER_STARTS:
            drawn = effects.draw(np.random.default_rng((seeds, starts)), repeats, seeds, starts)
            off = drawn.difference[:, :compared]
            half = {name: method(drawn, level)[:, :compared] for name, method in METHODS.items()}
            shown = [np.mean(off + d > half[name]) for d in DIFFERENCES for name in METHODS]
            wrong = [np.mean((np.abs(off) > each).any(1)) for each in half.values()]
            covers = [
                np.mean(np.abs(off) <= METHODS[name](drawn, 0.95)[:, :compared])
                for name in ("own", "shared")
            ]
            cells = [f"{share:.2f}" for share in shown]
            cells += [f"{share:.1%}" for share in (*wrong, *covers)]
            print(f"| {seeds} | {starts} | {' | '.join(cells)} |", flush=True)


def unequal(effects: Effects, repeats: int) -> None:
    """Print wrong verdicts where one arm's seeds vary more, the most of all numbers of starts."""
    compared = effects.compared
    level = comparisons.shared_level(compared)
    cases = [(1.0, 1), *((wide, which) for which in (1, 0) for wide in (2.0, 4.0, 8.0))]
    head = " | ".join(f"{seeds} seeds: {name}" for seeds in POWER_SEEDS for name in METHODS)
    print("\nWrong verdicts where the seeds of one arm vary more than the others':\n")
    print(f"| varies more | {head} |")
    print("|---|" + "--:|" * len(POWER_SEEDS) * len(METHODS))
    for wide, which in cases:
        cells = []
        for seeds in POWER_SEEDS:
            most = dict.fromkeys(METHODS, 0.0)
            for starts in POWER_STARTS:
                rng = np.random.default_rng((seeds, starts, int(wide), which))
                drawn = replace(effects, wide=wide, which=which).draw(rng, repeats, seeds, starts)
                for name, method in METHODS.items():
                    wrong = np.abs(drawn.difference) > method(drawn, level)
                    wrong = wrong[:, :compared].any(1)
                    most[name] = max(most[name], float(wrong.mean()))
            cells += [f"{share:.1%}" for share in most.values()]
        name = (
            "as the others" if wide == 1 else f"{'an arm' if which else 'the baseline'} x {wide:g}"
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


class Arms:
    """What intervals need of the first k training seeds of arms' values (R, A, S, E).

    columns (R, A, S, E): means by start; of_seeds, noise (R, A, S): see `Drawn`.
    """

    def __init__(self, values: Scores) -> None:
        S, E = values.shape[2:]
        count = np.arange(1, S + 1)
        self.columns = np.cumsum(values, 2) / count[:, None]
        seeds, means = values.mean(3), self.columns.mean(3)
        self.of_seeds = np.cumsum(seeds**2, 2) - count * means**2
        rest = np.cumsum((values**2).sum(3) - E * seeds**2, 2)
        rest -= count * ((self.columns - means[..., None]) ** 2).sum(3)
        df = np.maximum(count - 1, 1)
        self.of_seeds /= df
        self.noise = rest / (df * (E - 1) * count * E)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, effects: Effects, sd: Scores, seeds: int, starts: int
    ) -> "Arms":
        """Draw CHUNK sweeps of arms with these standard deviations between training seeds."""
        values = rng.normal(0, effects.own, (CHUNK, len(sd), seeds, starts))
        values += rng.normal(size=(CHUNK, len(sd), seeds, 1)) * sd[:, None, None]
        return cls(values)


def at(values: Scores, seeds: NDArray[np.int64]) -> Scores:
    """Return values (R, A, S, ...) after so many seeds (R, A)."""
    index = (seeds - 1).reshape(*seeds.shape, *[1] * (values.ndim - 2))
    return np.take_along_axis(values, index, 2)[:, :, 0]


OUTCOMES = ("open", "helps", "hurts", "no difference")


def train_in_rounds(
    rng: np.random.Generator, effects: Effects, effect: float, seeds: int, starts: int
) -> tuple[Scores, Scores, Scores]:
    """Return the outcomes (R, A), whether the 95 % intervals covered (R, A), the trials (R,).

    CHUNK sweeps like those of harness/sweep/until_verdict.py whose arms all differ by `effect`.
    """
    arms = effects.arms - 1
    family = comparisons.shared_level(arms)
    levels, single = (sequential.look_levels(seeds, each) for each in (family, 0.95))
    sd = np.full(effects.arms, effects.seed)
    sd[effects.which] *= effects.wide
    drawn = Arms.draw(rng, effects, sd[1:], seeds, starts)
    first = Arms.draw(rng, effects, sd[:1], baseline_seeds(seeds, arms), starts)
    undecided = np.ones((CHUNK, arms), bool)
    have, of_first = np.full((CHUNK, arms), 1), np.ones((CHUNK, 1), np.int64)
    outcome, covered = np.zeros((CHUNK, arms), np.int64), np.zeros((CHUNK, arms), bool)
    for look, count in enumerate(range(sequential.FIRST_SEEDS, seeds + 1)):
        have[undecided] = count
        needed = np.array([0, *(baseline_seeds(count, n) for n in range(1, arms + 1))])
        of_first = np.maximum(of_first, needed[undecided.sum(1, keepdims=True)])
        columns = effect + at(drawn.columns, have) - at(first.columns, of_first)
        of_seeds = at(drawn.of_seeds, have), at(first.of_seeds, of_first)
        df = np.concatenate([have, of_first], 1) - 1
        prior, estimated = seed_variance.moderate(
            np.concatenate(of_seeds, 1), df, np.full(arms + 1, 0.5)
        )
        if effects.arms < seed_variance.MIN_ARMS:
            estimated = np.zeros_like(estimated)
        prior = np.broadcast_to(prior, estimated.shape)
        sides = [
            SeedVariance(own, df[:, which], prior[:, which], estimated[:, which]).limited(family)
            for own, which in zip(of_seeds, (slice(0, arms), slice(arms, None)), strict=True)
        ]
        of_env = columns.var(2, ddof=1) / starts
        noise = at(drawn.noise, have), at(first.noise, of_first)
        half, near, alone = (
            seed_variance.half_width(of_env, starts, sides, noise, level)[0]
            for level in (levels[look], 2 * levels[look] - 1, single[look])
        )
        off = columns.mean(2)
        now = np.select([off > half, off < -half, np.abs(off) + near <= DELTA], [1, 2, 3])
        outcome[undecided] = now[undecided]
        covered[undecided] = (np.abs(off - effect) <= alone)[undecided]
        undecided &= now == 0
    return outcome, covered, have.sum(1) + of_first[:, 0]


def rounds(effects: Effects, repeats: int) -> None:
    """Print what training in rounds decides, how often wrongly, and how many trials it needs."""
    arms = effects.arms - 1
    print(f"\nTrained in rounds, questions of {arms + 1} arms, delta {DELTA:g}:\n")
    heads = " | ".join(OUTCOMES[1:])
    print(
        "| seeds at most | starts | difference | varies more | wrong | "
        f"{heads} | 95 % covers | trials | of |"
    )
    print("|--:|--:|--:|---|" + "--:|" * 7)
    cases = [(effect, 1.0, 1) for effect in (0.0, 0.02, DELTA, 0.05, 0.10)]
    cases += [(0.0, wide, which) for which in (1, 0) for wide in (2.0, 4.0, 8.0)]
    for seeds, starts in ((8, 500), (8, 200), (5, 500)):
        for effect, wide, which in cases if seeds == 8 and starts == 500 else cases[:5]:
            rng = np.random.default_rng((seeds, starts, int(1000 * effect), int(wide), which))
            drawn = replace(effects, wide=wide, which=which)
            parts = [
                train_in_rounds(rng, drawn, effect, seeds, starts)
                for _ in range(math.ceil(repeats / CHUNK))
            ]
            outcome, covered, trials = (np.concatenate(each) for each in zip(*parts, strict=True))
            wrong = outcome == 2
            wrong |= (outcome == 1) & (effect == 0) | (outcome == 3) & (effect >= DELTA)
            shares = [np.mean(outcome == k) for k in range(1, 4)]
            who = f"{'an arm' if which else 'the baseline'}, {wide:g} times" if wide > 1 else "none"
            cells = " | ".join(f"{share:.2f}" for share in shares)
            wrongly = f"{wrong.any(1).mean():.1%}"
            print(
                f"| {seeds} | {starts} | {effect:.2f} | {who} | {wrongly} | {cells} "
                f"| {covered.mean():.1%} | {trials.mean():.0f} "
                f"| {seeds * arms + baseline_seeds(seeds, arms)} |",
                flush=True,
            )


def main() -> int:
    parser = errors.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--power", action="store_true", help="print only how often verdicts show")
    parser.add_argument("--rounds", action="store_true", help="print only training in rounds")
    parser.add_argument("--draws", type=int, default=4000, help="questions for each power")
    parser.add_argument("--arms", type=int, default=Effects.arms)
    parser.add_argument("--compared", type=int, help="arms of the question; the default is all")
    parser.add_argument("--seed-sd", type=float, default=Effects.seed)
    parser.add_argument("--start-sd", type=float, default=Effects.start)
    parser.add_argument("--episode-sd", type=float, default=Effects.own)
    parser.add_argument("--baseline", type=float, default=1.0, help="its seeds, times the arms'")
    given: argparse.Namespace = parser.parse_args()
    if not (given.power or given.rounds):
        print_coverage(given.repeats)
    effects = Effects(
        arms=given.arms,
        seed=given.seed_sd,
        start=given.start_sd,
        own=given.episode_sd,
        baseline=given.baseline,
        compared=given.compared or given.arms - 1,
    )
    if not given.rounds:
        power(effects, given.draws)
        unequal(effects, given.draws)
    if not given.power:
        rounds(effects, given.draws)
    return errors.OK


def print_coverage(repeats: int) -> None:
    """Print how often intervals cover the truth, and wrong verdicts on scores that pile up at 1."""
    found = coverage(repeats)
    names = list(dict.fromkeys(name for name, _, _ in found))
    print(f"{repeats} draws each: standard error {math.sqrt(0.95 * 0.05 / repeats):.1%}\n")
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
    print(
        "\n| training seeds | starts | seeds' skill | wrong, score: own | shared "
        "| wrong, success: own | shared | 95 % interval of the score covers |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for seeds, starts, skill, wrong, held in false_verdicts(repeats):
        cells = " | ".join(f"{share:.1%}" for share in (*wrong, held))
        print(f"| {seeds} | {starts} | {skill:g} | {cells} |")


if __name__ == "__main__":
    sys.exit(errors.run(main))

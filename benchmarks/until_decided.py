"""How often `run_eval.py --until-decided` is wrong, and after how many starts it decides.

    python -m benchmarks.until_decided [--repeats N] [--seeds N] [--delta D]

Draws pairs of policies whose true difference in score is known and looks after each block of 25
starts, as the command does. The scores are those of policies that mostly succeed (see
`interval_coverage`), and, for equal policies, real rows: the paired differences of two training
seeds in docs/tables/recipes-bf16, drawn again with signs at random: the true difference is 0.

"wrong": it names the worse policy, or the better of two that are equal, or says that they differ by
less than delta where they do not. "t": how often an ordinary 95 % interval that is looked at as
often excludes the truth (0 shown as a difference). Starts: the mean; undecided ones count as the
most starts. "fixed": the starts of a paired t test that shows the difference with 80 % power.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from benchmarks.interval_coverage import LUCK, SKILL, SLOPE
from harness.config.protocol import Protocol
from harness.core import errors
from harness.stats import betting
from harness.stats.intervals import LEVEL
from harness.storage import episode_table, table_schemas

ROWS = Path(__file__).resolve().parents[1] / "docs" / "tables" / "recipes-bf16" / "episodes.parquet"
DIFFERENCES = (0.0, 0.02, 0.05, 0.10)
SUCCESS = 0.5  # of the worse policy
BLOCK = Protocol().block_size

Floats = NDArray[np.float64]


def drawn(rng: np.random.Generator, repeats: int, starts: int, difference: float) -> Floats:
    """Return paired differences (R, T) of scores that pile up at 1, with this true mean."""
    spread = np.sqrt(1 + SKILL[1] ** 2 + LUCK**2)
    everyone = ndtri((np.arange(20_000) + 0.5) / 20_000) * spread
    worse = float(ndtri(SUCCESS)) * spread
    shift, step = 0.0, 4.0  # found by bisection, as the mean score rises with it
    for _ in range(40):
        step /= 2
        if _score(everyone + worse + shift + step).mean() - _score(everyone + worse).mean() < (
            difference
        ):
            shift += step
    common = worse + rng.normal(0, 1, (repeats, starts))
    # Both policies' own effects on a start: what a training seed and an episode's luck do.
    own = np.sqrt(SKILL[1] ** 2 + LUCK**2)
    a, b = (common + rng.normal(0, own, (repeats, starts)) for _ in range(2))
    return _score(a + shift) - _score(b)


def _score(latent: Floats) -> Floats:
    found: Floats = np.clip(1 + SLOPE * latent, 0.0, 1.0)
    return found


def real(rng: np.random.Generator, repeats: int, starts: int) -> Iterator[tuple[str, Floats]]:
    """Yield paired differences (R, T) with a true mean of 0, from real rows."""
    trials = episode_table.by_trial(table_schemas.read_file(ROWS, "episodes"))
    by_config: dict[str, list[Floats]] = {}
    for (name, _), rows in trials.items():
        test = episode_table.within(rows, range(300_000, 300_500)).sort_by("env_seed")
        by_config.setdefault(name, []).append(test["score"].to_numpy())
    for scores in (found for found in by_config.values() if len(found) > 1):
        differences = scores[0] - scores[1]
        signs = rng.choice((-1.0, 1.0), (repeats, starts))
        name = f"two seeds of score {np.mean(scores):.2f}"
        yield name, rng.choice(differences, (repeats, starts)) * signs


def peeking(differences: Floats) -> float:
    """Return how often an ordinary interval, looked at after each block, excludes 0."""
    n = np.arange(BLOCK, differences.shape[1] + 1, BLOCK)
    mean = np.cumsum(differences, 1)[:, n - 1] / n
    variance = (np.cumsum(differences**2, 1)[:, n - 1] / n - mean**2) * n / (n - 1)
    half = stdtrit(n - 1, 0.5 + LEVEL / 2) * np.sqrt(np.maximum(variance, 0) / n)
    return float((np.abs(mean) > half).any(1).mean())


def line(name: str, differences: Floats, truth: float, delta: float) -> str:
    """Return a row of the table: what is decided, and when."""
    shares, most = (differences + 1) / 2, differences.shape[1]
    bet = betting.bets(shares)
    # Looks come after whole blocks only.
    out = {
        mean: np.ceil(betting.excluded_from(shares, bet, (mean + 1) / 2, LEVEL) / BLOCK) * BLOCK
        for mean in (-delta, 0.0, delta)
    }
    differs, alike = out[0.0], np.maximum(out[-delta], out[delta])
    when = np.minimum(differs, alike)
    decided = when <= most
    better = decided & (differs <= alike)
    # Which one: the sequence's mean at that time has the sign of the excluding side.
    at = np.minimum(when, most).astype(int) - 1
    mean = np.cumsum(differences, 1)[np.arange(len(at)), at] / (at + 1)
    wrong = better & ((mean < 0) | (truth == 0)) | decided & ~better & (truth >= delta)
    starts = np.minimum(when, most)
    sd = float(differences.std())
    fixed = ((ndtri(0.5 + LEVEL / 2) + ndtri(0.8)) * sd / truth) ** 2 if truth else np.nan
    cells = [
        f"{sd:.2f}",
        f"{wrong.mean():.1%}",
        "" if truth else f"{peeking(differences):.1%}",
        f"{(better & ~wrong).mean():.2f}",
        f"{(decided & ~better).mean():.2f}",
        f"{starts.mean():.0f}",
        f"{np.quantile(starts, 0.9):.0f}",
        "" if np.isnan(fixed) else f"{fixed:.0f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> int:
    parser = errors.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=2000, help="the most starts")
    parser.add_argument("--delta", type=float, default=0.05)
    given: argparse.Namespace = parser.parse_args()
    head = "true difference | sd | wrong | t: wrong | better | alike | starts | 90 % | fixed"
    print(f"delta {given.delta:g}, at most {given.seeds} starts, {given.repeats} pairs each\n")
    print(f"| {head} |\n|---|" + "--:|" * 8)
    rng = np.random.default_rng(0)
    for truth in DIFFERENCES:
        differences = drawn(rng, given.repeats, given.seeds, truth)
        print(line(f"{truth:.2f}", differences, truth, given.delta), flush=True)
    for name, differences in real(rng, given.repeats, given.seeds):
        print(line(f"0, {name}", differences, 0.0, given.delta), flush=True)
    return errors.OK


if __name__ == "__main__":
    sys.exit(errors.run(main))

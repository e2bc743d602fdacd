"""The rules of an evaluation with their hash, its environment seeds, its blocks of seeds."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from harness.core import command_lines
from harness.core.errors import UserError
from harness.core.seeds import (
    CORRECTION_SEEDS,
    DEMONSTRATION_SEEDS,
    MAX_SEED,
    PLANNED_SEEDS,
    REPORT_SEEDS,
    SELECT_SEEDS,
)

THRESHOLDS = (0.80, 0.85, 0.90, 0.95)  # coverages above which success is shown, the last counts
MAX_EPISODES = 100_000
STEPS_PER_SECOND = 10  # of simulated time, as in the demonstrations
MAX_REPEATS = 100

# Increase it when episodes' numbers may change for a reason that no field below shows.
_VERSION = 1
_ADDED = ("execute_delay", "repeat")  # at 0 they are not in the hash, which is then that of before


@dataclass(frozen=True)
class Protocol:
    """The rules of an evaluation; rows with the same hash are comparable.

    max_episode_steps: where an episode is truncated. block_size: episodes that share one batched
    inference; it is part of the hash because the batch size may change a policy's last bits.
    execute_delay: steps for which the world moves on with the last action (at first the agent
    rests) between an observation and the first action predicted from it. repeat: the number of
    this rollout of the same starts, each with other random numbers of the policy.
    Fixed by the version: legacy reset by seed, success above coverage 0.95, the first frame
    repeated to fill the observation horizon, every predicted action executed, actions not clipped,
    one random generator per episode that depends on the environment seed and `repeat` alone.
    """

    max_episode_steps: int = 300
    block_size: int = 25
    execute_delay: int = 0
    repeat: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in _ADDED else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                kind = "non-negative" if least == 0 else "positive"
                raise ValueError(f"{name} must be a {kind} integer, given {value!r}")

    @property
    def hash(self) -> str:
        """The first 12 hex digits of the rules' SHA-256."""
        given = {k: v for k, v in asdict(self).items() if v or k not in _ADDED}
        rules = json.dumps({"version": _VERSION, **given}, sort_keys=True)
        return hashlib.sha256(rules.encode()).hexdigest()[:12]

    def describe(self) -> str:
        """Return the rules as text."""
        return (
            f"at most {self.max_episode_steps} steps, legacy reset, success above coverage 0.95, "
            f"blocks of {self.block_size}"
            + (f", actions delayed by {self.execute_delay} steps" if self.execute_delay else "")
        )


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the sorted environment seeds of `N` or `A-B[,C-D]`.

    `500` means the first 500 report seeds, 300000 to 300499; ranges include both ends. UserError
    for other text, for a seed given twice, and for 0..205, the seeds of the demonstrations.
    """
    rule = "--seeds takes a number of episodes (500) or ranges of seeds (300000-300499,...)"
    if re.fullmatch(r"[0-9]{1,12}", text):
        count = int(text)
        if not 1 <= count <= MAX_EPISODES:
            raise UserError(f"{rule}, 1 to {MAX_EPISODES} episodes; given {count}")
        return tuple(REPORT_SEEDS[:count])
    if "-" not in text:
        raise UserError(f"{rule}; given {text[:120]!r}")
    seeds = parse_ranges(text, rule, MAX_EPISODES, "episodes")
    if seeds[0] in DEMONSTRATION_SEEDS:
        raise UserError(
            f"seeds 0 to {DEMONSTRATION_SEEDS[-1]} are starts of the demonstrations for training, "
            f"and must not be evaluated; given {seeds[0]}"
        )
    return seeds


def parse_ranges(text: str, rule: str, most: int, what: str) -> tuple[int, ...]:
    """Return the sorted seeds of `A-B[,C]`; ranges include both ends.

    most: how many there may be; what: their plural. UserError for other text and for a seed given
    twice.
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,12})(?:-([0-9]{1,12}))?\s*", part)
        if match is None:
            raise UserError(f"{rule}; given {text[:120]!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UserError(f"a range of seeds goes from the lower to the higher; given {part!r}")
        if last > MAX_SEED:
            raise UserError(f"a seed is at most {MAX_SEED}; given {last}")
        ranges.append(range(first, last + 1))
    count = sum(len(seeds) for seeds in ranges)
    if count > most:
        raise UserError(f"{rule}, at most {most} {what}; given {count}")
    ranges.sort(key=lambda seeds: seeds.start)
    for left, right in itertools.pairwise(ranges):
        if right.start < left.stop:
            raise UserError(f"every seed may be given once; seed {right.start} is given twice")
    return tuple(itertools.chain(*ranges))


def caution(seeds: Iterable[int]) -> str | None:
    """Return a warning if some seeds serve to select or train policies, else None."""
    seeds = list(seeds)
    chosen = sum(seed in SELECT_SEEDS for seed in seeds)
    if chosen:
        return (
            f"{chosen} of these seeds lie in {SELECT_SEEDS.start}..{SELECT_SEEDS[-1]}, on which "
            "checkpoints are selected: scores on them are too high. Report on 300000 and above"
        )
    for trained, made in (
        (PLANNED_SEEDS, "the built-in demonstrations"),
        (CORRECTION_SEEDS, f"corrections ({command_lines.name('demos')} collect --from-failures)"),
    ):
        if count := sum(seed in trained for seed in seeds):
            return (
                f"{count} of these seeds lie in {trained.start}..{trained[-1]}, those of {made}. "
                "Report on 300000 and above"
            )
    return None


def blocks(seeds: Iterable[int], size: int) -> list[tuple[int, ...]]:
    """Return the seeds in blocks that start at multiples of `size`.

    A seed's block does not depend on the number of seeds, on workers, or on order.
    """
    grouped = itertools.groupby(sorted(seeds), lambda seed: seed // size)
    return [tuple(block) for _, block in grouped]


def span(seeds: Sequence[int]) -> str:
    """Return sorted seeds as ranges, "300000-300499, 400000-400009", shortened after four."""
    ranges: list[list[int]] = []
    for seed in seeds:
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    shown = [f"{low}-{high}" if high > low else str(low) for low, high in ranges[:4]]
    return ", ".join(shown) + (", ..." if len(ranges) > 4 else "")

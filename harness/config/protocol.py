"""What an evaluation is: its fixed rules with their hash, its seeds, its blocks."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from harness.core.errors import UserError
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS

DEMONSTRATIONS = range(206)  # demonstration k begins at the reset with seed k
BUILT_IN = range(10_000, 20_000)  # the planning demonstrator's start here
PAPER_SEEDS = range(100_000, 100_050)
THRESHOLDS = (0.80, 0.85, 0.90, 0.95)
MAX_SEEDS = 100_000
MAX_SEED = 2**32 - 1  # of numpy's RandomState, from which the reset draws


# Raise it when an episode's numbers could change for a reason that no field below shows.
_VERSION = 1


@dataclass(frozen=True)
class Protocol:
    """The rules of an evaluation; rows are comparable when their protocol's hash is the same.

    max_episode_steps: an episode is cut there. block_size: episodes that share one batched
    inference; a batch of another size may change a policy's last bits, so it is part of the hash.
    Fixed by the version: legacy reset by seed, success above coverage 0.95, the first frame
    repeated to fill the observation horizon, every predicted action executed, actions not clipped,
    sampling from one generator an episode that depends on the environment seed alone.
    """

    max_episode_steps: int = 300
    block_size: int = 25

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, given {value!r}")

    @property
    def hash(self) -> str:
        """The first 12 hex digits of the rules' SHA-256."""
        rules = json.dumps({"version": _VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(rules.encode()).hexdigest()[:12]

    def describe(self) -> str:
        """Return the rules in words, for a person."""
        return (
            f"at most {self.max_episode_steps} steps, legacy reset, success above coverage 0.95, "
            f"blocks of {self.block_size}"
        )


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the environment seeds that `N` or `A-B[,C-D]` stands for, sorted.

    `500` is the first 500 report seeds, 300000 to 300499; ranges include both ends. UserError for
    anything else, for a seed given twice, and for 0..205, from which the demonstrations start.
    """
    rule = "--seeds takes a number of episodes (500) or ranges of seeds (300000-300499,...)"
    if re.fullmatch(r"[0-9]{1,12}", text):
        count = int(text)
        if not 1 <= count <= MAX_SEEDS:
            raise UserError(f"{rule}, 1 to {MAX_SEEDS} episodes; given {count}")
        return tuple(REPORT_SEEDS[:count])
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,12})-([0-9]{1,12})\s*", part)
        if match is None:
            raise UserError(f"{rule}; given {text[:120]!r}")
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise UserError(f"a range of seeds goes from the lower to the higher; given {part!r}")
        if last > MAX_SEED:
            raise UserError(f"a seed is at most {MAX_SEED}; given {last}")
        ranges.append(range(first, last + 1))
    count = sum(len(seeds) for seeds in ranges)
    if count > MAX_SEEDS:
        raise UserError(f"{rule}, at most {MAX_SEEDS} episodes; given {count}")
    ranges.sort(key=lambda seeds: seeds.start)
    for left, right in itertools.pairwise(ranges):
        if right.start < left.stop:
            raise UserError(f"every seed may be given once; seed {right.start} is given twice")
    seeds = tuple(itertools.chain(*ranges))
    if seeds[0] in DEMONSTRATIONS:
        raise UserError(
            f"seeds 0 to {DEMONSTRATIONS[-1]} are the starts of the demonstrations that policies "
            f"are trained on, and must not be evaluated; given {seeds[0]}"
        )
    return seeds


def caution(seeds: Iterable[int]) -> str | None:
    """Return a warning when policies may have been chosen or trained on some seeds, else None."""
    seeds = list(seeds)
    chosen = sum(seed in SELECT_SEEDS for seed in seeds)
    if chosen:
        return (
            f"{chosen} of these seeds lie in {SELECT_SEEDS.start}..{SELECT_SEEDS[-1]}, on which "
            "checkpoints are selected: scores on them are too high. Report on 300000 and above"
        )
    trained = sum(seed in BUILT_IN for seed in seeds)
    if trained:
        return (
            f"{trained} of these seeds lie in {BUILT_IN.start}..{BUILT_IN[-1]}, from which the "
            "built-in demonstrations start. Report on 300000 and above"
        )
    return None


def blocks(seeds: Iterable[int], size: int) -> list[tuple[int, ...]]:
    """Return the seeds in blocks that begin at multiples of `size`.

    A seed's block does not depend on how many others are asked for, on workers, or on order.
    """
    found: dict[int, list[int]] = {}
    for seed in sorted(seeds):
        found.setdefault(seed // size, []).append(seed)
    return [tuple(block) for block in found.values()]


def span(seeds: Sequence[int]) -> str:
    """Return sorted seeds as ranges, "300000-300499, 400000-400009", shortened after four."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    words = [f"{low}-{high}" if high > low else str(low) for low, high in parts[:4]]
    return ", ".join(words) + (", ..." if len(parts) > 4 else "")

"""Ranges of environment seeds, random streams of a trial, one generator per episode."""

from numbers import Integral
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The ranges of environment seeds; those that concern demonstrations are those of envs/seeds.py.
DEMONSTRATION_SEEDS = range(206)  # recorded demonstration k starts at the reset with seed k
PLANNED_SEEDS = range(10_000, 20_000)  # demonstrations of the planning demonstrator
PAPER_SEEDS = range(100_000, 100_050)  # the test episodes of the paper
CORRECTION_SEEDS = range(110_000, 200_000)  # starts whose failures the planner corrects
SELECT_SEEDS = range(200_000, 300_000)  # checkpoint selection
REPORT_SEEDS = range(300_000, 2**32)  # reported results
OTHER_SEEDS = range(SELECT_SEEDS.start)  # the literature's, and those that demonstrations start at
MAX_SEED = REPORT_SEEDS[-1]  # the largest of numpy's RandomState, from which the reset draws

# The position in this tuple is part of a stream's identity: append, never reorder.
STREAMS = ("init", "data", "negatives", "augment", "validation", "policy")
_TRAINING, _EPISODE = 0, 1


def streams(train_seed: int) -> dict[str, int]:
    """Return the seed of each random stream of a trial: statistically independent, 63 bits each.

    A stream depends on the training seed and its name alone, so further draws in one (for
    augmentation, say) leave the others unchanged. ValueError for a negative seed.
    """
    _check("a training seed", train_seed)
    return {name: _seed(train_seed, _TRAINING, index) for index, name in enumerate(STREAMS)}


def episode_generator(env_seed: int, device: str = "cpu", repeat: int = 0) -> "torch.Generator":
    """Return the generator that a policy samples from in the episode of this environment seed.

    It depends on the seed and the number of the repeated rollout alone, not on the batch or the
    worker that runs the episode.
    """
    _check("an environment seed", env_seed)
    import torch  # here, as most users of this module need no torch

    generator = torch.Generator(device=device)
    generator.manual_seed(_seed(env_seed, _EPISODE, repeat))
    return generator


def _seed(entropy: int, *key: int) -> int:
    import numpy as np  # here, as a mistake in a config is answered without it

    sequence = np.random.SeedSequence(entropy=entropy, spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check(what: str, seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"{what} must be a non-negative integer, given {seed!r}")

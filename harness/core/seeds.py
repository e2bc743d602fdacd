"""Every seed range, every random stream of a trial, one generator per episode."""

import numpy as np
import torch

SELECT_SEEDS = range(200_000, 300_000)  # choose a checkpoint on these
REPORT_SEEDS = range(300_000, 2**32)  # and report on these
FIRST_SELECT_SEED = 200_000
MAX_SELECT_SEEDS = 100_000  # the report seeds begin right behind them


# The position in this tuple is part of a stream's identity: append, never reorder.
STREAMS = ("init", "data", "negatives", "augment", "validation", "policy")
_TRAINING, _EPISODE = 0, 1


def streams(train_seed: int) -> dict[str, int]:
    """Return the seed of each random stream of a trial: statistically independent, 63 bits each.

    A stream depends on the training seed and its own name alone, so one more draw in one place
    (an augmentation, say) changes nothing in another. ValueError for a negative seed.
    """
    _check("a training seed", train_seed)
    return {name: _seed(train_seed, _TRAINING, index) for index, name in enumerate(STREAMS)}


def episode_generator(env_seed: int, device: str = "cpu") -> torch.Generator:
    """Return the generator from which a policy samples in the episode of this environment seed.

    It depends on the seed alone: neither the batch nor the worker an episode lands in matters.
    """
    _check("an environment seed", env_seed)
    generator = torch.Generator(device=device)
    generator.manual_seed(_seed(env_seed, _EPISODE, 0))
    return generator


def _seed(entropy: int, *key: int) -> int:
    sequence = np.random.SeedSequence(entropy=entropy, spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check(what: str, seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"{what} must be a non-negative integer, given {seed!r}")

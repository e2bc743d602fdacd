"""Checks of arguments; an error gives the rule, then the value."""

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

ObsMode = Literal["state", "keypoints", "image"]


def check_seed(seed: object) -> int:
    """Return `seed` as an int; ValueError unless it is an int from 0 to 2**32 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ValueError(f"a seed must be an int, got {seed!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"a seed must lie between 0 and 2**32 - 1, got {seed}")
    return int(seed)


def check_vector(name: str, value: npt.ArrayLike, size: int) -> list[float]:
    """Return `value` as a list of `size` finite floats; ValueError for anything else."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold {size} numbers, got {value!r}") from error
    if array.shape != (size,):
        raise ValueError(f"{name} must have the shape ({size},), got {array.shape}")
    numbers: list[float] = array.tolist()
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be finite, got {numbers}")
    return numbers


def check_obs_mode(obs_mode: ObsMode) -> ObsMode:
    """Return `obs_mode`; ValueError unless it is one of the three."""
    if obs_mode not in get_args(ObsMode):
        raise ValueError(f"obs_mode must be one of {get_args(ObsMode)}, got {obs_mode!r}")
    return obs_mode


def check_max_steps(max_episode_steps: object) -> int | None:
    """Return `max_episode_steps`; ValueError unless it is None or a positive int."""
    if max_episode_steps is None:
        return None
    if isinstance(max_episode_steps, bool) or not isinstance(max_episode_steps, (int, np.integer)):
        raise ValueError(f"max_episode_steps must be an int or None, got {max_episode_steps!r}")
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
    return int(max_episode_steps)

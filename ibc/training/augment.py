"""Augmentation of training windows: the mirror image, and noise on what lies in the past."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ibc.config.training import AugmentConfig
from ibc.data import symmetry
from ibc.policies.base import AGENT

Rng = np.random.Generator


def augment(
    batch: Mapping[str, Any], config: AugmentConfig, rng: Rng, device: torch.device
) -> dict[str, Any]:
    """The windows (B, ...) augmented, on the device; with nothing to do they come back as given.

    The newest frame and the action stay exact except for the mirror, because noise on them would
    teach to miss.
    """
    if not config.active:
        return dict(batch)
    windows = {name: torch.as_tensor(value).to(device) for name, value in batch.items()}
    rows = len(windows["action"])
    if config.mirror > 0.0:
        picked = torch.from_numpy(rng.random(rows) < config.mirror).to(device)
        mirrored = symmetry.mirror({name: value[picked] for name, value in windows.items()})
        for name, value in mirrored.items():
            changed = windows[name].clone()
            changed[picked] = value.contiguous()  # half the time of writing transposed images
            windows[name] = changed
    for name, agent in AGENT.values():
        if name in windows and windows[name].shape[1] > 1 and config.history_noise > 0.0:
            frames = windows[name].clone()
            older = frames[:, :-1, agent]
            older += _normal(rng, older) * config.history_noise
            windows[name] = frames
    if config.frame_dropout > 0.0:
        _repeat_newest(windows, config.frame_dropout, rng)
    return windows


def _normal(rng: Rng, like: Tensor) -> Tensor:
    drawn = rng.standard_normal(tuple(like.shape), dtype=np.float32)
    return torch.from_numpy(drawn).to(like.device)


def _repeat_newest(windows: dict[str, Tensor], share: float, rng: Rng) -> None:
    """Replace all older frames of some windows by the newest one, as at an episode's start."""
    picked = torch.from_numpy(rng.random(len(windows["action"])) < share)
    for name, frames in windows.items():
        if name not in ("action", "block_points") and frames.shape[1] > 1:
            frames = frames.clone()
            frames[picked, :-1] = frames[picked, -1:]
            windows[name] = frames

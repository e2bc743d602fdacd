"""The recipes of the reference implementations, as configs of ours.

Each says where ours differs. What a preset does not name has our default, so a preset is a whole
recipe, independent of the search space around it.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ibc.config.checks import check
from ibc.config.policy import PolicyConfig, config_from_plain
from ibc.config.training import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A reference's recipe: the settings that make it, where they come from, what differs."""

    policy: Mapping[str, Any]
    train: Mapping[str, Any]
    source: str
    differs: str


def preset(name: object) -> tuple[PolicyConfig, TrainConfig]:
    """The configs of a preset; ValueError with the nearest name for an unknown one."""
    rule = f"preset must be one of {', '.join(PRESETS)}"
    near = difflib.get_close_matches(str(name), PRESETS, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    check(isinstance(name, str) and name in PRESETS, f"{rule}{hint}", name)
    found = PRESETS[str(name)]
    return (
        config_from_plain(PolicyConfig, dict(found.policy)),
        config_from_plain(TrainConfig, dict(found.train), "train"),
    )


_DP = {
    "obs_horizon": 2,
    "action_horizon": 1,
    "action": {"frame": "board", "bounds": "data", "margin": 0.0},
    "energy": {"fusion": "concat", "head": "mlp", "width": 1024, "depth": 4, "dropout": 0.1},
    "negatives": {"sampler": "uniform", "count": 1024, "shared": False},
    "inference": {
        "sampler": "dfo",
        "samples": 1024,
        "iterations": 5,
        "noise": 0.03,
        "shrink": 1.0,
        "clip": False,
        "readout": "sample",
    },
}
_NO_AUGMENTATION = {"mirror": 0.0, "history_noise": 0.0}
_DP_TRAIN = {
    "augment": _NO_AUGMENTATION,
    "learning_rate": 1e-4,
    "betas": (0.95, 0.999),
    "weight_decay": 1e-6,
    "schedule": "cosine",
    "warmup_steps": 500,
    "ema_decay": None,
    "precision": "fp32",
}


# G's and K's optimiser: Adam, without decay of the weights.
_ADAM_TRAIN = {
    "augment": _NO_AUGMENTATION,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "schedule": "exponential",
    "decay": 0.99,
    "decay_every": 100,
    "warmup_steps": 0,
    "ema_decay": None,
    "precision": "fp32",
}
_GOOGLE_ACTION = {"frame": "board", "bounds": "data", "margin": 0.05}
_GOOGLE_CHAIN = {
    "form": "google",
    "steps": 100,
    "first_step": 0.1,
    "last_step": 1e-5,
    "power": 2.0,
    "noise": 1.0,
    "limit": 0.1,
}
_GOOGLE_DFO = {
    "sampler": "dfo",
    "iterations": 3,
    "noise": 0.33,
    "shrink": 0.5,
    "clip": True,
    "readout": "argmax",
}
PRESETS: dict[str, Preset] = {
    "dp_state": Preset(
        policy={**_DP, "obs_mode": "keypoints", "encoder": {"low_dim": "plain", "state_depth": 0}},
        # 5000 epochs of the 44 batches in 90 recorded demonstrations.
        train={**_DP_TRAIN, "batch_size": 256, "steps": 220_000, "epoch_steps": 1000},
        source="Diffusion Policy's code, IBC on PushT, low-dimensional (Chi et al. 2023)",
        differs="observations are scaled by the board (px to [-1, 1]), not by the data's range; "
        "all episodes that are not held out train, not 90 of them; the first layer is split, "
        "which changes the order of sums and its initial scale alone",
    ),
    "dp_image": Preset(
        policy={
            **_DP,
            "obs_mode": "image",
            "encoder": {
                "trunk": "resnet18",
                "norm": "group",
                "reduce_maps": 32,
                "pooling": "softargmax",
                "features": 64,
                "crop": 84,
                "stacking": "features",
                "low_dim": "plain",
            },
        },
        # 3050 epochs of the 88 batches in 90 recorded demonstrations.
        train={**_DP_TRAIN, "batch_size": 128, "steps": 268_000, "epoch_steps": 1000},
        source="Diffusion Policy's code, IBC on PushT, images (Chi et al. 2023)",
        differs="agent positions are scaled by the board, not by the data's range; the softargmax "
        "has no noise of its own; both frames of a window are cropped alike; all episodes that "
        "are not held out train, not 90 of them",
    ),
    "google_states": Preset(
        policy={
            "obs_mode": "state",
            "obs_horizon": 2,
            "action_horizon": 1,
            "action": _GOOGLE_ACTION,
            "encoder": {"low_dim": "plain", "state_depth": 0},
            "energy": {"fusion": "concat", "head": "resnet", "width": 128, "depth": 8},
            "negatives": {
                "sampler": "langevin",
                "count": 8,
                "shared": False,
                "langevin": _GOOGLE_CHAIN,
            },
            "loss": {"gradient_penalty": 1.0, "penalty_margin": 1.0, "penalty_norm": "inf"},
            "inference": {
                "sampler": "langevin",
                "samples": 512,
                "langevin": {**_GOOGLE_CHAIN, "repeats": 2, "repeat_step": 1e-5},
                "readout": "argmax",
            },
        },
        train={**_ADAM_TRAIN, "batch_size": 512, "steps": 100_000, "epoch_steps": 1000},
        source="Implicit Behavioral Cloning's code, pushing from states, the Langevin variant "
        "(Florence et al. 2021)",
        differs="observations are scaled by the board, not to unit variance; "
        "Adam's epsilon is PyTorch's",
    ),
    "google_pixels": Preset(
        policy={
            "obs_mode": "image",
            "obs_horizon": 2,
            "action_horizon": 1,
            "action": _GOOGLE_ACTION,
            "encoder": {
                "trunk": "conv",
                "channels": (32, 64, 128, 256),
                "downsample": "max_pool",
                "norm": "none",
                "reduce_maps": None,
                "pooling": "average",
                "features": 256,
                "crop": None,
                "stacking": "channels",
                "low_dim": "plain",
            },
            "energy": {"fusion": "concat", "head": "resnet", "width": 1024, "depth": 2},
            "negatives": {"sampler": "uniform", "count": 256, "shared": False},
            "inference": {**_GOOGLE_DFO, "samples": 2048},
        },
        train={**_ADAM_TRAIN, "batch_size": 128, "steps": 100_000, "epoch_steps": 1000},
        source="Implicit Behavioral Cloning's code, pushing from pixels, the DFO variant "
        "(Florence et al. 2021)",
        differs="images are 96 x 96, not resized to 180 x 240; the agent's positions stand beside "
        "the image's features; a linear layer of 256 follows the pooling; the first convolution "
        "is 5 x 5",
    ),
    "kevinzakka": Preset(
        policy={
            "obs_mode": "image",
            "obs_horizon": 1,
            "action_horizon": 1,
            "action": {"frame": "board", "bounds": "data", "margin": 0.0},
            "encoder": {
                "trunk": "residual",
                "channels": (16, 32, 32),
                "downsample": "none",
                "norm": "none",
                "reduce_maps": 16,
                "reduce_relu": True,
                "pooling": "softargmax",
                "features": 32,
                "crop": None,
                "low_dim": "plain",
            },
            "energy": {"fusion": "concat", "head": "mlp", "width": 256, "depth": 1},
            "negatives": {"sampler": "uniform", "count": 128, "shared": False},
            "inference": {**_GOOGLE_DFO, "samples": 16384},
        },
        # 2000 epochs of the 4 batches in 30 examples.
        train={**_ADAM_TRAIN, "batch_size": 8, "steps": 8_000, "epoch_steps": 500},
        source="kevinzakka's PyTorch implementation, coordinate regression",
        differs="the second convolution of a residual block is fed by the first, where theirs is "
        "fed by the block's input and the first is dead; a linear layer of 32 follows the "
        "softargmax; the agent's position stands beside the image's features",
    ),
}

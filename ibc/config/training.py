"""The settings of training and of the split into training and validation episodes."""

import math
from dataclasses import dataclass, field
from typing import Literal

from ibc.config.checks import check, check_float, check_int, check_options


@dataclass(frozen=True)
class AugmentConfig:
    """How training windows are changed, each anew at every step; validation sees none of it.

    mirror: share of the windows that are mirrored about the axis of the goal, which is an exact
    symmetry of the task. history_noise: standard deviation, in px, of noise on the agent's older
    positions; a policy that sees its own motion exactly copies it (de Haan et al. 2019).
    frame_dropout: share of the windows whose older frames are replaced by the newest one.
    """

    mirror: float = 0.5
    history_noise: float = 4.0
    frame_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_float("train.augment.mirror", self.mirror, 0.0, 1.0)
        check_float("train.augment.history_noise", self.history_noise, 0.0, 512.0)
        check_float("train.augment.frame_dropout", self.frame_dropout, 0.0, 1.0)

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return self.mirror > 0.0 or self.history_noise > 0.0 or self.frame_dropout > 0.0


@dataclass(frozen=True)
class TrainConfig:
    """How a policy is trained.

    steps, warmup_steps, epoch_steps: in optimiser steps; an epoch ends with a validation.
    batch_size: in windows, processed micro_batch windows at a time (None: see `micro_batch`).
    schedule: after the warm-up, "cosine" to 0 at the last step, "constant", or "exponential", times
    `decay` once every decay_every steps. ema_decay: None for no averaging. precision: "auto" trains
    the convolutions of images in bf16 where the device is fast at it, and all else in fp32; "fp32"
    and "bf16" hold for the whole network. val_windows: held-out windows of each validation.
    """

    steps: int = 12_000
    epoch_steps: int = 500
    batch_size: int = 128
    micro_batch: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 500
    schedule: Literal["cosine", "constant", "exponential"] = "cosine"
    decay: float = 0.99
    decay_every: int = 100
    ema_decay: float | None = 0.999
    grad_clip: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    val_windows: int = 512
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_options("train", self)
        check_int("train.steps", self.steps, 1)
        check_int("train.epoch_steps", self.epoch_steps, 1)
        check_int("train.batch_size", self.batch_size, 1, 65536)
        if self.micro_batch is not None:
            check_int("train.micro_batch", self.micro_batch, 1)
        check_float("train.learning_rate", self.learning_rate, 0.0, 1.0, open_low=True)
        check_float("train.weight_decay", self.weight_decay, 0.0, 10.0)
        check(len(self.betas) == 2, "train.betas must be two numbers", self.betas)
        for beta in self.betas:
            check_float("train.betas", beta, 0.0)
            check(beta < 1.0, "train.betas must be below 1", self.betas)
        check_int("train.warmup_steps", self.warmup_steps, 0)
        check_float("train.decay", self.decay, 0.0, 1.0, open_low=True)
        check_int("train.decay_every", self.decay_every, 1)
        if self.ema_decay is not None:
            check_float("train.ema_decay", self.ema_decay, 0.0)
            check(self.ema_decay < 1.0, "train.ema_decay must be below 1", self.ema_decay)
        if self.grad_clip is not None:
            check_float("train.grad_clip", self.grad_clip, 0.0, open_low=True)
        check_int("train.val_windows", self.val_windows, 1)

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then what the schedule says; an exponential decay counts all steps."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "exponential":
            return float(self.learning_rate * self.decay ** (step // self.decay_every))
        share = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True)
class SplitConfig:
    """Which episodes train, which are held out for validation, and how data sets are mixed.

    val_share: of each data set; validation uses those of the first one. train_episodes: of the
    first data set, None for all that are not held out. shares: of each data set in the training
    windows, in their order; 0 leaves a set out. () draws every window of all sets equally often.
    """

    val_share: float = 0.1
    split_seed: int = 0
    train_episodes: int | None = None
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_float("val_share", self.val_share, 0.0)
        check(self.val_share < 1, "val_share must be below 1", self.val_share)
        check_int("split_seed", self.split_seed, 0)
        if self.train_episodes is not None:
            check_int("train_episodes", self.train_episodes, 1)
        for share in self.shares:
            check_float("split.shares", share, 0.0, 1.0)
        rule = "split.shares must add up to 1"
        check(not self.shares or abs(sum(self.shares) - 1.0) < 1e-6, rule, self.shares)

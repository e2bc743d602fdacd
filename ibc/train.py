"""Training an epoch at a time, resumable to the bit; knows no Ray and no paths."""

from dataclasses import dataclass
from typing import Literal

from ibc.checks import check, check_choice, check_float, check_int


@dataclass(frozen=True)
class TrainConfig:
    """How a policy is trained.

    steps, warmup_steps, epoch_steps in optimiser steps (an epoch ends with a validation);
    batch_size in windows, processed micro_batch windows at a time so that activations stay in
    the cache; ema_decay None for no averaging; precision "auto" takes bf16 where the device
    computes it fast; val_windows: how many held-out windows every validation looks at.
    """

    steps: int = 20_000
    epoch_steps: int = 500
    batch_size: int = 256
    micro_batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 500
    schedule: Literal["cosine", "constant"] = "cosine"
    ema_decay: float | None = 0.999
    grad_clip: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    val_windows: int = 512

    def __post_init__(self) -> None:
        check_int("train.steps", self.steps, 1)
        check_int("train.epoch_steps", self.epoch_steps, 1)
        check_int("train.batch_size", self.batch_size, 1, 65536)
        check_int("train.micro_batch", self.micro_batch, 1)
        check_float("train.learning_rate", self.learning_rate, 0.0, 1.0, open_low=True)
        check_float("train.weight_decay", self.weight_decay, 0.0, 10.0)
        check(len(self.betas) == 2, "train.betas must be two numbers", self.betas)
        for beta in self.betas:
            check_float("train.betas", beta, 0.0)
            check(beta < 1.0, "train.betas must be below 1", self.betas)
        check_int("train.warmup_steps", self.warmup_steps, 0)
        check_choice("train.schedule", self.schedule, ("cosine", "constant"))
        if self.ema_decay is not None:
            check_float("train.ema_decay", self.ema_decay, 0.0)
            check(self.ema_decay < 1.0, "train.ema_decay must be below 1", self.ema_decay)
        if self.grad_clip is not None:
            check_float("train.grad_clip", self.grad_clip, 0.0, open_low=True)
        check_choice("train.precision", self.precision, ("auto", "fp32", "bf16"))
        check_int("train.val_windows", self.val_windows, 1)

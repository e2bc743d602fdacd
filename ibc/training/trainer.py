"""Training an epoch at a time, resumable to the bit; knows no Ray and no paths."""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibc.config.checks import check
from ibc.config.policy import PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.windows import Windows
from ibc.encoders.image import PooledImages
from ibc.policies.base import Policy
from ibc.training import optim
from ibc.training.augment import augment
from ibc.training.nonfinite import NonFiniteError, locate
from ibc.training.optim import AdamW
from ibc.training.validation import Validation

UNITS = 2**20  # hidden units of a layer that a micro-batch keeps on a CPU: 4 MiB
SEEDS = ("data", "negatives", "augment", "validation")


def micro_batch(config: PolicyConfig, batch_size: int, device: torch.device) -> int:
    """How many windows of a batch are processed at a time by default.

    Where every window has its own candidates, as many as keep a hidden layer of the energy's head
    in a CPU's cache (or in a sixteenth of a GiB on a GPU) for the backward pass: more would be
    slower, and memory would grow with the batch. Otherwise 128, which suits images.
    """
    if config.kind != "ibc" or config.negatives.shared:
        return min(128, batch_size)
    units = UNITS if device.type == "cpu" else 16 * UNITS
    kept = (1 + config.negatives.count) * config.energy.width
    return max(1, min(batch_size, units // kept))


class Trainer:
    """Trains a policy on windows, an epoch at a time.

    seeds: one each for "data", "negatives", "augment" and "validation". ValueError where the data
    does not fill a batch. The policy moves to the device and is trained in place. shares: of each
    data set in a batch, on average (`SplitConfig.shares`).
    """

    def __init__(
        self,
        policy: Policy,
        train: Windows,
        val: Windows,
        config: TrainConfig,
        seeds: Mapping[str, int],
        device: str = "cpu",
        shares: Sequence[float] = (),
    ) -> None:
        check(set(SEEDS) <= set(seeds), f"seeds must hold {', '.join(SEEDS)}", sorted(seeds))
        rule = f"train.batch_size must not exceed the {len(train)} training windows"
        check(config.batch_size <= len(train), rule, config.batch_size)
        self.device = torch.device(device)
        self.config, self.train, self.seeds = config, train, dict(seeds)
        self.shares = tuple(shares)
        self._sets = [
            np.flatnonzero((rows.start <= train.steps) & (train.steps < rows.stop))
            for rows in train.demos.set_rows
        ]
        self.policy = policy.to(self.device)
        self.ema = copy.deepcopy(policy).requires_grad_(False) if config.ema_decay else None
        backbones = [module for module in policy.modules() if isinstance(module, PooledImages)]
        self.precision: str = config.precision  # what "auto" stands for here
        if config.precision == "auto":
            fast = backbones and optim.fast_bf16(self.device)
            self.precision = "bf16 convolutions" if fast else "fp32"
            for backbone in backbones:
                backbone.bf16 = bool(fast)
        self._micro_batch = config.micro_batch or micro_batch(
            policy.config, config.batch_size, self.device
        )
        self.step = 0
        self.validation = Validation(val, config.val_windows, seeds["validation"])
        self._parameters = {n: p for n, p in policy.named_parameters() if p.requires_grad}
        ema = {} if self.ema is None else dict(self.ema.named_parameters())
        self._ema_parameters: list[Tensor] = [ema[n] for n in self._parameters if n in ema]
        self._optimizer = AdamW(
            self._parameters.values(), betas=config.betas, weight_decay=config.weight_decay
        )
        self._generators = {
            "generator": torch.Generator(self.device).manual_seed(seeds["negatives"]),
            "augment": torch.Generator(self.device).manual_seed(seeds["augment"]),
        }
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._dead: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        """Epochs finished, a shorter last one included."""
        return -(-self.step // self.config.epoch_steps)

    @property
    def done(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.config.steps

    @property
    def facts(self) -> dict[str, Any]:
        """What `health.diagnose` needs beside the metrics; dead_layers had no gradient lately."""
        return {"kind": self.policy.config.kind, "dead_layers": self._dead}

    def run_epoch(self) -> dict[str, float]:
        """Train to the end of the epoch and validate; returns metrics as plain floats.

        train_* are means over the epoch's steps, grad_norm_* (by part of the network) over every
        50th. NonFiniteError, naming the place, as soon as a loss or a gradient is not finite.
        """
        check(not self.done, f"training ends after train.steps {self.config.steps}", self.step)
        start, first = time.perf_counter(), self.step
        last = min(self.config.steps, first + self.config.epoch_steps)
        sums: dict[str, float] = {}
        alive: set[str] = set()
        norms: list[dict[str, float]] = []
        while self.step < last:
            for name, value in self._train_step().items():
                sums[name] = sums.get(name, 0.0) + value
            if self.step % 50 == 0 or self.step == last:
                alive |= self._with_gradient()
                norms.append(optim.norms(self._parameters))
        seconds = time.perf_counter() - start
        self._dead = tuple(name for name in self._parameters if name not in alive)
        count = self.step - first
        return {
            "epoch": float(self.epoch),
            "step": float(self.step),
            **{f"train_{name}": value / count for name, value in sums.items()},
            **{f"grad_norm_{part}": sum(n[part] for n in norms) / len(norms) for part in norms[0]},
            **self.validation.run(self.policy_for_inference()),
            "learning_rate": self.config.learning_rate_at(self.step - 1),
            "dead_layers": float(len(self._dead)),
            "samples_per_second": count * self.config.batch_size / seconds,
            "seconds": time.perf_counter() - start,
        }

    def _train_step(self) -> dict[str, float]:
        config, parameters = self.config, list(self._parameters.values())
        batch = self._augmented(self.train.batch(self._indices()))
        states = {name: g.get_state() for name, g in self._generators.items()}
        self._optimizer.zero_grad()
        totals: dict[str, Tensor] = {}
        for at in range(0, config.batch_size, self._micro_batch):
            part = {name: value[at : at + self._micro_batch] for name, value in batch.items()}
            share = len(part["action"]) / config.batch_size
            bf16 = self.precision == "bf16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                loss, metrics = self.policy.compute_loss(part, **self._generators)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": loss.detach(), **metrics}.items():
                totals[name] = value * share + totals.get(name, 0.0)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        values = torch.stack([*totals.values(), norm]).tolist()  # the step's only wait on a GPU
        result = dict(zip([*totals, "grad_norm"], values, strict=True))
        if not (math.isfinite(result["loss"]) and math.isfinite(result["grad_norm"])):
            place = locate(self.policy, batch, states=states, micro_batch=self._micro_batch)
            raise NonFiniteError(self.step, place)
        if config.grad_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, config.grad_clip, norm)
        self._optimizer.step(config.learning_rate_at(self.step))
        self._average()
        self.step += 1
        return result

    def _augmented(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The step's windows, changed by draws that depend on the seed and the step alone."""
        rng = np.random.default_rng([self.seeds["augment"], self.step])
        return augment(batch, self.config.augment, rng, self.device)

    def _indices(self) -> NDArray[np.int64]:
        """The windows of this step, from shuffled passes over all of them, or mixed by shares.

        They depend on the seed and the step alone, so a resumed run draws the same windows.
        """
        size = self.config.batch_size
        if self.shares:
            rng = np.random.default_rng([self.seeds["data"], self.step])
            counts = rng.multinomial(size, self.shares)
            drawn = [rng.choice(own, n) for own, n in zip(self._sets, counts, strict=True) if n]
            return np.concatenate(drawn)
        number, at = divmod(self.step, len(self.train) // size)
        if self._order is None or self._order[0] != number:
            shuffle = np.random.default_rng([self.seeds["data"], number])
            self._order = (number, shuffle.permutation(len(self.train)))
        return self._order[1][at * size : (at + 1) * size]

    def _average(self) -> None:
        """Update the EMA weights; the decay starts low, so that the initial weights drop out."""
        if self._ema_parameters:
            assert self.config.ema_decay is not None
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            trained = [p.detach() for p in self._parameters.values()]
            torch._foreach_lerp_(self._ema_parameters, trained, 1.0 - decay)

    def _with_gradient(self) -> set[str]:
        return {
            name
            for name, p in self._parameters.items()
            if p.grad is not None and bool(p.grad.any())
        }

    def policy_for_inference(self) -> Policy:
        """The policy with the averaged weights, or the trained one without averaging.

        Not a copy: it changes as training continues.
        """
        return self.policy if self.ema is None else self.ema

    def state_dict(self) -> dict[str, Any]:
        """Everything to resume training from: tensors and plain values only."""
        return {
            "step": self.step,
            "seeds": dict(self.seeds),
            "weights": self.policy.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generators": {name: g.get_state() for name, g in self._generators.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`; ValueError if the seeds or the use of averaging differ."""
        rule = f"the run to resume has seeds {state['seeds']}"
        check(state["seeds"] == self.seeds, rule, self.seeds)
        rule = "a run is resumed with averaging (train.ema_decay) on or off as it was"
        check((state["ema"] is None) == (self.ema is None), rule, self.config.ema_decay)
        self.policy.load_state_dict(state["weights"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        for name, generator in self._generators.items():
            generator.set_state(state["generators"][name].cpu())
        self.step = int(state["step"])

"""The policies that benchmarks.training times: plain, ours with its network, the default."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.plain_ibc import NOISE, ROUNDS, SAMPLES, PlainTrainer
from harness.config import plan
from harness.core.paths import ROOT
from harness.demos.source import Source, open_demos
from ibc.config.action import ActionConfig
from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.normalizer import normalize_positions
from ibc.data.windows import Windows
from ibc.encoders import image
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}


@dataclass(frozen=True)
class Size:
    """A row of the table: the network's width, negatives per window, windows per step."""

    width: int
    negatives: int
    batch: int


def load(source: Source | str | Path, obs_mode: Any = "keypoints") -> tuple[Windows, Windows]:
    """Return two-frame windows for training, and those of every tenth episode, held out."""
    demos = open_demos(source, obs_mode)
    episodes = range(len(demos.episode_ends))
    held_out = episodes[::10]
    train = [k for k in episodes if k not in held_out]
    return Windows(demos, train, obs_mode, 2, 1), Windows(demos, held_out, obs_mode, 2, 1)


def numbers(windows: Windows, bounds: Windows) -> tuple[Tensor, Tensor]:
    """Return observations (L, 40) and actions (L, 2) in [-1, 1], with the bounds of `bounds`."""
    batch = windows.batch(np.arange(len(windows)))
    obs_LF = normalize_positions(torch.from_numpy(batch["keypoints"]).flatten(1))
    known = torch.from_numpy(bounds.batch(np.arange(len(bounds)))["action"])[:, 0]
    low, high = known.amin(0), known.amax(0)
    actions_LD = (torch.from_numpy(batch["action"])[:, 0] - low) / (high - low) * 2 - 1
    return obs_LF, actions_LD.clamp(-1.0, 1.0)


def plain(windows: Windows, size: Size, seed: int = 0) -> PlainTrainer:
    """Return the plain policy on the windows."""
    obs_LF, actions_LD = numbers(windows, windows)
    return PlainTrainer(obs_LF, actions_LD, size.width, size.negatives, size.batch, seed)


def same_network(size: Size) -> PolicyConfig:
    """Return our policy with the plain one's network, bounds, negatives and inference."""
    return PolicyConfig(
        encoder=EncoderConfig(low_dim="plain", state_depth=0),
        action=ActionConfig(frame="board", bounds="data", margin=0.0),
        energy=EnergyConfig(
            fusion="concat", width=size.width, depth=4, dropout=0.1, dropout_masks="window"
        ),
        negatives=NegativesConfig(count=size.negatives, shared=False),
        inference=InferenceConfig(
            sampler="dfo",
            samples=SAMPLES,
            iterations=ROUNDS,
            noise=NOISE,
            shrink=1.0,
            clip=False,
            readout="sample",
        ),
    )


def default_network(size: Size) -> PolicyConfig:
    """Return the default recipe at this width and number of negatives."""
    config = PolicyConfig()
    return replace(
        config,
        energy=replace(config.energy, width=size.width),
        negatives=replace(config.negatives, count=size.negatives),
    )


def masks_by_candidate(config: PolicyConfig) -> PolicyConfig:
    """Return the same with a dropout mask for each candidate, as in the plain version."""
    return replace(config, energy=replace(config.energy, dropout_masks="candidate"))


class Ours:
    """Training in epochs of some steps, and inference, of our policy."""

    def __init__(
        self, windows: Windows, config: PolicyConfig, batch: int, seed: int = 0, steps: int = 1
    ) -> None:
        train = TrainConfig(
            steps=10**6,
            epoch_steps=steps,
            batch_size=batch,
            learning_rate=1e-4,
            betas=(0.95, 0.999),
            warmup_steps=0,
            schedule="constant",
            ema_decay=None,
        )
        policy = build_policy(config, fit_normalizer(config, windows), generator_seed=seed)
        nothing = Windows(windows.demos, (), windows.obs_mode, windows.obs_horizon, 1)
        seeds = {name: value + 10 * seed for name, value in SEEDS.items()}
        self.trainer = Trainer(policy, windows, nothing, train, seeds)

    def epoch(self) -> float:
        """Train an epoch and return its mean loss."""
        return self.trainer.run_epoch()["train_loss"]

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return actions (B, 1, 2) px for raw observations."""
        rows = len(next(iter(obs.values())))
        generators = [torch.Generator().manual_seed(row) for row in range(rows)]
        return self.trainer.policy.predict_action(obs, generators)


def image_network(concat: bool, width: int, negatives: int) -> PolicyConfig:
    """Return an image policy with the default trunk and the plain head or the default one."""
    size = Size(width, negatives, 0)
    like = same_network(size) if concat else default_network(size)
    return replace(like, obs_mode="image", encoder=EncoderConfig())


class EarlierImages(Ours):
    """Training on images as it was: crops gathered by an index of every row."""

    def epoch(self) -> float:
        """Train an epoch and return its mean loss."""
        with mock.patch.object(image, "copied_crops", _gathered):
            return super().epoch()


def _gathered(frames: Tensor, size: int, top: list[int], left: list[int]) -> Tensor:
    return image.gathered_crops(frames, size, torch.tensor(top), torch.tensor(left))


def image_recipes(source: Source | str | Path, steps: int) -> dict[str, tuple[int, Ours]]:
    """Return image trainings with the windows of their epochs: before, its steps now, the recipe.

    Before: two frames, the default trunk, 64 windows a step (the standard budget of
    search_spaces/ablations.yaml). All mirror half of their windows.
    """
    before = PolicyConfig(obs_mode="image")
    trials = plan.plan(ROOT / "search_spaces/images.yaml").trials
    recipe = next(trial.config for trial in trials if ("length", "baseline") in trial.names)
    after, train = recipe.policy, recipe.train
    two = load(source, "image")[0]
    one = Windows(two.demos, two.episodes, "image", after.obs_horizon, 1)
    return {
        "before": (64 * steps, EarlierImages(two, before, 64, steps=steps)),
        "the same now": (64 * steps, Ours(two, before, 64, steps=steps)),
        "recipe now": (
            train.batch_size * steps,
            Ours(one, after, train.batch_size, steps=steps),
        ),
    }

"""A task that depends on the order of frames, learned with every way of stacking them.

    python benchmarks/order_task.py [--steps 600] [--seed 0] [--out order.json]

Every frame shows a clock's hand in a random direction: the block is its tip, the agent its centre.
The correct move has the hand's x of the oldest frame and its y of the frame before the newest. So
the move depends on the order of the frames and not on the newest one: a policy that sees one frame,
or frames in unknown order, is little better than the constant prediction "stay".

Implicit policies are trained with each stacking on 2 and 4 frames, on states and on small images.
The table gives the mean distance between the predicted and the correct move on held-out windows.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, NegativesConfig
from ibc.config.policy import ObsMode, PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.demos import Demos
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

MIDDLE, HAND, MOVE = 256.0, 120.0, 60.0  # px
SIDE = 16  # of the images, px
LENGTH = 40  # frames per episode
FUSIONS = ("features", "recurrent", "attention")


def main() -> None:
    parser = argparse.ArgumentParser(description="the order of frames, by stacking")
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps per policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("| observations | frames | stacking | error px | constant predictor px | s |")
    print("|---|--:|---|--:|--:|--:|")
    for obs_mode, horizon, stacking in cases():
        demos = clock(horizon, 200, arguments.seed, images=obs_mode == "image")
        row = train(demos, obs_mode, horizon, stacking, arguments.steps, arguments.seed)
        rows.append(row)
        print(
            "| {observations} | {frames} | {stacking} | {error_px:.1f} | {still_px:.1f}".format(
                **row
            ),
            f"| {row['seconds']:.0f} |",
            flush=True,
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def cases() -> list[tuple[ObsMode, int, str]]:
    """Return the policies to train: observations, frames of the task, stacking."""
    found: list[tuple[ObsMode, int, str]] = []
    for horizon in (2, 4):
        found += [("state", horizon, name) for name in ("newest frame", "order lost", *FUSIONS)]
    for horizon in (2, 4):
        found += [("image", horizon, name) for name in (*FUSIONS, "channels")]
    return found


def clock(horizon: int, episodes: int, seed: int, *, images: bool = False) -> Demos:
    """Return demonstrations whose moves depend on the last `horizon` frames and their order."""
    rng = np.random.default_rng(seed)
    angles_EL = rng.uniform(0, 2 * np.pi, (episodes, LENGTH))
    state = np.zeros((episodes, LENGTH, 5), np.float32)
    state[..., :2] = MIDDLE
    state[..., 2] = MIDDLE + HAND * np.cos(angles_EL)
    state[..., 3] = MIDDLE + HAND * np.sin(angles_EL)
    # The first frame is repeated before the start, as in Windows.
    frames = np.maximum(np.arange(LENGTH)[:, None] + np.arange(1 - horizon, 1), 0)
    action = MIDDLE + answer(angles_EL[:, frames])
    state = state.reshape(-1, 5)
    return Demos(
        path="clock",
        fingerprint="clock",
        action=action.reshape(-1, 2).astype(np.float32),
        state=state,
        keypoints=np.zeros((len(state), 20), np.float32),
        episode_ends=np.arange(1, episodes + 1) * LENGTH,
        images=draw(state) if images else None,
    )


def answer(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the move in px (..., 2) for the hand's directions (..., T) in rad, oldest first."""
    return MOVE * np.stack([np.cos(angles[..., 0]), np.sin(angles[..., -2])], -1)


def draw(state: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return white images (L, SIDE, SIDE, 3) with a soft dark spot at the block."""
    at = np.arange(SIDE) + 0.5
    x, y = (state[:, i, None] * (SIDE / 512) for i in (2, 3))
    near_x, near_y = (np.exp(-(((at - c) / 2.0) ** 2)) for c in (x, y))
    spot = near_y[:, :, None] * near_x[:, None, :]
    return np.repeat((255 * (1 - spot)).astype(np.uint8)[..., None], 3, -1)


class Unordered(Windows):
    """Windows whose frames are sorted by the block's position, so their order is unknown."""

    def batch(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the windows of the given numbers."""
        batch = super().batch(indices)
        order_BT = batch["state"][..., 2].argsort(1)
        batch["state"] = np.take_along_axis(batch["state"], order_BT[..., None], 1)
        return batch


def policy_config(obs_mode: ObsMode, horizon: int, stacking: str) -> PolicyConfig:
    """Return a small implicit policy."""
    encoder = EncoderConfig(
        channels=(16, 32),
        reduce_maps=16,
        temperature=0.03,
        crop=None,
        features=32,
        state_width=64,
        stacking=stacking,  # type: ignore[arg-type]
    )
    return PolicyConfig(
        obs_mode=obs_mode,
        obs_horizon=horizon,
        encoder=encoder,
        energy=EnergyConfig(width=64, depth=2),
        negatives=NegativesConfig(count=128),
    )


def train(
    demos: Demos, obs_mode: ObsMode, horizon: int, stacking: str, steps: int, seed: int
) -> dict[str, Any]:
    """Return a row of the table."""
    start = time.perf_counter()
    metrics = trained(demos, obs_mode, horizon, stacking, steps, seed)[1]
    return {
        "observations": obs_mode,
        "frames": horizon,
        "stacking": stacking,
        "error_px": metrics["val_readout_error_px"],
        "still_px": metrics["trivial_action_error_px"],
        "seconds": time.perf_counter() - start,
    }


def trained(
    demos: Demos, obs_mode: ObsMode, horizon: int, stacking: str, steps: int, seed: int
) -> tuple[Trainer, dict[str, float]]:
    """Return the trainer at its end and the last metrics."""
    windows = Unordered if stacking == "order lost" else Windows
    seen = 1 if stacking == "newest frame" else horizon
    known = stacking if stacking not in ("newest frame", "order lost") else "features"
    config = policy_config(obs_mode, seen, known)
    total = len(demos.episode_ends)
    held_out, rest = range(total // 10), range(total // 10, total)
    train, val = (windows(demos, part, obs_mode, seen, 1) for part in (rest, held_out))
    policy = build_policy(config, fit_normalizer(config, train), generator_seed=seed)
    settings = TrainConfig(
        steps=steps,
        epoch_steps=steps,
        batch_size=64,
        warmup_steps=steps // 20,
        ema_decay=0.98,
        precision="fp32",
        val_windows=256,
    )
    seeds = {"data": seed, "negatives": seed, "augment": seed, "validation": seed}
    trainer = Trainer(policy, train, val, settings, seeds)
    return trainer, trainer.run_epoch()


if __name__ == "__main__":
    main()

"""How well the default keypoint recipe learns from a data set in a given time.

    python benchmarks/learnability.py [--steps N] [--train-seeds K] [--threads N] [--data PATH]

Trains the defaults of PolicyConfig and TrainConfig with the given number of steps in one process
(on 9 of 10 episodes, as in a sweep) and evaluates the last weights, without selecting a checkpoint,
on test seeds from 300000 on. Prints minutes, score and success rate with 95 % intervals for each
training seed, then over all of them.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from harness.config.protocol import Protocol, blocks
from harness.core import errors
from harness.core.seeds import REPORT_SEEDS, streams
from harness.demos.source import open_demos
from harness.evaluation.rollout import evaluate_block
from harness.stats import intervals
from ibc.config.policy import PolicyConfig
from ibc.config.training import SplitConfig, TrainConfig
from ibc.data.demos import Demos, split
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
AIM = 0.75  # score after 10 minutes on 2 cores, with some successes


def trained(demos: Demos, config: TrainConfig, train_seed: int) -> tuple[Any, float]:
    """Return the policy after the last step and the minutes of training."""
    policy, seeds = PolicyConfig(), streams(train_seed)
    held = split(demos, SplitConfig())
    train, val = (
        Windows(demos, episodes, policy.obs_mode, policy.obs_horizon, policy.action_horizon)
        for episodes in (held.train_episodes, held.val_episodes)
    )
    built = build_policy(policy, fit_normalizer(policy, train), generator_seed=seeds["init"])
    trainer = Trainer(built, train, val, config, seeds)
    began = time.perf_counter()
    while not trainer.done:
        metrics = trainer.run_epoch()
        minutes = (time.perf_counter() - began) / 60
        print(
            f"\rseed {train_seed}: step {trainer.step} of {config.steps}, {minutes:.1f} min, "
            f"loss {metrics['train_loss']:.3f}, {metrics['samples_per_second']:,.0f} windows/s",
            end="",
            flush=True,
        )
    print()
    return trainer.policy_for_inference(), (time.perf_counter() - began) / 60


def interval(estimate: intervals.Estimate) -> str:
    low, high = max(estimate.low, 0.0), min(estimate.high, 1.0)
    return f"{estimate.value:.3f} [{low:.3f}, {high:.3f}]"


def main() -> int:
    parser = errors.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=TrainConfig().steps)
    parser.add_argument("--train-seeds", type=int, default=1, help="training seeds 0, 1, ...")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=100, help="test seeds from 300000 on")
    parser.add_argument("--data", type=Path, default=ROOT / "data/expert.zarr")
    given = parser.parse_args()
    for name in ("steps", "train_seeds", "threads", "episodes"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    torch.set_num_threads(given.threads)
    demos = open_demos(given.data, "keypoints")
    config = TrainConfig(steps=given.steps)
    if given.steps < config.warmup_steps:
        config = dataclasses.replace(config, warmup_steps=0)
    print(
        f"{given.data.name}: {len(demos.episode_ends)} episodes, {len(demos.action)} steps; "
        f"{config.steps} training steps of {config.batch_size} windows, {given.threads} threads"
    )
    table = Table("seed", "minutes", "rollouts", "score", "success", "n")
    scores, wins = [], []
    for seed in range(given.train_seeds):
        policy, minutes = trained(demos, config, seed)
        began, protocol = time.perf_counter(), Protocol()
        rows = [
            row
            for block in blocks(REPORT_SEEDS[: given.episodes], protocol.block_size)
            for row in evaluate_block(policy, block, protocol)
        ]
        if failed := [row["error"] for row in rows if row["error"]]:
            raise SystemExit(f"{len(failed)} episodes failed, the first: {failed[0]}")
        scores.append([row["score"] for row in rows])
        wins.append([row["success"] for row in rows])
        table.add_row(
            str(seed),
            f"{minutes:.1f}",
            f"{time.perf_counter() - began:.0f} s",
            interval(intervals.share_interval(scores[-1])),
            interval(intervals.wilson(sum(wins[-1]), len(rows))),
            str(len(rows)),
        )
    if given.train_seeds > 1:
        won, total = sum(map(sum, wins)), sum(map(len, wins))
        rate = intervals.group_mean(wins) if 0 < won < total else intervals.wilson(won, total)
        both = interval(intervals.group_mean(scores)), interval(rate)
        table.add_row("all", "", "", *both, str(total))
    Console().print(table)
    print(f"aim after 10 minutes on 2 cores: a score of at least {AIM}, some successes")
    return errors.OK


if __name__ == "__main__":
    sys.exit(errors.run(main))

"""How long trials take on this machine, from a few steps of each; a program for a sweep's driver.

`python -m harness.trials.estimate` reads {"threads": n, "jobs": [text of Job.dumps, ...], "firsts":
how many of them are the first of their kind} from stdin, and prints {"seconds": {config hash:
seconds of a trial}, "spent": seconds} to stdout.
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from harness.config.protocol import Protocol, blocks
from harness.config.trial_config import TrialConfig
from harness.evaluation.rollout import evaluate_block
from harness.scheduling.jobs import Job
from harness.trials.runner import build_trainer
from ibc.config.training import SplitConfig
from ibc.data import demos as ibc_demos
from ibc.data.demos import Demos
from ibc.policies.base import Policy

# The time after which no further config is measured, and no further first one of its kind.
BUDGET_SECONDS, FIRSTS_SECONDS = 0.5, 4.0
TRIAL_SECONDS = 1.0  # of Tune, files and checkpoints
_EPISODES, _LENGTH = 6, 120
_ROLLOUT_STEPS = 10


def main() -> None:
    """Read jobs from stdin, measure them, print the answer."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    start = time.perf_counter()
    seconds = measure_some(map(Job.loads, asked["jobs"]), asked["firsts"])
    print(json.dumps({"seconds": seconds, "spent": time.perf_counter() - start}))


def measure_some(jobs: Iterable[Job], firsts: int) -> dict[str, float]:
    """Return the seconds of a trial by config hash, of as many jobs as the budget allows.

    firsts: for so many jobs the budget is larger.
    """
    start, found = time.perf_counter(), {}
    for number, job in enumerate(jobs):
        if time.perf_counter() - start < (FIRSTS_SECONDS if number < firsts else BUDGET_SECONDS):
            found[job.config_hash] = measure(job.config)
    return found


def measure(config: TrialConfig) -> float:
    """Return the approximate seconds of a trial on this machine, from a few steps of it."""
    train, steps = config.train, 2
    size = min(train.batch_size, _EPISODES * _LENGTH // 2)
    short = dataclasses.replace(
        train, steps=10**9, epoch_steps=steps, batch_size=size, val_windows=64, warmup_steps=0
    )
    demos = _random_demos(config.policy.obs_mode == "image")
    split = ibc_demos.split(demos, SplitConfig())
    trainer = build_trainer(
        dataclasses.replace(config, train=short, split=SplitConfig()), demos, split, 0, "cpu"
    )
    trainer.run_epoch()  # warms up
    metrics = trainer.run_epoch()
    a_step = train.batch_size / metrics["samples_per_second"]
    a_validation = metrics["seconds"] - steps * size / metrics["samples_per_second"]
    validated = len(trainer.validation.rows)
    validations = math.ceil(train.steps / train.epoch_steps) * train.val_windows / validated
    env_seeds = blocks(config.select.env_seeds, Protocol().block_size)
    rollouts = 1 + (train.steps - 1) // config.select.every if config.select.every else 1
    rollout = _rollout(trainer.policy, env_seeds[0])
    training = train.steps * a_step + validations * a_validation
    return TRIAL_SECONDS + training + rollouts * len(env_seeds) * rollout


def _rollout(policy: Policy, env_seeds: Sequence[int]) -> float:
    """Return the approximate seconds of a whole rollout, from its first steps.

    Whole chunks of actions are timed, so that predictions and steps count in the right proportion.
    """
    took = []
    more = policy.executed * math.ceil(_ROLLOUT_STEPS / policy.executed)
    for steps in (1, 1 + more):
        start = time.perf_counter()
        evaluate_block(policy, env_seeds, Protocol(max_episode_steps=steps))
        took.append(time.perf_counter() - start)
    a_step = max(0.0, took[1] - took[0]) / more
    return took[0] + a_step * Protocol().max_episode_steps


def _random_demos(with_images: bool) -> Demos:
    """Return random demonstrations: steps take as long on them as on real ones."""
    generator = np.random.default_rng(0)
    length = _EPISODES * _LENGTH
    state = generator.uniform(100, 400, (length, 5)).astype(np.float32)
    fields: dict[str, Any] = {
        "path": "",
        "fingerprint": "",
        "action": state[:, :2] + generator.normal(0, 20, (length, 2)).astype(np.float32),
        "state": state,
        "keypoints": generator.uniform(100, 400, (length, 20)).astype(np.float32),
        "episode_ends": np.arange(1, _EPISODES + 1) * _LENGTH,
        "images": np.zeros((length, 96, 96, 3), np.uint8) if with_images else None,
        "pixels": None,
    }
    return Demos(**fields)


if __name__ == "__main__":
    main()

"""How long a sweep will take: from trials that are done, else from a short measurement here."""

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.config.protocol import Protocol, blocks
from harness.config.trial_config import TrialConfig, config_hash
from harness.core import seeds
from harness.evaluation.rollout import evaluate_block
from harness.scheduling.jobs import Job
from ibc.config.training import SplitConfig
from ibc.data import demos as ibc_demos
from ibc.data import windows as data_windows
from ibc.data.demos import Demos
from ibc.policies.base import Policy
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

MEASURING_SECONDS = 0.5  # beside the first of each sort of policy
SORTS_SECONDS = 4.0
STARTING_SECONDS = 15.0  # of Ray and its workers
TRIAL_SECONDS = 1.0  # of Tune, files and checkpoints
_EPISODES, _LENGTH = 6, 120
_ROLLOUT_STEPS = 10


@dataclass(frozen=True)
class Estimate:
    """Seconds by trial id for the trials asked about, and how they were found."""

    seconds: Mapping[str, float]
    how: str

    def wall(self, slots: int, jobs: float) -> float:
        """Return the seconds until so many jobs like these are done on so many slots."""
        if not self.seconds:
            return 0.0
        mean = sum(self.seconds.values()) / len(self.seconds)
        return STARTING_SECONDS + max(max(self.seconds.values()), mean * jobs / slots)


def estimate(
    jobs: Sequence[Job],
    done: Mapping[str, float],
    *,
    threads: int = 1,
    budget_seconds: float = MEASURING_SECONDS,
) -> Estimate:
    """Return an estimate for the jobs.

    done: the seconds that finished trials took, by config hash (another training seed takes as
    long). Of the configs that none tells about, the first of each observation mode and kind of
    policy is timed for a moment, and others until the budget is spent; the rest is taken to be as
    slow as the mean of its sort.
    """
    hashes = {job.id: config_hash(job.config) for job in jobs}
    known = dict(done)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    start, timed = time.perf_counter(), 0
    try:
        for job, first in _firsts_first(jobs):
            budget = SORTS_SECONDS if first else budget_seconds
            if hashes[job.id] not in known and time.perf_counter() - start < budget:
                known[hashes[job.id]] = measure(job.config)
                timed += 1
    finally:
        torch.set_num_threads(before)
    alike: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if hashes[job.id] in known:
            alike.setdefault(_sort(job), []).append(known[hashes[job.id]])
    overall = [seconds for some in alike.values() for seconds in some]
    seconds = {}
    for job in jobs:
        like = alike.get(_sort(job), overall)
        seconds[job.id] = known.get(hashes[job.id], sum(like) / len(like))
    spent = time.perf_counter() - start
    told = sum(hash_ in done for hash_ in set(hashes.values()))
    parts = [f"{told} configs from finished trials"] if told else []
    parts += [f"{timed} configs timed here for {spent:.0f} s in all"] if timed else []
    unknown = len(set(hashes.values())) - told - timed
    parts += [f"{unknown} taken to be like those"] if unknown else []
    return Estimate(seconds, ", ".join(parts) or "nothing to run")


def measure(config: TrialConfig) -> float:
    """Return about how many seconds a trial takes on this machine, from a few steps of it."""
    policy, train = config.policy, config.train
    steps = 2
    size = min(train.batch_size, _EPISODES * _LENGTH // 2)
    short = dataclasses.replace(
        train, steps=10**9, epoch_steps=steps, batch_size=size, val_windows=64, warmup_steps=0
    )
    demos = _random_demos(policy.obs_mode == "image")
    split = ibc_demos.split(demos, SplitConfig())
    windows = [
        data_windows.Windows(
            demos, episodes, policy.obs_mode, policy.obs_horizon, policy.action_horizon
        )
        for episodes in (split.train_episodes, split.val_episodes)
    ]
    built = build_policy(policy, fit_normalizer(policy, windows[0]), generator_seed=0)
    trainer = Trainer(built, windows[0], windows[1], short, seeds.streams(0))
    trainer.run_epoch()  # the first one pays for what is done once
    metrics = trainer.run_epoch()
    a_step = train.batch_size / metrics["samples_per_second"]
    a_validation = metrics["seconds"] - steps * size / metrics["samples_per_second"]
    validated = min(len(windows[1]), short.val_windows)
    validations = math.ceil(train.steps / train.epoch_steps) * train.val_windows / validated
    env_seeds = blocks(config.select.env_seeds, Protocol().block_size)
    rollouts = 1 + (train.steps - 1) // config.select.every if config.select.every else 1
    seconds = train.steps * a_step + validations * a_validation
    return TRIAL_SECONDS + seconds + rollouts * len(env_seeds) * _rollout(built, env_seeds[0])


def _rollout(policy: Policy, env_seeds: Sequence[int]) -> float:
    """Return about how long a whole rollout takes, from the beginning of one.

    Whole chunks are timed, so that the steps between two predictions count as what they are.
    """
    took = []
    more = policy.executed * math.ceil(_ROLLOUT_STEPS / policy.executed)
    for steps in (1, 1 + more):
        start = time.perf_counter()
        evaluate_block(policy, env_seeds, Protocol(max_episode_steps=steps))
        took.append(time.perf_counter() - start)
    a_step = max(0.0, took[1] - took[0]) / more
    return took[0] + a_step * Protocol().max_episode_steps


def _firsts_first(jobs: Iterable[Job]) -> list[tuple[Job, bool]]:
    """Return one job a config, those that are the first of their sort (True) before all others."""
    firsts: dict[tuple[str, str], Job] = {}
    others: dict[str, Job] = {}
    for job in jobs:
        if firsts.setdefault(_sort(job), job) is not job:
            others.setdefault(config_hash(job.config), job)
    first_hashes = {config_hash(job.config) for job in firsts.values()}
    rest = [job for hash_, job in others.items() if hash_ not in first_hashes]
    return [(job, True) for job in firsts.values()] + [(job, False) for job in rest]


def _sort(job: Job) -> tuple[str, str]:
    return job.config.policy.obs_mode, job.config.policy.kind


def _random_demos(with_images: bool) -> Demos:
    """Return made-up demonstrations: steps take as long on them as on real ones."""
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

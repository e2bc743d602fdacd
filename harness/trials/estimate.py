"""How long trials take on this machine, from a few steps of each; a program for a sweep's driver.

`python -m harness.trials.estimate` reads {"threads": n, "jobs": [text of Job.dumps, ...], "trials":
[how many trials each config has left, ...], "trained": [whether they train their weights, ...]}
from stdin, and prints {"seconds": {config hash: seconds of a trial}, "timed": configs, "spent":
seconds} to stdout.
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.protocol import Protocol, blocks
from harness.config.trial_config import TrialConfig, leaves, to_dict
from harness.evaluation.rollout import evaluate_block
from harness.scheduling.jobs import Job
from harness.trials.runner import build_trainer
from ibc.config.training import SplitConfig
from ibc.data import demos as ibc_demos
from ibc.data.demos import Demos
from ibc.policies.base import Policy
from ibc.training.trainer import Trainer

# Measuring stops after this share of what the trials are estimated to take, within these seconds.
SHARE, LEAST_SECONDS, MOST_SECONDS = 0.01, 0.5, 15.0
FIRSTS_SECONDS = 4.0  # at least, as long as an observation mode or a kind of policy is not known
TRIAL_SECONDS = 1.0  # of Tune, files and checkpoints
_EPISODES, _LENGTH = 6, 120
_ROLLOUT_STEPS, _TIMED_STEPS = 10, 2
_DEAR_SECONDS = 0.05  # of one action: a policy so slow is timed on one start and one window
_WINDOWS, _IMAGE_WINDOWS = 64, 16  # of a validation; image windows also of a training step
_FIRST = ("policy.obs_mode", "policy.kind")
# Settings that change the time of a training step, beside the batch's size, and of acting.
_OF_STEPS = ("policy.", "train.augment.", "train.micro_batch", "train.precision")
_NOT_OF_STEPS = ("policy.action.", "policy.inference.", "policy.execute")
_OF_ACTING = ("policy.",)
_NOT_OF_ACTING = ("policy.action.", "policy.negatives.", "policy.loss.")


def main() -> None:
    """Read jobs from stdin, measure some of them, print the seconds of all."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    start = time.perf_counter()
    jobs = [Job.loads(text) for text in asked["jobs"]]
    measured = measure_some([job.config for job in jobs], asked["trials"], asked["trained"])
    found = {job.config_hash: s for job, s in zip(jobs, measured.seconds(), strict=True)}
    spent = time.perf_counter() - start
    print(json.dumps({"seconds": found, "timed": measured.exact, "spent": spent}))


class Measured:
    """The times of some configs' parts; other configs take those of the most similar ones.

    A part is a training step, or acting (validation and rollouts): each depends on some settings
    only, and configs that share these share its time.
    """

    def __init__(self, configs: Sequence[TrialConfig], trained: Sequence[bool]) -> None:
        self.configs, self.trained = configs, trained
        rows = [leaves(to_dict(config)) for config in configs]
        self._codes = {
            "step": _codes(rows, _OF_STEPS, _NOT_OF_STEPS),
            "acting": _codes(rows, _OF_ACTING, _NOT_OF_ACTING),
        }
        # By part and config: how far the most similar measured one is, and its times.
        self._distance = {part: np.full(len(rows), np.inf) for part in self._codes}
        self._times: dict[str, list[tuple[float, ...]]] = {
            part: [()] * len(rows) for part in self._codes
        }

    def next(self) -> int | None:
        """Return the config that is least like the measured ones, None when all are known."""
        apart = self._distance["step"] + self._distance["acting"]
        at = int(np.argmax(apart))
        return at if apart[at] > 0 else None

    @property
    def unlike(self) -> bool:
        """Whether a config's observation mode or kind of policy is not measured yet."""
        return max(float(each.max()) for each in self._distance.values()) >= _FAR

    @property
    def exact(self) -> int:
        """How many configs have measured times of their own."""
        return int(sum((self._distance["step"] == 0) & (self._distance["acting"] == 0)))

    def measure(self, at: int) -> None:
        """Measure what is not known yet of a config."""
        config = self.configs[at]
        step, acting = (self._distance[part][at] > 0 for part in ("step", "acting"))
        trainer = _trainer(config, validated=acting)
        if acting:
            env_seeds = blocks(config.select.env_seeds, Protocol().block_size)[0]
            if _dear(trainer.policy, env_seeds[:1]):
                trainer, env_seeds = _trainer(config, validated=False), env_seeds[:1]
            rollout = _rollout(trainer.policy, env_seeds) / len(env_seeds)
            self._add("acting", at, (_validation(trainer), rollout))
        if step:
            trainer.run_epoch()  # warms up
            self._add("step", at, (1 / trainer.run_epoch()["samples_per_second"],))

    def _add(self, part: str, at: int, times: tuple[float, ...]) -> None:
        codes = self._codes[part]
        distance = (codes != codes[at]).astype(float) @ _weights(codes)
        for index in np.flatnonzero(distance < self._distance[part]):
            self._times[part][index] = times
        self._distance[part] = np.minimum(distance, self._distance[part])

    def seconds(self) -> list[float]:
        """Return the seconds of a trial of each config."""
        found = []
        for index, (config, trained) in enumerate(zip(self.configs, self.trained, strict=True)):
            train, select = config.train, config.select
            (sample,), (validation, rollout) = (self._times[p][index] for p in ("step", "acting"))
            epochs = math.ceil(train.steps / train.epoch_steps) if trained else 1
            validations = epochs * train.val_windows
            rollouts = 1 + (train.steps - 1) // select.every if select.every else 1
            acting = validations * validation + rollouts * len(select.env_seeds) * rollout
            training = train.steps * train.batch_size * sample if trained else 0.0
            found.append(TRIAL_SECONDS + training + acting)
        return found


_FAR = 1000.0  # more than any number of settings


def _codes(
    rows: Sequence[dict[str, Any]], of: tuple[str, ...], but: tuple[str, ...]
) -> NDArray[np.int64]:
    """Return configs as rows of numbers, equal for equal settings; first those of _FIRST."""
    known = [name for name in rows[0] if name.startswith(of) and not name.startswith(but)]
    names = [*_FIRST, *(name for name in known if name not in _FIRST)]
    columns = [
        np.unique([str(row[name]) for row in rows], return_inverse=True)[1] for name in names
    ]
    return np.stack(columns, 1)


def _weights(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    weights = np.ones(codes.shape[1])
    weights[: len(_FIRST)] = _FAR
    return weights


def measure_some(
    configs: Sequence[TrialConfig], trials: Sequence[int], trained: Sequence[bool]
) -> Measured:
    """Measure configs, the most different ones first, until the time for it is over.

    trials: how many each config has, which decide how long that is. trained: whether they train
    their weights, or take those of others.
    """
    start, measured = time.perf_counter(), Measured(configs, trained)
    limit = math.inf
    while (at := measured.next()) is not None and time.perf_counter() - start < limit:
        measured.measure(at)
        total = float(np.dot(measured.seconds(), trials))
        limit = min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * total))
        if measured.unlike:
            limit = max(limit, FIRSTS_SECONDS)
    return measured


def _trainer(config: TrialConfig, *, validated: bool) -> Trainer:
    """Return a trainer of short epochs on random demonstrations; not validated: on one window."""
    train, images = config.train, config.policy.obs_mode == "image"
    size = min(train.batch_size, _IMAGE_WINDOWS if images else _EPISODES * _LENGTH // 2)
    windows = _IMAGE_WINDOWS if images else _WINDOWS
    short = dataclasses.replace(
        train,
        steps=10**9,
        epoch_steps=_TIMED_STEPS,
        batch_size=size,
        val_windows=windows if validated else 1,
        warmup_steps=0,
    )
    demos = _random_demos(images)
    split = ibc_demos.split(demos, SplitConfig())
    config = dataclasses.replace(config, train=short, split=SplitConfig())
    return build_trainer(config, demos, split, 0, "cpu")


def _validation(trainer: Trainer) -> float:
    """Return the seconds of a validation by window."""
    start = time.perf_counter()
    trainer.validation.run(trainer.policy_for_inference())
    return (time.perf_counter() - start) / len(trainer.validation.rows)


def _dear(policy: Policy, env_seed: Sequence[int]) -> bool:
    """Whether an action takes so long that its time hardly depends on how many are predicted."""
    return min(_timed(policy, env_seed, 1) for _ in range(2)) > _DEAR_SECONDS


def _rollout(policy: Policy, env_seeds: Sequence[int]) -> float:
    """Return the approximate seconds of a whole rollout, from its first steps.

    Whole chunks of actions are timed, so that predictions and steps count in the right proportion.
    """
    least = _ROLLOUT_STEPS if len(env_seeds) > 1 else 1
    more = policy.executed * math.ceil(least / policy.executed)
    first, both = (_timed(policy, env_seeds, steps) for steps in (1, 1 + more))
    a_step = max(0.0, both - first) / more
    return first + a_step * Protocol().max_episode_steps


def _timed(policy: Policy, env_seeds: Sequence[int], steps: int) -> float:
    """Return the seconds of a rollout's first steps."""
    start = time.perf_counter()
    evaluate_block(policy, env_seeds, Protocol(max_episode_steps=steps))
    return time.perf_counter() - start


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

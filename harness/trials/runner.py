"""One trial: train a policy, select a checkpoint by rollouts, write everything into a folder.

An interrupted trial resumes from checkpoints/last with the same results, to the bit on a CPU.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.config.protocol import Protocol, blocks
from harness.config.trial_config import (
    TrialConfig,
    config_hash,
    from_stored,
    to_dict,
    training_hash,
)
from harness.core import files, provenance
from harness.core import seeds as seeding
from harness.core.throttle import Throttle
from harness.demos.source import Source, check_fingerprint, open_demos, resolve_source
from harness.evaluation.rollout import evaluate_block
from harness.storage import checkpoints
from harness.storage.trial_folder import TrialFolder
from ibc.data import demos as ibc_demos
from ibc.data import windows
from ibc.data.demos import Demos
from ibc.diagnostics import health, probes
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer
from ibc.training.validation import without_actions

PROTOCOL = Protocol()
# Of a trial's time, for saving `last` and writing curves: after every epoch, a large model or many
# epochs would take much more.
SAVING_SHARE, RECORDING_SHARE = 0.005, 0.0025

Report = Callable[[Mapping[str, Any]], None]


class RolloutError(RuntimeError):
    """The policy raised an error in a selection episode."""


def run_trial(
    config: TrialConfig,
    directory: Path,
    report: Report | None = None,
    *,
    demos: Demos | Source | Path | str | None = None,
    train_seed: int = 0,
    device: str = "auto",
    info: Mapping[str, Any] | None = None,
    until: int | None = None,
    fingerprint: str | None = None,
    weights_of: str | None = None,
) -> Mapping[str, Any]:
    """Run the trial in `directory`, or what is left of it, and return its status.json.

    report: called with the metrics of every epoch. demos: opened ones, a data set's path, or None
    for those that a sweep would use. info: further entries of config.json (question, arm, ...).
    until: pause with the status "stopped" at the first selection at or after so many optimiser
    steps; a later call resumes, to the bit as if there had been no pause. fingerprint: what the
    hash of the demonstrations must be, if known. weights_of: the id of a trial beside this one; if
    it is finished and trained what this one would, its weights are taken instead of training anew.
    An exception leaves error.txt and the status "failed" and is raised; UserError says that the
    folder holds another trial, or this one trained on other data.
    """
    if not isinstance(demos, Demos):
        source = resolve_source() if demos is None else demos
        demos = open_demos(source, config.policy.obs_mode)
    described = {
        **(info or {}),
        "config_hash": config_hash(config),
        "train_seed": train_seed,
        "config": to_dict(config),
    }
    folder, pause = TrialFolder(directory), math.inf if until is None else until
    with folder.lock():
        before = folder.claim(described, demos.fingerprint)
        if _is_left(folder, before, pause):
            other = None if weights_of is None else TrialFolder(directory.parent / weights_of)
            run = _Run(config, folder, demos, described, report, pause, other)
            run.run(before, device, fingerprint)
        else:
            folder.state = before
    return folder.state


def _is_left(folder: TrialFolder, before: Mapping[str, Any], pause: float) -> bool:
    """Whether a trial of this status is to be trained up to the step `pause`."""
    if before.get("status") != "finished":
        return before.get("status") != "stopped" or bool(before["step"] < pause)
    lost = folder.lost(before)
    last = folder.checkpoint("last")
    if last is not None and any(step != before.get("step") for step in lost):
        files.quarantine(last)  # what is lost is from an earlier step: train anew
    return bool(lost)


@dataclasses.dataclass
class _Run:
    config: TrialConfig
    folder: TrialFolder
    demos: Demos
    described: Mapping[str, Any]
    report: Report | None
    pause: float
    other: TrialFolder | None  # may have the weights
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    idle_share: float = 0.0  # of the last selection episodes
    saving: Throttle = dataclasses.field(default_factory=Throttle)
    recording: Throttle = dataclasses.field(default_factory=Throttle)

    @property
    def identity(self) -> dict[str, Any]:
        return {key: self.described[key] for key in ("config_hash", "train_seed")}

    def run(self, before: Mapping[str, Any], device: str, fingerprint: str | None) -> None:
        """Train to the end or the pause; write the status, and the error if there is one."""
        device = provenance.choose_device(device)
        try:
            check_fingerprint(self.demos, fingerprint)
            self.folder.write_status(
                status="running",
                # Resuming after a pause is no further attempt.
                attempts=before.get("attempts", 0) + (before.get("status") != "stopped"),
                started=before.get("started", time.time()),
                steps=self.config.train.steps,
                dataset_fingerprint=self.demos.fingerprint,
                **provenance.collect(device),
            )
            ended = self.train(device)
        except Exception as error:
            self.folder.write_failure(error)
            raise
        self.folder.write_success("finished" if ended else "stopped")

    def train(self, device: str) -> bool:
        """Train and select to the end or the pause; return whether it is the end."""
        split = ibc_demos.split(self.demos, self.config.split)
        seed = self.identity["train_seed"]
        trainer = build_trainer(self.config, self.demos, split, seed, device)
        self.folder.write_status(device=f"{provenance.device_name(device)}, {trainer.precision}")
        self.resume(trainer)
        wrong = probes.inspect(trainer, split)
        if wrong:  # to be seen before hours of training
            self.folder.write_health(map(dataclasses.asdict, wrong))
        while True:
            due = self.select_due(trainer)
            if due:
                self.select(trainer)
            if trainer.done:
                break
            if due and trainer.step >= self.pause:
                return False
            self.epoch(trainer)
        facts = {
            **trainer.facts,
            "unclipped": not self.config.policy.inference.clip,
            "idle_share": self.idle_share,
            "select_scores": self.folder.select_scores(),
        }
        found = [
            *health.diagnose(self.history, facts),
            *probes.inspect(trainer, split),
            *probes.saved(trainer.policy_for_inference(), self.folder.checkpoint("last")),
        ]
        self.folder.write_health(map(dataclasses.asdict, found))
        return True

    def resume(self, trainer: Trainer) -> None:
        last, taken = self.folder.checkpoint("last"), False
        state = None if last is None else self.training_state(last)
        if state is None and (last := self.trained_elsewhere()) is not None:
            state, taken = self.training_state(last), True
        if state is None:
            return
        trainer.load_state_dict(state["trainer"])
        self.history = state["history"]
        if taken:
            acted = trainer.validation.run(trainer.policy_for_inference())
            self.history = [without_actions(metrics) for metrics in self.history]
            self.history[-1].update(acted)
            self.save_last(trainer)
            self.folder.write_status(weights_of=self.other.path.name if self.other else None)
        self.record(trainer)

    def training_state(self, checkpoint: Path) -> Any:
        return files.read_or(None, checkpoints.load_training_state, checkpoint)

    def trained_elsewhere(self) -> Path | None:
        """Return the last checkpoint of the other trial, if its training was what this one's is."""
        if self.other is None:
            return None
        status, described = self.other.read_status(), self.other.read_config()
        if status.get("status") != "finished" or "config" not in described:
            return None
        same = (
            training_hash(from_stored(described["config"])) == training_hash(self.config)
            and described["train_seed"] == self.identity["train_seed"]
            and status.get("dataset_fingerprint") == self.demos.fingerprint
        )
        return self.other.checkpoint("last") if same else None

    def epoch(self, trainer: Trainer) -> None:
        try:
            metrics = trainer.run_epoch()
        except Exception:
            if self.history:
                with suppress(OSError):  # the first error is the one to report
                    self.record(trainer)  # the curves up to it help to explain it
            raise
        self.history.append(metrics)
        selecting = self.select_due(trainer)
        if selecting or self.saving.due(SAVING_SHARE):
            with self.saving.timed():
                self.save_last(trainer)
        if selecting or self.recording.due(RECORDING_SHARE):
            with self.recording.timed():
                self.record(trainer)
        if self.report is not None:
            self.report({**metrics, "steps": self.config.train.steps})

    def record(self, trainer: Trainer) -> None:
        self.folder.write_curves(
            [
                {**metrics, **self.identity, **{k: int(metrics[k]) for k in ("epoch", "step")}}
                for metrics in self.history
            ]
        )
        self.folder.write_status(
            epoch=trainer.epoch,
            step=trainer.step,
            train_seconds=sum(metrics["seconds"] for metrics in self.history),
            samples_per_second=mean_rate(self.history),
        )

    def select_due(self, trainer: Trainer) -> bool:
        """Whether a selection is due at this step."""
        every, step = self.config.select.every, trainer.step
        before = max(0, step - self.config.train.epoch_steps)
        return trainer.done or (every > 0 and step // every > before // every)

    def select(self, trainer: Trainer) -> None:
        """Roll out on the selection seeds and keep the policy as `best` if none was better.

        `last` is of this step. Every decision here follows from files, so after an interruption it
        is made again, without the rollouts.
        """
        last = self.folder.checkpoint("last")
        assert last is not None, "a checkpoint is saved before every selection"
        policy_hash = checkpoints.weights_hash(last)
        rows = self.folder.selected(trainer.step, policy_hash)
        if rows is None:
            rows = self.rollouts(trainer, policy_hash)
            self.folder.write_selected(trainer.step, rows)
        self.idle_share = sum(row.get("idle_share") or 0.0 for row in rows) / len(rows)
        score = sum(row["score"] for row in rows) / len(rows)
        rate = sum(row["success"] for row in rows) / len(rows)
        best = self.folder.checkpoint("best")
        kept = {} if best is None else checkpoints.describe(best)
        if best is None or score > kept["select_score"]:
            scores = {"select_score": score, "select_success_rate": rate}
            self.save(trainer, "best", **scores)
            kept = {"step": trainer.step, **scores}
        self.folder.write_status(
            best_step=kept["step"],
            select_score=kept["select_score"],
            select_success_rate=kept["select_success_rate"],
            select_n=len(rows),
        )

    def rollouts(self, trainer: Trainer, policy_hash: str) -> list[dict[str, Any]]:
        start = time.perf_counter()
        rows = [
            row
            for block in blocks(self.config.select.env_seeds, PROTOCOL.block_size)
            for row in evaluate_block(trainer.policy_for_inference(), block, PROTOCOL)
        ]
        for row in rows:
            if row["error"] is not None:
                raise RolloutError(f"the episode of seed {row['env_seed']} failed: {row['error']}")
        self.folder.write_status(select_seconds=time.perf_counter() - start)
        known = {"sweep": self.described.get("sweep"), "checkpoint_step": trainer.step}
        return [{**row, **known, **self.identity, "policy_hash": policy_hash} for row in rows]

    def save_last(self, trainer: Trainer) -> None:
        state = {"trainer": trainer.state_dict(), "history": self.history}
        self.save(trainer, "last", training_state=state)

    def save(self, trainer: Trainer, name: str, *, training_state: Any = None, **info: Any) -> None:
        checkpoints.save(
            self.folder.checkpoints,
            name,
            trainer.policy_for_inference(),
            config=self.described["config"],
            step=trainer.step,
            training_state=training_state,
            info={**self.identity, **info},
        )


def build_trainer(
    config: TrialConfig, demos: Demos, split: ibc_demos.Split, train_seed: int, device: str
) -> Trainer:
    """Return the trainer of a new policy on the windows of a split."""
    policy, seeds = config.policy, seeding.streams(train_seed)
    train, val = (
        windows.Windows(demos, episodes, policy.obs_mode, policy.obs_horizon, policy.action_horizon)
        for episodes in (split.train_episodes, split.val_episodes)
    )
    normalizer = fit_normalizer(policy, train, mirrored=config.train.augment.mirror > 0.0)
    built = build_policy(policy, normalizer, generator_seed=seeds["init"])
    return Trainer(built, train, val, config.train, seeds, device, config.split.shares)


def mean_rate(history: Sequence[Mapping[str, float]]) -> float:
    """Return the samples per second over the whole training, without validation."""
    steps = [metrics["step"] for metrics in history]
    trained = [now - before for now, before in zip(steps, [0.0, *steps[:-1]], strict=True)]
    seconds = sum(n / m["samples_per_second"] for n, m in zip(trained, history, strict=True))
    return sum(trained) / seconds

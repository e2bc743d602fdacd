"""One trial: train, select a checkpoint, leave everything in a folder. Needs no Ray.

A trial that was killed goes on from checkpoints/last, to the bit on a CPU; what stands in the
folder is never computed again.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.config.protocol import Protocol, blocks
from harness.config.trial_config import TrialConfig, config_hash, to_dict
from harness.core import files, provenance
from harness.core import seeds as seeding
from harness.core.throttle import Throttle
from harness.demos.source import check_fingerprint, open_demos, resolve_source
from harness.evaluation.rollout import evaluate_block
from harness.storage import checkpoints
from harness.storage.trial_folder import TrialFolder
from ibc.data import demos as ibc_demos
from ibc.data import windows
from ibc.data.demos import Demos
from ibc.diagnostics import health, probes
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

PROTOCOL = Protocol()


# Of a trial's time: saving `last` after every epoch would cost a big model a good part of it, and
# writing the curves one of many epochs.
SAVING_SHARE, RECORDING_SHARE = 0.005, 0.0025
Report = Callable[[Mapping[str, Any]], None]


class RolloutError(RuntimeError):
    """The policy failed in an episode of the selection."""


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """What a trial came to; scores are of the best checkpoint so far on the selection seeds.

    status: "finished", or "stopped" where it was to pause.
    """

    directory: Path
    config_hash: str
    train_seed: int
    step: int
    best_step: int
    select_score: float
    select_success_rate: float
    train_seconds: float
    status: str = "finished"


def run_trial(
    config: TrialConfig,
    directory: Path,
    report: Report | None = None,
    *,
    demos: Demos | Path | str | None = None,
    train_seed: int = 0,
    device: str = "auto",
    info: Mapping[str, Any] | None = None,
    until: int | None = None,
    fingerprint: str | None = None,
) -> TrialResult:
    """Run the trial in `directory`, or what is missing of it, and return its result.

    report: called with the metrics of every epoch. demos: opened ones, a data set's path, or None
    for those that a sweep would take. info: further entries of config.json (question, arm, ...).
    until: pause with the status "stopped" at the first selection at or after so many optimiser
    steps; a later call goes on from there, to the bit as if there had been no pause.
    fingerprint: what the demonstrations must be, where the caller knows.
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
    folder = TrialFolder(directory)
    with folder.lock():
        _run_what_is_missing(config, folder, report, described, demos, device, until, fingerprint)
    return _result(folder, described)


def _run_what_is_missing(
    config: TrialConfig,
    folder: TrialFolder,
    report: Report | None,
    described: Mapping[str, Any],
    demos: Demos,
    device: str,
    until: int | None,
    fingerprint: str | None,
) -> None:
    before = folder.claim(described, demos.fingerprint)
    pause = math.inf if until is None else until
    finished, stopped = (before.get("status") == name for name in ("finished", "stopped"))
    lost = finished and folder.has_lost(before)
    if (finished and not lost) or (stopped and before["step"] >= pause):
        folder.state = before
        return
    last = folder.checkpoint("last")
    if lost and last is not None and before.get("best_step") != before["step"]:
        files.quarantine(last)  # the best policy comes from before it: train anew
    device = provenance.choose_device(device)
    try:
        check_fingerprint(demos, fingerprint)
        folder.write_status(
            status="running",
            # Going on after a pause is no further attempt.
            attempts=before.get("attempts", 0) + (not stopped),
            started=before.get("started", time.time()),
            steps=config.train.steps,
            dataset_fingerprint=demos.fingerprint,
            **provenance.collect(device),
        )
        ended = _Run(config, folder, report, described, device).train(demos, pause)
    except Exception as error:
        folder.write_failure(error)
        raise
    folder.write_success("finished" if ended else "stopped")


class _Run:
    def __init__(
        self,
        config: TrialConfig,
        folder: TrialFolder,
        report: Report | None,
        described: Mapping[str, Any],
        device: str,
    ) -> None:
        self.config, self.folder, self.report, self.device = config, folder, report, device
        self.described = described
        self.identity = {key: described[key] for key in ("config_hash", "train_seed")}
        self.history: list[dict[str, float]] = []
        self.saving, self.recording = Throttle(), Throttle()

    def train(self, demos: Demos, pause: float) -> bool:
        """Train and select to the end or to the pause at a step; return whether it is the end."""
        split = ibc_demos.split(demos, self.config.split)
        trainer = self.trainer(demos, split)
        self.resume(trainer)
        wrong = probes.inspect(trainer, split)
        if wrong:  # what is wired wrongly is worth knowing before hours of training
            self.folder.write_health(wrong)
        while True:
            due = self.select_due(trainer)
            if due:
                self.select(trainer)
            if trainer.done:
                break
            if due and trainer.step >= pause:
                return False
            self.epoch(trainer)
        facts = {**trainer.facts, "unclipped": not self.config.policy.inference.clip}
        self.folder.write_health(
            [
                *health.diagnose(self.history, facts),
                *probes.inspect(trainer, split),
                *probes.saved(trainer.policy_for_inference(), self.folder.checkpoint("last")),
            ]
        )
        return True

    def trainer(self, demos: Demos, split: ibc_demos.Split) -> Trainer:
        policy, seeds = self.config.policy, seeding.streams(self.identity["train_seed"])
        train, val = (
            windows.Windows(
                demos, episodes, policy.obs_mode, policy.obs_horizon, policy.action_horizon
            )
            for episodes in (split.train_episodes, split.val_episodes)
        )
        built = build_policy(policy, fit_normalizer(policy, train), generator_seed=seeds["init"])
        return Trainer(built, train, val, self.config.train, seeds, self.device)

    def resume(self, trainer: Trainer) -> None:
        last = self.folder.checkpoint("last")
        if last is None:
            return
        try:
            state = checkpoints.load_training_state(last)
        except files.TornFileError:
            files.quarantine(last)
            return
        trainer.load_state_dict(state["trainer"])
        self.history = state["history"]
        self.record(trainer)

    def epoch(self, trainer: Trainer) -> None:
        try:
            metrics = trainer.run_epoch()
        except Exception:
            if self.history:
                with suppress(OSError):  # the error to be told is the other one
                    self.record(trainer)  # the way there is what a user looks at
            raise
        self.history.append(metrics)
        selecting = self.select_due(trainer)
        if selecting or self.saving.due(SAVING_SHARE):
            with self.saving.timed():
                state = {"trainer": trainer.state_dict(), "history": self.history}
                self.save(trainer, "last", training_state=state)
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
        """Whether the policy is to be rolled out at this step."""
        every, step = self.config.select.every, trainer.step
        before = max(0, step - self.config.train.epoch_steps)
        return trainer.done or (every > 0 and step // every > before // every)

    def select(self, trainer: Trainer) -> None:
        """Roll out on the selection seeds and keep the policy as `best` if none was better.

        `last` is of this very step. All that is decided here follows from files, so a kill at any
        instant repeats the decision and nothing else.
        """
        last = self.folder.checkpoint("last")
        assert last is not None, "a checkpoint is saved before every selection"
        policy_hash = checkpoints.weights_hash(last)
        rows = self.folder.selected(trainer.step, policy_hash)
        if rows is None:
            rows = self.rollouts(trainer, policy_hash)
            self.folder.write_selected(trainer.step, rows)
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


def mean_rate(history: Sequence[Mapping[str, float]]) -> float:
    """Return the samples per second over the whole training, validation left out."""
    steps = [metrics["step"] for metrics in history]
    trained = [now - before for now, before in zip(steps, [0.0, *steps[:-1]], strict=True)]
    seconds = sum(n / m["samples_per_second"] for n, m in zip(trained, history, strict=True))
    return sum(trained) / seconds


def _result(folder: TrialFolder, described: Mapping[str, Any]) -> TrialResult:
    numbers = ("step", "best_step", "select_score", "select_success_rate", "train_seconds")
    return TrialResult(
        folder.path,
        described["config_hash"],
        described["train_seed"],
        **{name: folder.state[name] for name in (*numbers, "status")},
    )

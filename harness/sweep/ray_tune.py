"""Ray Tune as the executor: it starts trials where there is room, and keeps no state.

All state is in the trials' own folders; Tune's own files go to a temporary folder and are removed.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
from ray.tune.search import Searcher

from harness.cluster import ray_patches
from harness.cluster.resources import Resources, cluster_room
from harness.core.errors import UserError
from harness.core.imports import load
from harness.core.processes import kill
from harness.sweep.dispatcher import Dispatch
from harness.sweep.folder import TrialSettings

# Each report waits for the driver, so short epochs are sent together.
REPORT_SECONDS = 1.0
ROOM_SECONDS = 5.0  # between two checks of the cluster's size
PATIENCE_SECONDS = 300.0  # to wait for a node


def execute(
    dispatch: Dispatch,
    settings: TrialSettings,
    resources: Resources,
    tick: Callable[[], None],
    scratch: Path | None,
) -> None:
    """Run all jobs on the connected Ray; returns when none is left.

    Workers that fail are handled by `dispatch`. tick: called after each of Tune's steps. scratch:
    for temporary files. KeyboardInterrupt is passed on at once; the sweep can be run again then.
    """
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    searcher = _Searcher(dispatch, resources)
    ray_patches.reuse_started_workers()
    with tempfile.TemporaryDirectory(
        prefix="tune-", dir=scratch, ignore_cleanup_errors=True
    ) as storage:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_work, settings=vars(settings)),
                {"cpu": resources.cpus, "gpu": resources.gpus},
            ),
            tune_config=TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=RunConfig(
                name=dispatch.folder.path.name,
                storage_path=storage,
                verbose=0,
                callbacks=[_Watch(searcher, tick)],
                failure_config=FailureConfig(max_failures=0),  # `dispatch` retries
            ),
        ).fit()


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)


def _work(config: dict[str, Any], settings: dict[str, Any]) -> None:
    """Run one job in a worker; the trial's folder says how it ended, not this function."""
    run_job = load("harness.sweep.worker:run_job")  # torch, which the driver does not need
    epochs: list[Mapping[str, Any]] = []
    reported = time.monotonic()

    def report(metrics: Mapping[str, Any]) -> None:
        nonlocal reported
        epochs.append(metrics)
        if time.monotonic() - reported >= REPORT_SECONDS:
            tune.report({"epochs": epochs.copy()})
            epochs.clear()
            reported = time.monotonic()

    tune.report({"epochs": []})  # tells the driver the process id
    shared = TrialSettings(**settings)
    shared.check_shared()
    run_job(config["id"], config["job"], shared, report)
    tune.report({"epochs": epochs})


class _NotSaved:
    """Tune pickles this for a restore, which is not used."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_NotSaved, Searcher):
    """Gives Tune the next job when there is room for it, and is notified of its end."""

    def __init__(self, dispatch: Dispatch, resources: Resources) -> None:
        super().__init__()
        self.dispatch, self.resources = dispatch, resources
        self.trials: list[Any] = []  # Tune's own, which have the errors of workers
        self._room, self._looked = 0, float("-inf")
        self._had_room = time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        # Tune requests one more than there is room for, which a search could not yet choose well.
        if len(self.dispatch.running) >= self.room():
            return None
        job = self.dispatch.next(trial_id)
        if job is not None:
            return {"job": job.dumps(), "id": job.id}
        # While others run, Tune requests again at its next step: one may fail, or be promoted.
        return None if self.dispatch.running else Searcher.FINISHED

    def room(self) -> int:
        """Return how many trials the cluster can run in parallel; nodes may join and leave."""
        now = time.monotonic()
        if now - self._looked > ROOM_SECONDS:
            self._room, self._looked = cluster_room(self.resources), now
        if self._room or self.dispatch.running:
            self._had_room = now
        elif now - self._had_room > PATIENCE_SECONDS:
            raise UserError(
                "the cluster must have a node with room for a trial, and for "
                f"{PATIENCE_SECONDS:.0f} s it had none; run the same command again to continue"
            )
        return self._room

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        message = str(self.trial(trial_id).get_error()) if error else None
        self.dispatch.ended(trial_id, message)

    def trial(self, trial_id: str) -> Any:
        """Return Tune's trial of this id."""
        return next(trial for trial in reversed(self.trials) if trial.trial_id == trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: all state is in the trials' folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: all state is in the trials' folders."""


class _Watch(_NotSaved, Callback):
    """Passes reports of workers on, and kills those that hang."""

    def __init__(self, searcher: _Searcher, tick: Callable[[], None]) -> None:
        self.searcher, self.tick = searcher, tick
        self._address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.searcher.trials = trials

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.searcher.dispatch.started(trial.trial_id)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: Mapping[str, Any],
        **info: Any,
    ) -> None:
        if result["node_ip"] == self._address:
            self.searcher.dispatch.running[trial.trial_id].pid = result["pid"]
        for metrics in result["epochs"]:
            self.searcher.dispatch.epoch(trial.trial_id, metrics)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for key, pid in self.searcher.dispatch.to_kill():
            if pid is not None:
                kill(pid)
            else:
                ray.kill(self.searcher.trial(key).temporary_state.ray_actor)
        self.tick()

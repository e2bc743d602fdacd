"""Ray Tune as the executor: it starts trials where there is room. It keeps nothing.

All state is in the trials' own folders; Tune's goes to a temporary folder and is thrown away.
"""

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.imports import importing

with importing():  # in a worker all of this is new, torch too
    import ray
    from ray import tune
    from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
    from ray.tune.search import Searcher

    from harness.cluster.resources import Resources, cluster_room
    from harness.core.errors import UserError
    from harness.core.processes import kill
    from harness.scheduling.jobs import WAIT, Listener, StopOnSameError
    from harness.sweep.dispatcher import Dispatch
    from harness.sweep.folder import SweepFolder
    from harness.sweep.progress import Progress
    from harness.sweep.worker import Setting, run_job


# Each report waits for the driver, so the epochs of short ones travel together.
REPORT_SECONDS = 1.0
ROOM_SECONDS = 5.0  # between two looks at the cluster's size
PATIENCE_SECONDS = 300.0  # for a node that is to come back


def execute(
    jobs: StopOnSameError,
    folder: SweepFolder,
    setting: Setting,
    resources: Resources,
    progress: Progress,
    listeners: Sequence[Listener],
    scratch: Path | None,
) -> None:
    """Run all jobs on the Ray that is connected; returns when none is left.

    A trial whose worker dies is begun again from its last checkpoint, as `deaths` says.
    KeyboardInterrupt comes through at once; the folder can be resumed then.
    """
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    dispatch = Dispatch(jobs, folder, [progress, *listeners], progress.note, setting.seconds)
    searcher = _Searcher(dispatch, resources)
    _take_workers_at_hand()
    with tempfile.TemporaryDirectory(
        prefix="tune-", dir=scratch, ignore_cleanup_errors=True
    ) as storage:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_work, setting=vars(setting)),
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
                name=folder.path.name,
                storage_path=storage,
                verbose=0,
                callbacks=[_Watch(searcher, progress)],
                failure_config=FailureConfig(max_failures=0),  # see `deaths`
            ),
        ).fit()


def _take_workers_at_hand() -> None:
    """Let trials run in the workers that Ray has started already.

    Tune asks for workers in whose environment PyTorch Lightning's forking is switched off, so that
    those at hand would be ended, and others started.
    """
    from ray.tune.execution import class_cache

    getattr(class_cache, "DEFAULT_ENV_VARS", {}).pop("PL_DISABLE_FORK", None)


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)


def _work(config: dict[str, Any], setting: dict[str, Any]) -> None:
    """Run one job in a worker; its end is told by its folder, not by this function."""
    epochs: list[Mapping[str, Any]] = []
    spoke = time.monotonic()

    def report(metrics: Mapping[str, Any]) -> None:
        nonlocal spoke
        epochs.append(metrics)
        if time.monotonic() - spoke >= REPORT_SECONDS:
            tune.report({"epochs": epochs.copy()})
            epochs.clear()
            spoke = time.monotonic()

    tune.report({"epochs": []})  # says which process it is
    Setting(**setting).check_shared()
    run_job(config["id"], config["job"], Setting(**setting), report)
    tune.report({"epochs": epochs})


class _NotSaved:
    """Tune pickles what it is given for a restore that never comes: here there is nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_NotSaved, Searcher):
    """Hands Tune the next job whenever there is room for it, and hears of its end."""

    def __init__(self, dispatch: Dispatch, resources: Resources) -> None:
        super().__init__()
        self.dispatch, self.resources = dispatch, resources
        self.trials: list[Any] = []  # Tune's own, which knows what a worker died of
        self._room, self._looked = 0, float("-inf")
        self._had_room = time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        # Tune would ask for one more than there is room for, before a search knows what it needs.
        if len(self.dispatch.running) >= self.room():
            return None
        job = self.dispatch.next(trial_id)
        if job is WAIT:
            return None  # Tune asks again at its next step
        return Searcher.FINISHED if job is None else {"job": job.dumps(), "id": job.id}

    def room(self) -> int:
        """Return how many trials the cluster can run at once; nodes come and go."""
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
        said = str(self.trial(trial_id).get_error()) if error else None
        self.dispatch.ended(trial_id, said)

    def trial(self, trial_id: str) -> Any:
        """Return Tune's trial of this id."""
        return next(trial for trial in reversed(self.trials) if trial.trial_id == trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: the trials' folders say it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is kept: the trials' folders say it all."""


class _Watch(_NotSaved, Callback):
    """Passes on what Tune hears from its workers, and ends those that are beyond hearing."""

    def __init__(self, searcher: _Searcher, progress: Progress) -> None:
        self.searcher, self.progress = searcher, progress
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
            self.searcher.dispatch.here(trial.trial_id, result["pid"])
        for metrics in result["epochs"]:
            self.searcher.dispatch.epoch(trial.trial_id, metrics)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for key, pid in self.searcher.dispatch.to_kill():
            if pid is not None:
                kill(pid)
            else:
                ray.kill(self.searcher.trial(key).temporary_state.ray_actor)
        self.progress.tick()

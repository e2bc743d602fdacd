"""Ray Tune as the executor: it starts trials where there is room. It keeps nothing.

All state is in the trials' own folders; Tune's goes to a temporary folder and is thrown away.
"""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
from ray.tune.search import Searcher

from harness.errors import one_line
from harness.jobs import WAIT, Job, StopOnSameError
from harness.progress import Progress
from harness.sweep_folder import SweepFolder
from harness.trial import RolloutError, run_trial
from harness.trial_folder import TrialFolder
from harness.workers import Resources
from ibc.train import NonFiniteError

ATTEMPTS = 2
WORKER_DEATHS = 2

# These come out the same however often they are tried.
_DETERMINISTIC = (NonFiniteError, RolloutError, ValueError)


def execute(
    jobs: StopOnSameError,
    folder: SweepFolder,
    data: Path,
    resources: Resources,
    progress: Progress,
    scratch: Path | None,
) -> None:
    """Run all jobs on the Ray that is connected; returns when none is left.

    A trial whose worker dies is started again, up to WORKER_DEATHS times, and goes on from its
    last checkpoint. KeyboardInterrupt comes through at once; the folder can be resumed then.
    """
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    searcher = _Searcher(jobs, folder, progress)
    with tempfile.TemporaryDirectory(
        prefix="tune-", dir=scratch, ignore_cleanup_errors=True
    ) as storage:
        trainable = tune.with_parameters(
            _work, folder=str(folder.path), data=str(data), threads=max(1, int(resources.cpus))
        )
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
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
                failure_config=FailureConfig(max_failures=WORKER_DEATHS),
            ),
        ).fit()


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)


def _work(config: dict[str, Any], folder: str, data: str, threads: int) -> None:
    """Run one job in a worker; its end is told by its folder, not by this function."""
    try:
        job = Job.loads(config["job"])
    except ValueError as error:
        TrialFolder(Path(folder) / "trials" / config["id"]).write_failure(error)
        tune.report({"over": True})
        return
    torch.set_num_threads(threads)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            run_trial(
                job.config,
                Path(folder) / "trials" / job.id,
                tune.report,
                demos=data,
                train_seed=job.train_seed,
                info=job.info,
                until=job.until,
            )
        except _DETERMINISTIC:
            break  # error.txt has it
        except Exception:
            if attempt == ATTEMPTS:
                break
        else:
            break
    # Tune takes a function that never reports for one that failed.
    tune.report({"over": True})


class _NotSaved:
    """Tune pickles what it is given for a restore that never comes: here there is nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_NotSaved, Searcher):
    """Hands Tune the next job whenever there is room, and the jobs how each of them ended."""

    def __init__(self, jobs: StopOnSameError, folder: SweepFolder, progress: Progress) -> None:
        super().__init__()
        self.jobs, self.folder, self.progress = jobs, folder, progress
        self.running: dict[str, Job] = {}
        self.errors: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        job = self.jobs.next()
        if job is WAIT:
            if not self.running:
                raise RuntimeError("the search waits for a trial to end, and none runs")
            return None  # Tune asks again at its next step
        if job is None:
            return Searcher.FINISHED
        self.running[trial_id] = job
        return {"job": job.dumps(), "id": job.id}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        job = self.running.pop(trial_id)
        trial = self.folder.trial(job.id)
        status = trial.read_status()
        if status.get("status") not in ("finished", "stopped", "failed"):
            # The worker died too often to say so itself.
            trial.state = status
            trial.write_failure(RuntimeError(self.errors.pop(trial_id, "its worker process died")))
            status = trial.state
        self.jobs.done(job, status)
        self.progress.end(job, status)

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: the trials' folders say it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is kept: the trials' folders say it all."""


class _Watch(_NotSaved, Callback):
    """Shows what Tune hears from its workers."""

    def __init__(self, searcher: _Searcher, progress: Progress) -> None:
        self.searcher, self.progress = searcher, progress

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.progress.start(self.searcher.running[trial.trial_id])

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: Mapping[str, Any],
        **info: Any,
    ) -> None:
        job = self.searcher.running.get(trial.trial_id)
        if job is not None and "steps" in result:
            self.progress.epoch(job, result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.searcher.errors[trial.trial_id] = _explain(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.progress.tick()


def _explain(trial: Any) -> str:
    text = one_line(trial.get_error() or "its worker process died")
    if "OutOfMemory" in text or "OOM" in text:
        return f"its worker ran out of memory; give fewer trials at once more of it: {text}"
    return f"its worker process died: {text}"

"""One job in a worker: on the sweep's data, within its time limit, with a second attempt."""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.core.imports import importing

with importing():  # every worker of a sweep imports it
    import torch

from harness.demos.source import Source
from harness.remote.mirror import Mirror
from harness.remote.object_store import RemoteError
from harness.scheduling.jobs import Job
from harness.storage.trial_folder import TrialFolder
from harness.sweep.folder import TrialSettings
from harness.trials.runner import RolloutError, run_trial
from ibc.training.nonfinite import NonFiniteError

ATTEMPTS = 2
_DETERMINISTIC = (NonFiniteError, RolloutError, ValueError)  # another attempt fails in the same way


def run_job(
    id_: str, text: str, settings: TrialSettings, report: Callable[[Mapping[str, Any]], None]
) -> None:
    """Run the job `text` (of `Job.dumps`); the folder of the trial `id_` says how it ended.

    OSError when nothing could be written to the folder or the store behind it. At its time limit a
    trial ends this process.
    """
    if settings.uri is None:
        folder = TrialFolder(Path(settings.folder) / "trials" / id_)
        _run_here(folder, text, settings, report)
        return

    def report_and_push(metrics: Mapping[str, Any]) -> None:
        push()
        report(metrics)

    try:
        mirror = Mirror(settings.uri)
        trial_dir = mirror.path / Path(settings.folder).name / "trials" / id_
        with mirror.carried(trial_dir) as push:
            _run_here(TrialFolder(trial_dir), text, settings, report_and_push)
    except RemoteError as error:
        raise OSError(str(error)) from error


def _run_here(
    folder: TrialFolder,
    text: str,
    settings: TrialSettings,
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    try:
        job = Job.loads(text)
    except ValueError as error:
        folder.write_failure(error)
        return
    torch.set_num_threads(settings.threads)
    with folder.time_limit(settings.seconds):
        for _ in range(ATTEMPTS):
            try:
                run_trial(
                    job.config,
                    folder.path,
                    report,
                    demos=Source(tuple(map(Path, settings.data)), "given"),
                    train_seed=job.train_seed,
                    info=job.info,
                    until=job.until,
                    weights_of=job.weights_of,
                    fingerprint=settings.fingerprint,
                )
            except Exception as error:
                if folder.read_status().get("status") != "failed":
                    folder.write_failure(error)  # refused before it began
                if isinstance(error, _DETERMINISTIC):
                    return
            else:
                return
            gc.collect()  # a failed attempt may hold memory that the next one needs

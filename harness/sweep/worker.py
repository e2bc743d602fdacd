"""What a worker does with a job: on the right data, within its time, again where that may help."""

import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.scheduling.jobs import Job
from harness.storage.trial_folder import TrialFolder
from harness.trials.runner import RolloutError, run_trial
from ibc.training.nonfinite import NonFiniteError

ATTEMPTS = 2
ENDED = ("finished", "stopped", "failed")


# These come out the same however often they are tried.
_DETERMINISTIC = (NonFiniteError, RolloutError, ValueError)


@dataclass(frozen=True)
class Setting:
    """What all jobs of a sweep share, in plain values that travel to a worker.

    folder: the sweep's; uri: of the store that it is a copy of, None for a folder that every
    machine shares. data: the path of the demonstrations; fingerprint: what they must be.
    threads: of a trial. seconds: how long one may take.
    """

    folder: str
    data: str
    fingerprint: str
    threads: int
    seconds: float
    uri: str | None = None

    def trial(self, id_: str) -> TrialFolder:
        """Return the folder of a trial."""
        return TrialFolder(Path(self.folder) / "trials" / id_)

    def check_shared(self) -> None:
        """OSError when this machine does not see the sweep that the driver has planned."""
        if self.uri is None and not (Path(self.folder) / "plan.json").is_file():
            raise OSError(
                f"all machines of a cluster must share {self.folder}, {platform.node()} does not; "
                "give --results a shared folder or an object store's URI"
            )


def run_job(
    id_: str, text: str, setting: Setting, report: Callable[[Mapping[str, Any]], None]
) -> None:
    """Run the job `text` (of `Job.dumps`); how it ended is told by the folder of the trial `id_`.

    OSError when the folder, or the store behind it, could not be told. A trial that takes too long
    ends this process.
    """
    if setting.uri is None:
        _run_here(setting.trial(id_), text, setting, report)
        return
    from harness.remote import object_store, trial_sync

    def report_and_push(metrics: Mapping[str, Any]) -> None:
        push()
        report(metrics)

    try:
        with trial_sync.job(setting.uri, Path(setting.folder).name, id_) as (path, push):
            _run_here(TrialFolder(path), text, setting, report_and_push)
    except object_store.RemoteError as error:
        raise OSError(str(error)) from error


def _run_here(
    folder: TrialFolder, text: str, setting: Setting, report: Callable[[Mapping[str, Any]], None]
) -> None:
    try:
        job = Job.loads(text)
    except ValueError as error:
        folder.write_failure(error)
        return
    torch.set_num_threads(setting.threads)
    with folder.time_limit(setting.seconds):
        for _ in range(ATTEMPTS):
            try:
                run_trial(
                    job.config,
                    folder.path,
                    report,
                    demos=setting.data,
                    train_seed=job.train_seed,
                    info=job.info,
                    until=job.until,
                    fingerprint=setting.fingerprint,
                )
            except Exception as error:
                if folder.read_status().get("status") != "failed":
                    folder.write_failure(error)  # it was refused before it began
                if isinstance(error, _DETERMINISTIC):
                    return
            else:
                return
            gc.collect()  # what a failed attempt held may be what the next one lacks

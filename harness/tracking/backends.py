"""The experiment trackers TensorBoard, MLflow and W&B, behind one interface.

Their libraries are optional, and imported only where a tracker was requested.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.core.errors import UserError

Point = tuple[int, dict[str, float]]  # a step and its metrics


@dataclass(frozen=True)
class Trial:
    """The description of a trial; config: every setting by its dotted name."""

    id: str
    facts: Mapping[str, str]
    config: Mapping[str, Any]


class Backend(Protocol):
    """A tracker's library; an exception that it raises ends the tracking, not the sweep."""

    def begin(self, trial: Trial, key: str) -> None:
        """Start the run of this key, or resume it."""

    def points(self, key: str, points: Sequence[Point]) -> None:
        """Add points with increasing steps to a run's curves."""

    def end(self, key: str, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Add the run's results; facts["status"] is finished, failed or stopped."""

    def close(self) -> None:
        """Write everything that is still pending."""


PROJECT = "ibc-harness"
_KEY = "ibc_harness.key"
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # that MLflow takes at once
_MOST_TEXT = 500


class _TensorBoard:
    """Event files, a folder for each trial: `tensorboard --logdir results/<sweep>/tensorboard`."""

    def __init__(self, sweep_dir: Path) -> None:
        self.folder = sweep_dir / "tensorboard"
        self._writers: dict[str, Any] = {}
        self._steps: dict[str, int] = {}

    def begin(self, trial: Trial, key: str) -> None:
        """Open another event file in the trial's folder; the first one holds the config."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self.folder / trial.id
        new = not any(folder.glob("events.*"))
        self._writers[key] = EventFileWriter(str(folder))
        self._steps[key] = 0
        if new:
            self._texts(key, {"config": _table({**trial.facts, **trial.config})})

    def points(self, key: str, points: Sequence[Point]) -> None:
        for step, numbers in points:
            self._scalars(key, step, numbers)
        self._writers[key].flush()

    def end(self, key: str, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Write scores as final/<name> at the last step, and close the file."""
        step = int(scores.get("step", self._steps[key]))
        self._scalars(key, step, {f"final/{name}": value for name, value in scores.items()})
        self._texts(key, facts)
        self._writers.pop(key).close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _scalars(self, key: str, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._steps[key] = step
        self._add(key, Summary(value=values))

    def _texts(self, key: str, texts: Mapping[str, str]) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        for name, text in texts.items():
            self._add(key, text_pb(name, text))

    def _add(self, key: str, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=self._steps[key], summary=summary)
        self._writers[key].add_event(event)


class _MLflow:
    """Runs of an experiment named like the sweep, at MLFLOW_TRACKING_URI or in results/<sweep>."""

    def __init__(self, sweep_dir: Path) -> None:
        # MLflow reads these when it is imported: no telemetry, and local files are allowed.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        from mlflow.tracking import MlflowClient

        where = os.environ.get("MLFLOW_TRACKING_URI") or (sweep_dir / "mlruns").as_uri()
        self._client = MlflowClient(tracking_uri=where)
        found, name = self._client.get_experiment_by_name(sweep_dir.name), sweep_dir.name
        self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._runs: dict[str, str] = {}

    def begin(self, trial: Trial, key: str) -> None:
        from mlflow.entities import Param

        found = self._client.search_runs([self._experiment], f"tags.`{_KEY}` = '{key}'")
        if found:
            self._runs[key] = found[0].info.run_id
            self._client.update_run(self._runs[key], status="RUNNING")
            return
        tags = {_KEY: key, **trial.facts}
        made = self._client.create_run(self._experiment, run_name=trial.id, tags=tags)
        self._runs[key] = made.info.run_id
        params = [Param(name, str(value)[:_MOST_TEXT]) for name, value in trial.config.items()]
        for at in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._runs[key], params=params[at : at + _MOST_PARAMS])

    def points(self, key: str, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step)
            for step, numbers in points
            for name, value in numbers.items()
        ]
        for at in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._runs[key], metrics=metrics[at : at + _MOST_METRICS])

    def end(self, key: str, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Send scores as final/<name>, the facts as tags, and the run's state."""
        from mlflow.entities import RunTag

        run, step = self._runs[key], int(scores.get("step", 0))
        self.points(key, [(step, {f"final/{name}": value for name, value in scores.items()})])
        self._client.log_batch(run, tags=[RunTag(k, v[:_MOST_TEXT]) for k, v in facts.items()])
        ends = {"finished": "FINISHED", "failed": "FAILED"}
        # A stopped trial may be promoted later, so its run is not finished.
        self._client.set_terminated(run, ends.get(facts["status"], "SCHEDULED"))

    def close(self) -> None:
        """Do nothing: every call has been stored when it returns."""


class _WandB:
    """Runs of Weights & Biases, grouped by sweep; offline with WANDB_MODE=offline."""

    def __init__(self, sweep_dir: Path) -> None:
        self._folder = sweep_dir
        self._wandb = _wandb()
        self._runs: dict[str, Any] = {}

    def begin(self, trial: Trial, key: str) -> None:
        settings = self._wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        self._runs[key] = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self._folder.name,
            id=key,
            name=trial.id,
            config={**trial.config, **trial.facts},
            dir=self._folder,
            resume="allow",
            reinit="create_new",
            settings=settings,
        )

    def points(self, key: str, points: Sequence[Point]) -> None:
        for step, numbers in points:
            self._runs[key].log(numbers, step=step)

    def end(self, key: str, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        run = self._runs.pop(key)
        run.summary.update({f"final/{name}": value for name, value in scores.items()} | dict(facts))
        run.finish(exit_code=1 if facts["status"] == "failed" else 0)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._runs.clear()


def _wandb() -> Any:
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when it is imported
    import wandb

    return wandb


def check_wandb() -> None:
    """UserError where wandb would prompt for a key."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return
    if not _wandb().login(prompt=False):
        raise UserError(
            "--tracker wandb needs a key (`wandb login`, or WANDB_API_KEY), or WANDB_MODE=offline"
        )


BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WandB,
}


def _table(content: Mapping[str, Any]) -> str:
    """Return a Markdown table; values cannot end their cells."""
    rows = [
        f"| {name} | {str(value).replace('|', '/')[:_MOST_TEXT]} |"
        for name, value in content.items()
    ]
    return "\n".join(["| name | value |", "|---|---|", *rows])

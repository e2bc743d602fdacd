"""A tracker is told everything once, goes on with its runs, and never harms a sweep; offline."""

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config.trial_config import resolve
from harness.core import files
from harness.core.errors import UserError
from harness.scheduling.jobs import Job
from harness.storage import table_schemas
from harness.tracking import listener
from harness.tracking.listener import OVER, Tracker, check, opened

STEPS = (100, 200, 300)


def curve(step: int) -> dict[str, Any]:
    return {
        "epoch": step // 100,
        "step": step,
        "train_loss": 1.0 / step,
        "val_loss_ratio": float("nan"),
    }


class Sweep:
    """A sweep's folder with trials that train as a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        configs = [resolve({"train.steps": steps}) for steps in (300, 400)]
        info = {"question": "length", "arm": "a | b", "track": "all"}
        self.jobs = [Job(config, 0, "length / a", info) for config in configs]
        for job in self.jobs:
            content = {**job.info, "train_seed": 0, "config": json.loads(job.dumps())["config"]}
            self.write(job, "config.json", content)

    def write(self, job: Job, name: str, content: Any) -> None:
        files.write_json(content, self.folder / "trials" / job.id / name)

    def curves(self, job: Job, steps: Any) -> None:
        rows = [{**curve(step), "config_hash": "a", "train_seed": 0} for step in steps]
        path = self.folder / "trials" / job.id / "curves.parquet"
        table_schemas.write(table_schemas.table("curves", rows), path)

    def status(self, job: Job, status: str) -> dict[str, Any]:
        content: dict[str, Any] = {"status": status, "step": 300, "select_score": 0.75}
        if status == "failed":
            content["error"] = "ValueError: no\x1b[31m"
        self.write(job, "status.json", content)
        self.write(job, "health.json", [{"name": "overfit"}] if status == "finished" else [])
        return content


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield Sweep(tmp_path / "sweep")
    if "wandb" in sys.modules:  # it reads the environment once, whichever test comes first
        sys.modules["wandb"].teardown()


def run_twice(sweep: Sweep, name: str, said: list[str]) -> None:
    """Two runs of a sweep: the first is cut off, the second sees an epoch again and ends both."""
    good, bad = sweep.jobs
    with opened(name, sweep.folder, said.append) as tracker:
        assert tracker is not None
        for job in (good, bad):
            tracker.start(job)
        tracker.epoch(good, curve(100))
        tracker.epoch(bad, curve(100))
    sweep.curves(good, (100, 200))  # the worker was one epoch ahead when the driver went
    with opened(name, sweep.folder, said.append) as tracker:
        assert tracker is not None
        for job in (good, bad):
            tracker.start(job)
        tracker.epoch(good, curve(200))
        tracker.epoch(good, curve(300))
        sweep.curves(good, STEPS)
        tracker.end(good, sweep.status(good, "finished"))
        tracker.end(bad, sweep.status(bad, "failed"))
    with opened(name, sweep.folder, said.append):
        pass  # nothing was missed, nothing is told again


def test_tensorboard_is_told_each_point_once(sweep: Sweep) -> None:
    said: list[str] = []
    run_twice(sweep, "tensorboard", said)
    assert said == []
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    good, bad = sweep.jobs
    for job, steps, status in ((good, STEPS, "finished"), (bad, (100,), "failed")):
        points: list[tuple[str, int, float]] = []
        texts: dict[str, str] = {}
        for path in sorted((sweep.folder / "tensorboard" / job.id).glob("events.*")):
            for event in EventFileLoader(str(path)).Load():
                for value in event.summary.value:
                    if value.metadata.plugin_data.plugin_name == "text":
                        assert value.tag not in texts or value.tag == "status"
                        texts[value.tag] = value.tensor.string_val[0].decode()
                    else:
                        points.append((value.tag, event.step, value.tensor.float_val[0]))
        losses = [(step, value) for tag, step, value in points if tag == "train_loss"]
        assert losses == [(step, pytest.approx(1 / step)) for step in steps]
        assert not [tag for tag, _, value in points if value != value]
        assert ("final/select_score", 300, 0.75) in points
        assert texts["status"] == status
        assert f"| train.steps | {job.config.train.steps} |" in texts["config"]
        assert "| arm | a / b |" in texts["config"]
        assert texts["health"] == ("overfit" if status == "finished" else "ok")
        if status == "failed":
            assert texts["error"] == "ValueError: no\\x1b[31m"


def test_mlflow_is_told_each_point_once(sweep: Sweep) -> None:
    said: list[str] = []
    run_twice(sweep, "mlflow", said)
    assert said == []
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(sweep.folder / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("sweep")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {job.id for job in sweep.jobs}
    good, bad = (runs[job.id] for job in sweep.jobs)
    history = client.get_metric_history(good.info.run_id, "train_loss")
    assert sorted((m.step, m.value) for m in history) == [(s, 1 / s) for s in STEPS]
    assert len(client.get_metric_history(bad.info.run_id, "train_loss")) == 1
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert good.data.metrics["final/select_score"] == 0.75
    assert good.data.params["train.steps"] == "300"
    assert good.data.tags["health"] == "overfit"
    assert bad.data.tags["error"] == "ValueError: no\\x1b[31m"


def log_records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: a LevelDB log, in blocks of 32 KiB behind a header of 7."""
    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        length, kind = struct.unpack_from("<HB", content, at + 4)
        at += 7
        parts += content[at : at + length]
        at += length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
        left = 2**15 - at % 2**15
        at += left if left < 7 else 0


@pytest.mark.slow
def test_wandb_offline_is_told_each_point_once(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, address: Any) -> None:
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "localhost", "::1")
        connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)
    said: list[str] = []
    run_twice(sweep, "wandb", said)
    assert said == []
    from wandb.proto import wandb_internal_pb2

    good = sweep.jobs[0]
    key = json.loads((sweep.folder / "trackers" / "wandb" / f"{good.id}.json").read_text())["key"]
    found, summary, names = [], {}, set()
    for path in sorted((sweep.folder / "wandb").glob(f"offline-run-*/run-{key}.wandb")):
        for data in log_records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                names.add((record.run.run_id, record.run.run_group, record.run.display_name))
            if kind == "history":
                row = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                found.append((row["_step"], row["train_loss"]))
            if kind == "summary":
                for item in record.summary.update:
                    summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    assert names == {(key, "sweep", good.id)}
    assert found == [(step, 1 / step) for step in STEPS]
    assert summary["final/select_score"] == 0.75
    assert summary["status"] == "finished"
    assert summary["health"] == "overfit"


class Memory:
    """A backend that keeps what it is told, and fails when it is to."""

    def __init__(self, fails: str = "") -> None:
        self.told: list[Any] = []
        self.fails = fails

    def _tell(self, *what: Any) -> None:
        if what[0] == self.fails:
            raise ConnectionError("server\nis down")
        self.told.append(what)

    def begin(self, trial: Any, key: str) -> None:
        self._tell("begin", trial.id)

    def points(self, key: str, points: Any) -> None:
        self._tell("points", [step for step, _ in points])

    def end(self, key: str, scores: Any, facts: Any) -> None:
        self._tell("end", facts["status"])

    def close(self) -> None:
        self._tell("close")


def tell(sweep: Sweep, backend: Any, said: list[str], work: Callable[[Tracker], None]) -> None:
    tracker = Tracker(lambda: backend, "tensorboard", sweep.folder, said.append)
    work(tracker)
    tracker.close()


@pytest.mark.parametrize("fails", ["begin", "points", "end", "close"])
def test_a_tracker_that_fails_is_said_once_and_made_up_for_later(sweep: Sweep, fails: str) -> None:
    job, said, failing = sweep.jobs[0], list[str](), Memory(fails)

    def all_of_it(tracker: Tracker) -> None:
        tracker.start(job)
        for step in STEPS:
            tracker.epoch(job, curve(step))
        sweep.curves(job, STEPS)
        tracker.end(job, sweep.status(job, "finished"))
        tracker.start(sweep.jobs[1])

    tell(sweep, failing, said, all_of_it)
    assert len(said) == 1
    assert (
        "--tracker tensorboard failed and is not used any more (ConnectionError: server is"
        in said[0]
    )
    healthy = Memory()
    tell(sweep, healthy, said, lambda tracker: None)
    assert len(said) == 1
    steps = [
        step for what in failing.told + healthy.told if what[0] == "points" for step in what[1]
    ]
    assert steps == list(STEPS)
    ends = [what for what in failing.told + healthy.told if what[0] == "end"]
    assert ends == [("end", "finished")]


def test_trials_that_ended_unheard_are_told_of_at_the_next_start(sweep: Sweep) -> None:
    finished, running = sweep.jobs
    sweep.curves(finished, STEPS)
    sweep.status(finished, "finished")
    sweep.status(running, "running")
    backend = Memory()
    for _ in range(2):
        tell(sweep, backend, [], lambda tracker: None)
    assert backend.told == [
        ("begin", finished.id),
        ("points", list(STEPS)),
        ("end", "finished"),
        ("close",),
        ("close",),
    ]


def test_a_trial_that_ends_before_the_missed_ones_are_told_is_told_once(sweep: Sweep) -> None:
    job, backend, waiting = sweep.jobs[0], Memory(), threading.Event()

    def make() -> Memory:
        assert waiting.wait(60)
        return backend

    tracker = Tracker(make, "tensorboard", sweep.folder, pytest.fail)
    tracker.start(job)
    tracker.epoch(job, curve(100))
    tracker.end(job, sweep.status(job, "finished"))
    waiting.set()
    tracker.close()
    assert backend.told == [("begin", job.id), ("points", [100]), ("end", "finished"), ("close",)]


def test_a_stopped_trial_goes_on_with_its_run(sweep: Sweep) -> None:
    job, backend = sweep.jobs[0], Memory()

    def to(step: int, status: str) -> None:
        def work(tracker: Tracker) -> None:
            tracker.start(job)
            tracker.epoch(job, curve(step))
            tracker.end(job, sweep.status(job, status))

        tell(sweep, backend, [], work)

    to(100, "stopped")
    to(200, "finished")
    told = [what for what in backend.told if what[0] != "close"]
    begin = ("begin", job.id)
    assert told == [
        *(begin, ("points", [100]), ("end", "stopped")),
        *(begin, ("points", [200]), ("end", "finished")),
    ]
    assert "stopped" not in OVER


def test_a_tracker_that_hangs_does_not_hold_the_sweep_up(sweep: Sweep) -> None:
    class Hanging(Memory):
        def begin(self, trial: Any, key: str) -> None:
            time.sleep(20.0)

    said: list[str] = []
    tracker = Tracker(Hanging, "mlflow", sweep.folder, said.append)
    began = time.monotonic()
    tracker.start(sweep.jobs[0])
    for step in STEPS:
        tracker.epoch(sweep.jobs[0], curve(step))
    tracker.close(patience=0.1)
    assert time.monotonic() - began < 15.0
    assert said == ["note: --tracker mlflow was not done 0 s after the sweep"]


def test_no_tracker_by_default(sweep: Sweep) -> None:
    with opened(None, sweep.folder, pytest.fail) as tracker:
        assert tracker is None
    check(None)
    assert not (sweep.folder / "trackers").exists()


def test_what_is_missing_is_known_before_anything_starts(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in listener.BACKENDS:
        check(name)
    with pytest.raises(UserError, match="takes tensorboard, mlflow, wandb, given 'neptune'"):
        check("neptune")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"needs a key .* or WANDB_MODE=offline"):
        check("wandb")
    monkeypatch.setattr(listener.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ibc-harness\[mlflow\]'"):
        check("mlflow")

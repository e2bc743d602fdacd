"""Sends a sweep to an experiment tracker: one run for each trial, from a thread of the driver.

What was sent is recorded in results/<sweep>/trackers/<name>/<trial>.json. What was not, because the
tracker was added late, was down or the driver was killed, is read from the trials' own files. So a
resumed trial keeps its run, and no point is sent twice. A tracker that fails is reported once, and
the sweep goes on.
"""

import importlib.util
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness.config.trial_config import to_dict
from harness.core import files
from harness.core.errors import UserError
from harness.core.text import one_line
from harness.scheduling.jobs import Job
from harness.storage import table_schemas
from harness.storage.table_schemas import leaves
from harness.storage.tables import ISSUE_SEPARATOR
from harness.storage.trial_folder import TrialFolder
from harness.tracking.backends import BACKENDS, Backend, Point, Trial, check_wandb

FOLDER = "trackers"
PATIENCE = 60.0  # seconds that a sweep waits at its end for the tracker
HURRY = 5.0  # the same after an interruption
OVER = ("finished", "failed")


def check(name: str | None) -> None:
    """UserError unless the tracker is known, installed and ready; None is no tracker."""
    if name is None:
        return
    if name not in BACKENDS:
        raise UserError(f"--tracker takes {', '.join(BACKENDS)}, given {name[:60]!r}")
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"--tracker {name} needs an extra that is not installed: pip install "
            f"'ibc-harness[{name}]'"
        )
    if name == "wandb":
        check_wandb()


@contextmanager
def opened(
    name: str | None, sweep_dir: Path, say: Callable[[str], None]
) -> "Iterator[Tracker | None]":
    """Yield a listener that sends a sweep's jobs to the tracker, None without a name.

    say: called with one line if the tracker fails.
    """
    if name is None:
        yield None
        return
    tracker = Tracker(lambda: BACKENDS[name](sweep_dir), name, sweep_dir, say)
    try:
        yield tracker
    except BaseException:
        tracker.close(HURRY)
        raise
    tracker.close(PATIENCE)


class Tracker:
    """Listens to jobs (start, epoch, end) and sends them from its own thread, without waiting.

    make: called in the thread, because the import of a tracker takes seconds.
    """

    def __init__(
        self,
        make: Callable[[], Backend],
        name: str,
        sweep_dir: Path,
        say: Callable[[str], None],
    ) -> None:
        self.name, self.sweep_dir, self._say = name, sweep_dir, say
        self._queue: SimpleQueue[Callable[[Backend], None] | None] = SimpleQueue()
        self._failed = False
        self._begun: set[str] = set()  # in this session
        self._thread = threading.Thread(
            target=self._work, args=(make,), name=f"tracker {name}", daemon=True
        )
        self._queue.put(self._send_missed)
        self._thread.start()

    def start(self, job: Job) -> None:
        """A trial starts or restarts."""
        content = {**job.info, "train_seed": job.train_seed, "config": to_dict(job.config)}
        trial = _trial(job.id, content)
        self._begun.add(job.id)
        self._put(lambda backend: self._begin(backend, trial))

    def epoch(self, job: Job, metrics: Mapping[str, Any]) -> None:
        """An epoch has ended; points that were sent before are left out."""
        point = _point(metrics)
        self._put(lambda backend: self._points(backend, job.id, [point]))

    def end(self, job: Job, status: Mapping[str, Any]) -> None:
        """A trial has ended, or a search has stopped it for now."""
        copy = dict(status)
        self._put(lambda backend: self._end(backend, job.id, copy))

    def close(self, patience: float = PATIENCE) -> None:
        """Wait for a limited time until everything is sent."""
        self._queue.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._say(f"note: --tracker {self.name} was not done {patience:.0f} s after the sweep")

    def _put(self, work: Callable[[Backend], None]) -> None:
        if not self._failed:
            self._queue.put(work)

    def _work(self, make: Callable[[], Backend]) -> None:
        try:
            backend = make()
            while (work := self._queue.get()) is not None:
                work(backend)
            backend.close()
        except Exception as error:
            self._failed = True
            what = one_line(f"{type(error).__name__}: {error}")[:200]
            self._say(
                f"note: --tracker {self.name} failed and is not used any more ({what}); the "
                "sweep is not affected, and its next run sends what was missed"
            )

    def _send_missed(self, backend: Backend) -> None:
        """Send trials that ended without the tracker, from their files."""
        for path in sorted(self.sweep_dir.glob("trials/*/config.json")):
            folder, id_ = TrialFolder(path.parent), path.parent.name
            status = folder.read_status()
            over = status.get("status")
            if id_ in self._begun:
                continue  # its end is sent by `end`
            if over in OVER and self._state(id_).get("over") != over:
                self._begin(backend, _trial(id_, folder.read_config()))
                self._end(backend, id_, status)

    def _begin(self, backend: Backend, trial: Trial) -> None:
        state = self._state(trial.id)
        if "key" not in state:
            state = {"key": secrets.token_hex(8), "step": -1}
        # Written before the run is created, so that a kill in between does not create a second one.
        self._write_state(trial.id, {**state, "over": None})
        backend.begin(trial, state["key"])
        self._points(backend, trial.id, self._curves(trial.id))

    def _points(self, backend: Backend, id_: str, points: Sequence[Point]) -> None:
        state = self._state(id_)
        new = [point for point in points if point[0] > state["step"]]
        if not new:
            return
        # Written before they are sent: a kill in between loses them, instead of doubling them.
        self._write_state(id_, {**state, "step": new[-1][0]})
        try:
            backend.points(state["key"], new)
        except Exception:
            self._write_state(id_, state)
            raise

    def _end(self, backend: Backend, id_: str, status: Mapping[str, Any]) -> None:
        self._points(backend, id_, self._curves(id_))
        state, facts = self._state(id_), {"status": str(status.get("status"))}
        findings = files.read_json_or(self.sweep_dir / "trials" / id_ / "health.json")
        if findings is not None:
            names = sorted({str(finding["name"]) for finding in findings})
            facts["health"] = ISSUE_SEPARATOR.join(names) or "ok"
        if status.get("error"):
            facts["error"] = one_line(status["error"])
        backend.end(state["key"], _numbers(status), facts)
        self._write_state(id_, {**state, "over": status.get("status")})

    def _curves(self, id_: str) -> list[Point]:
        """Return the trial's curves from its own file, [] where there is none yet."""
        path = self.sweep_dir / "trials" / id_ / "curves.parquet"
        table = files.read_or(None, table_schemas.read_file, path, "curves")
        rows = [] if table is None else table.to_pylist()
        return sorted((_point(row) for row in rows), key=lambda point: point[0])

    def _path(self, id_: str) -> Path:
        return self.sweep_dir / FOLDER / self.name / f"{id_}.json"

    def _state(self, id_: str) -> dict[str, Any]:
        state = files.read_json_or(self._path(id_))
        return state if isinstance(state, dict) else {}

    def _write_state(self, id_: str, state: Mapping[str, Any]) -> None:
        files.write_json(dict(state), self._path(id_))


def _trial(id_: str, content: Mapping[str, Any]) -> Trial:
    names = ("question", "arm", "track", "train_seed")
    facts = {name: str(content[name]) for name in names if content.get(name) is not None}
    return Trial(id_, facts, leaves(content["config"]))


def _point(metrics: Mapping[str, Any]) -> Point:
    numbers = _numbers(metrics)
    for name in ("step", "steps", "train_seed"):
        numbers.pop(name, None)
    return int(metrics["step"]), numbers


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers: trackers reject others."""
    return {
        name: float(value)
        for name, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }

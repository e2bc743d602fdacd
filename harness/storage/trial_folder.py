"""The folder of one trial: its config, status, measurements and checkpoints."""

import faulthandler
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from harness.config.trial_config import TrialConfig, from_stored
from harness.core import errors, files, processes
from harness.core.errors import UserError
from harness.core.text import one_line
from harness.storage import checkpoints, json_schemas, table_schemas

SCHEMA = 1
MAX_ERROR = 400
LOCK_SECONDS = 60.0


class TrialFolder:
    """Reads and writes results/<sweep>/trials/<hash>-s<seed>/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._stacks = path / ".stacks.txt"
        self.state: dict[str, Any] = {}

    @contextmanager
    def lock(self, patience: float = LOCK_SECONDS) -> Iterator[None]:
        """Lock the folder for this process; UserError if another holds it after `patience` seconds.

        The wait is for workers that live a moment longer than their killed driver.
        """
        with files.lock(self.path / ".lock", wait=patience) as held:
            if not held:
                raise UserError(f"a trial is run by one process at a time, {self.path} is in use")
            files.remove_temporaries(self.path)
            checkpoints.remove_old(self.checkpoints)
            yield

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """End this process if the body takes longer than this many seconds.

        The stacks of its threads are written to a file, see `time_out`. A thread of faulthandler
        does this without Python's lock, so code that never releases the lock is ended too.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._stacks.open("w") as file:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        self._stacks.unlink(missing_ok=True)

    def time_out(self) -> str:
        """Return the stacks of the process that `time_limit` ended, "" if there is none."""
        try:
            stacks = self._stacks.read_text("utf-8", "backslashreplace")
        except FileNotFoundError:
            return ""
        self._stacks.unlink(missing_ok=True)
        return stacks

    def read_status(self) -> dict[str, Any]:
        """Return status.json, {} if it is absent or cannot be used (`files.read_or`)."""
        return dict(json_schemas.read_or(self.path / "status.json"))

    def read_config(self) -> dict[str, Any]:
        """Return config.json, {} if it is absent or cannot be used (`files.read_or`)."""
        return dict(json_schemas.read_or(self.path / "config.json"))

    def lost(self, status: Mapping[str, Any]) -> list[int | None]:
        """Return the steps that a finished trial must go back to, as a file is lost; [] if none is.

        This lists what a finished trial consists of. A file that is missing or cannot be read is
        made again at a step: the last one, or the one that a selection belongs to.
        """
        last, best, table = status.get("step"), status.get("best_step"), table_schemas.read_file
        config = self.read_config().get("config")
        parts: list[tuple[int | None, Path, Callable[..., Any], tuple[str, ...]]] = [
            (last, self.path / "config.json", json_schemas.read, ()),
            (last, self.path / "health.json", json_schemas.read, ()),
            (last, self.path / "curves.parquet", table, ("curves",)),
            (last if best is None else best, self.checkpoints / "best", checkpoints.check, ()),
        ]
        steps = set() if best is None else {best}
        if config is not None:
            steps |= set(selection_steps(from_stored(config)))
        parts += [(step, self._select_path(step), table, ("episodes",)) for step in sorted(steps)]
        return [
            step
            for step, path, read, more in parts
            if files.read_or(None, read, path, *more) is None
        ]

    def versions(self) -> Iterator[tuple[int, int]]:
        """Yield size and time of every file but temporary ones; they differ when one changes."""
        for path in sorted(self.path.rglob("[!.]*")):
            status = path.lstat()
            yield status.st_size, status.st_mtime_ns

    def claim(self, described: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
        """Write config.json and return the status of an earlier run, {} without one.

        UserError when the folder holds another trial, or this one trained on other data.
        """
        earlier = self.read_config()
        for key in ("config_hash", "train_seed"):
            if earlier.get(key, described[key]) != described[key]:
                raise UserError(
                    f"{self.path} must be new or hold the trial of {key} {described[key]}, it "
                    f"holds that of {earlier[key]}"
                )
        status = self.read_status()
        before = status.get("dataset_fingerprint", fingerprint)
        if before != fingerprint:
            raise UserError(
                f"{self.path} must go on with the data it began with, fingerprint {before[:12]}, "
                f"given {fingerprint[:12]}"
            )
        files.write_json({"schema": SCHEMA, **described}, self.path / "config.json")
        return status

    def write_status(self, **changes: Any) -> None:
        """Write the status with these changes."""
        self.state.update(changes, schema=SCHEMA, updated=time.time())
        files.write_json(self.state, self.path / "status.json")

    def write_failure(self, error: BaseException, details: str = "") -> None:
        """Write the traceback and details to error.txt, and the status "failed" with one line."""
        text = "".join(traceback.format_exception(error)) + details
        with files.atomic(self.path / "error.txt") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        line = one_line(f"{type(error).__name__}: {error}").removesuffix(":")[:MAX_ERROR]
        lacked_room = errors.lacked_room(error)
        if processes.ran_out(error):
            line = f"out of memory: {line}; {processes.HINT}"
        elif lacked_room:
            line = f"{line}; {errors.FREE_SPACE}"
        if not self.state:
            self.state = self.read_status()
        self.write_status(status="failed", error=line, lacked_room=lacked_room)

    def write_success(self, status: str = "finished") -> None:
        """Write the status "finished", or "stopped" at a pause, and remove an earlier error."""
        (self.path / "error.txt").unlink(missing_ok=True)
        ended = {"finished": time.time()} if status == "finished" else {}
        self.write_status(status=status, error=None, **ended)

    def write_health(self, findings: Iterable[Mapping[str, Any]]) -> None:
        """Write the first finding of each name."""
        first: dict[str, Mapping[str, Any]] = {}
        for finding in findings:
            first.setdefault(finding["name"], finding)
        files.write_json(list(first.values()), self.path / "health.json")

    def write_curves(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the learning curves, one row per epoch."""
        table_schemas.write(table_schemas.table("curves", rows), self.path / "curves.parquet")

    def selected(self, step: int, policy_hash: str) -> list[dict[str, Any]] | None:
        """Return the stored selection episodes of a step and its weights, None without them."""
        path = self._select_path(step)
        found = files.read_or(None, table_schemas.read_file, path, "episodes")
        if found is None:
            return None
        rows: list[dict[str, Any]] = found.to_pylist()
        return rows if {row["policy_hash"] for row in rows} == {policy_hash} else None

    def write_selected(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store the selection episodes of a step."""
        table_schemas.write(table_schemas.table("episodes", rows), self._select_path(step))

    def select_scores(self) -> dict[int, float]:
        """Return the mean score of the selection episodes by step."""
        found = {}
        for path in sorted((self.path / "episodes").glob("select-*.parquet")):
            rows = files.read_or(None, table_schemas.read_file, path, "episodes")
            if rows is not None and rows.num_rows:
                found[int(path.stem.removeprefix("select-"))] = float(
                    pc.mean(rows["score"]).as_py()
                )
        return found

    def checkpoint(self, name: str) -> Path | None:
        """Return the path of the whole checkpoint of this name, None without one."""
        return checkpoints.find(self.checkpoints, name)

    def _select_path(self, step: int) -> Path:
        return self.path / "episodes" / f"select-{step:08d}.parquet"


def selection_steps(config: TrialConfig) -> list[int]:
    """Return the steps at which a trial selects: at ends of epochs, and at the last one."""
    every, last, epoch = config.select.every, config.train.steps, config.train.epoch_steps
    return [
        step
        for step in (*range(epoch, last, epoch), last)
        if step == last or (every > 0 and step // every > (step - epoch) // every)
    ]

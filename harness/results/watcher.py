"""A running sweep's state, read from its files: nothing is locked or written."""

import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.trial_config import trial_id
from harness.core import files
from harness.storage import json_schemas, table_schemas

_HOLDER = re.compile(r"process (\d{1,9}) on (.+)")


@dataclass(frozen=True)
class TrialState:
    """A trial; loss: by epoch; rate: samples/s; left, seconds: until and at its end, if known."""

    trial: str
    name: str
    status: str
    step: int = 0
    steps: int | None = None
    loss: tuple[float, ...] = ()
    rate: float | None = None
    left: float | None = None
    seconds: float = 0.0
    score: float | None = None
    error: str | None = None
    updated: float = 0.0


@dataclass(frozen=True)
class State:
    """A sweep; left: seconds for all trials, None if unknown; alive: whether a process runs it."""

    sweep: str
    trials: tuple[TrialState, ...]
    left: float | None
    alive: bool

    @property
    def counts(self) -> Counter[str]:
        """How many trials have each status."""
        return Counter(trial.status for trial in self.trials)

    def having(self, status: str) -> list[TrialState]:
        """Return the trials that have a status."""
        return [trial for trial in self.trials if trial.status == status]


class Watcher:
    """Reads a sweep's folder repeatedly; a file that has not changed is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: dict[Path, tuple[tuple[int, int], Any]] = {}

    def look(self) -> State:
        """Return the sweep's state now; what cannot be read is left out."""
        alive = is_run(self.folder)
        names = {}
        for entry in self._content(self.folder / "plan.json", {}).get("trials", []):
            parts = (entry.get("question"), entry.get("arm"), f"seed {entry['train_seed']}")
            id_ = trial_id(entry["config_hash"], entry["train_seed"])
            names[id_] = " / ".join(part for part in parts if part)
        # A search adds trials after the plan was written.
        found = files.entries(self.folder / "trials")
        names = {id_: names.get(id_, id_) for id_ in [*names, *found]}
        trials = [self._trial(id_, name) for id_, name in names.items()]
        return State(self.folder.name, tuple(trials), _left(trials), alive)

    def _trial(self, trial: str, name: str) -> TrialState:
        folder = self.folder / "trials" / trial
        found = self._content(folder / "status.json", {})
        status, steps, step = found.get("status", "pending"), found.get("steps"), found.get("step")
        seconds, loss, left = found.get("train_seconds"), (), None
        if status == "running":
            loss = self._content(folder / "curves.parquet", ())
            if steps and seconds is not None and step:
                left = max(0.0, (steps - step) * seconds / step)
        return TrialState(
            trial,
            name,
            status,
            step or 0,
            steps,
            loss,
            found.get("samples_per_second"),
            left,
            (seconds or 0.0) + (found.get("select_seconds") or 0.0),
            found.get("select_score"),
            found.get("error") if status == "failed" else None,
            found.get("updated") or 0.0,
        )

    def _content(self, path: Path, default: Any) -> Any:
        try:
            facts = path.lstat()
            version = facts.st_mtime_ns, facts.st_size
            if path not in self._kept or self._kept[path][0] != version:
                self._kept[path] = version, _read(path)
            return self._kept[path][1]
        except FileNotFoundError:
            return default
        except (OSError, ValueError, MemoryError) as error:
            files.leave_out(path, error)
            return default


def _read(path: Path) -> Any:
    """Return a JSON file, or the losses of curves."""
    if path.suffix == ".json":
        return json_schemas.read(path)
    losses = table_schemas.read_file(path, "curves")["train_loss"]
    return tuple(losses.drop_null().to_pylist())


def _left(trials: Sequence[TrialState]) -> float | None:
    """Return seconds for all trials left; pending ones take the mean time of finished ones."""
    took = [trial.seconds for trial in trials if trial.status == "finished"]
    pending = sum(trial.status == "pending" for trial in trials)
    running = [trial.left for trial in trials if trial.status == "running"]
    known = [left for left in running if left is not None]
    if not running or len(known) < len(running) or (pending and not took):
        return None
    each = sum(took) / len(took) if took else 0.0
    return (sum(known) + pending * each) / len(running)


def is_run(folder: Path) -> bool:
    """Whether a process runs the sweep: its lock names one that exists.

    A process on another machine cannot be checked and counts as running.
    """
    try:
        text = files.read_bytes(folder / ".lock", 300).decode(errors="replace")
    except (OSError, ValueError):
        return False
    holder = _HOLDER.match(text)
    if holder is None:
        return False
    if holder[2].strip() != platform.node():
        return True
    try:
        os.kill(int(holder[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

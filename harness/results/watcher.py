"""A running sweep's state, read from its files: nothing is locked or written."""

import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.trial_config import trial_id
from harness.core import files
from harness.storage import table_schemas

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
        """Return the sweep's state now; files that are missing or truncated are ignored."""
        alive = is_run(self.folder)
        entries = self._json(self.folder / "plan.json").get("trials")
        names = {}
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict):
                seed = entry.get("train_seed")
                parts = (entry.get("question"), entry.get("arm"), f"seed {seed}")
                name = " / ".join(str(part) for part in parts if part)
                names[trial_id(str(entry.get("config_hash")), seed or 0)] = name
        trials = [
            self._trial(trial, names.get(trial, trial)) for trial in [*names, *self._more(names)]
        ]
        return State(self.folder.name, tuple(trials), _left(trials), alive)

    def _more(self, planned: Mapping[str, str]) -> list[str]:
        """Return trials that a search has added since the plan was written."""
        folder = self.folder / "trials"
        try:
            entries = [path for path in folder.iterdir() if path.name not in planned]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path.name for path in entries if (path / "config.json").is_file())

    def _trial(self, trial: str, name: str) -> TrialState:
        folder = self.folder / "trials" / trial
        found = self._json(folder / "status.json")
        status = str(found.get("status", "pending"))
        steps, step = found.get("steps"), _number(found, "step") or 0.0
        seconds, loss, left = _number(found, "train_seconds"), (), None
        if status == "running":
            loss = self._read(folder / "curves.parquet", _losses) or ()
            if isinstance(steps, int) and seconds is not None and step > 0:
                left = max(0.0, (steps - step) * seconds / step)
        return TrialState(
            trial,
            name,
            status,
            int(step),
            steps if isinstance(steps, int) else None,
            loss,
            _number(found, "samples_per_second"),
            left,
            (seconds or 0.0) + (_number(found, "select_seconds") or 0.0),
            _number(found, "select_score"),
            str(found.get("error")) if status == "failed" else None,
            _number(found, "updated") or 0.0,
        )

    def _json(self, path: Path) -> Mapping[str, Any]:
        content = self._read(path, files.read_json)
        return content if isinstance(content, dict) else {}

    def _read(self, path: Path, reader: Any) -> Any:
        try:
            facts = path.stat()
            key = facts.st_mtime_ns, facts.st_size
            kept = self._kept.get(path)
            if kept is None or kept[0] != key:
                self._kept[path] = kept = key, reader(path)
            return kept[1]
        except (OSError, ValueError):  # removed, truncated or no such file
            return None


def _losses(path: Path) -> tuple[float, ...]:
    content = table_schemas.read_file(path, "curves")
    return tuple(value for value in content["train_loss"].to_pylist() if value is not None)


def _number(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    return float(value) if isinstance(value, int | float) else None


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
        text = (folder / ".lock").read_text("utf-8", "replace")[:300]
    except OSError:
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
    except (PermissionError, OverflowError):
        return True
    return True

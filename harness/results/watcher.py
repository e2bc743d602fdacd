"""A running sweep's state, read from its files: nothing is locked or written."""

import os
import platform
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.config.trial_config import trial_id
from harness.core import files
from harness.storage import table_schemas

_HOLDER = re.compile(r"process (\d{1,9}) on (.+)")
MAX_ERRORS = 3


@dataclass(frozen=True)
class Running:
    """A running trial; loss: by epoch; rate: samples/s; left: seconds, None if unknown."""

    trial: str
    name: str
    step: int
    steps: int | None
    loss: tuple[float, ...]
    rate: float | None
    left: float | None


@dataclass(frozen=True)
class State:
    """A sweep's state.

    statuses, names, scores: by trial id; errors: (id, message), the newest first; left: seconds
    for all trials, None if unknown; alive: whether a process runs it.
    """

    sweep: str
    statuses: Mapping[str, str]
    names: Mapping[str, str]
    scores: Mapping[str, float]
    running: tuple[Running, ...]
    errors: tuple[tuple[str, str], ...]
    left: float | None
    alive: bool

    @property
    def counts(self) -> Counter[str]:
        """How many trials have each status."""
        return Counter(self.statuses.values())


class Watcher:
    """Reads a sweep's folder repeatedly; a file that has not changed is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: dict[Path, tuple[tuple[int, int], Any]] = {}

    def look(self) -> State:
        """Return the sweep's state now; files that are missing or truncated are ignored."""
        alive = is_run(self.folder)
        plan = self._json(self.folder / "plan.json")
        names = {}
        for entry in _list(plan, "trials"):
            name = trial_id(str(entry.get("config_hash")), entry.get("train_seed") or 0)
            parts = (entry.get("question"), entry.get("arm"), f"seed {entry.get('train_seed')}")
            names[name] = " / ".join(str(part) for part in parts if part)
        found = {name: self._status(name) for name in [*names, *self._others(names)]}
        statuses = {name: str(status.get("status", "pending")) for name, status in found.items()}
        running = tuple(
            self._running(name, names.get(name, name), found[name])
            for name, status in statuses.items()
            if status == "running"
        )
        failed = sorted(
            (name for name, status in statuses.items() if status == "failed"),
            key=lambda name: -_number(found[name].get("updated"), 0.0),
        )
        scores = {
            name: float(status["select_score"])
            for name, status in found.items()
            if isinstance(status.get("select_score"), int | float)
        }
        return State(
            self.folder.name,
            statuses,
            names,
            scores,
            running,
            tuple((name, str(found[name].get("error"))) for name in failed[:MAX_ERRORS]),
            _left(statuses, found, running),
            alive,
        )

    def _others(self, planned: Mapping[str, str]) -> list[str]:
        """Return trials that a search has added since the plan was written."""
        folder = self.folder / "trials"
        try:
            entries = [path for path in folder.iterdir() if path.name not in planned]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path.name for path in entries if (path / "config.json").is_file())

    def _status(self, name: str) -> Mapping[str, Any]:
        content = self._json(self.folder / "trials" / name / "status.json")
        return content if isinstance(content, dict) else {}

    def _running(self, trial: str, name: str, status: Mapping[str, Any]) -> Running:
        curves = self._read(self.folder / "trials" / trial / "curves.parquet", _curves)
        losses: list[float] = [] if curves is None else curves
        step, steps = _number(status.get("step"), 0.0), status.get("steps")
        seconds = status.get("train_seconds")
        left = None
        if isinstance(steps, int) and isinstance(seconds, int | float) and step > 0:
            left = max(0.0, (steps - step) * seconds / step)
        rate = status.get("samples_per_second")
        return Running(
            trial,
            name,
            int(step),
            steps if isinstance(steps, int) else None,
            tuple(losses),
            float(rate) if isinstance(rate, int | float) else None,
            left,
        )

    def _json(self, path: Path) -> Any:
        return self._read(path, files.read_json) or {}

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


def _curves(path: Path) -> list[float]:
    content: pa.Table = table_schemas.read_file(path, "curves")
    return [value for value in content["train_loss"].to_pylist() if value is not None]


def _list(plan: Any, key: str) -> list[dict[str, Any]]:
    entries = plan.get(key) if isinstance(plan, dict) else None
    return [entry for entry in entries or [] if isinstance(entry, dict)]


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else otherwise


def _left(
    statuses: Mapping[str, str],
    found: Mapping[str, Mapping[str, Any]],
    running: tuple[Running, ...],
) -> float | None:
    """Return seconds for all trials left; pending ones take the mean time of finished ones."""
    took = [
        _number(found[name].get("train_seconds"), 0.0)
        + _number(found[name].get("select_seconds"), 0.0)
        for name, status in statuses.items()
        if status == "finished"
    ]
    waiting = sum(status == "pending" for status in statuses.values())
    known = [trial.left for trial in running if trial.left is not None]
    if not running or len(known) < len(running) or (waiting and not took):
        return None
    each = sum(took) / len(took) if took else 0.0
    return (sum(known) + waiting * each) / len(running)


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

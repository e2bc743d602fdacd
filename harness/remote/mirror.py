"""Results on an object store: a local mirror for all reads and writes, and copying between both.

Files in the mirror are written atomically and locked as in any results folder. A trial is copied
to the store in the order config, last checkpoint, episodes, best checkpoint, curves, status: a
reader never sees a status before the files it refers to. A checkpoint is copied under the hash of
its files, and becomes visible by one object that names them.

    <uri>/<sweep>/plan.json, trials/<trial>/{config,status,health}.json, curves.parquet, episodes/
    <uri>/<sweep>/trials/<trial>/checkpoints/{last,best}.json, {last,best}-<hash>/<file>
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from harness.core import files
from harness.core.errors import UserError
from harness.core.paths import cache_folder, check_name
from harness.remote.checkpoint_sync import RemoteCheckpoints
from harness.remote.lock import held as hold_sweep
from harness.remote.object_store import Entry, Objects, RemoteError
from harness.storage import checkpoints
from harness.storage.trial_folder import TrialFolder

AT_ONCE = 16
MAX_SMALL_BYTES = 256 * 2**20
_CHECKPOINTS = ("last", "best")
_OF_TRIAL = ("config.json", "status.json", "health.json", "error.txt", "curves.parquet")
_ORDER = ("pending", "running", "stopped", "failed", "finished")
_DERIVED = ("tables", "pictures", "videos")
_EVALUATIONS = "evaluations"


class Mirror:
    """A results folder on a store; `path` is its local copy, shared by all processes here."""

    def __init__(self, uri: str, *, path: Path | None = None, objects: Objects | None = None):
        self.uri = uri.rstrip("/")
        self.objects = Objects(uri) if objects is None else objects
        if path is None:
            name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.objects.root).strip("-.")[-40:]
            digest = hashlib.sha256(self.uri.encode()).hexdigest()[:12]
            path = cache_folder() / "remote" / f"{name}-{digest}"
        self.path = path
        self._known: dict[
            str, tuple[int, int]
        ] = {}  # sizes and times of the mirror's files that the store has
        self.checkpoints = RemoteCheckpoints(self.objects, path)

    def check(self) -> None:
        """RemoteError when the store cannot be reached or written."""
        key = f".probe-{os.getpid()}-{time.time_ns():x}"
        with self._without_retries():
            self.objects.write(key, b"")
            self.objects.delete(key)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Best effort: try each item once, ignore an unreachable store."""
        with self._without_retries(), suppress(RemoteError):
            yield

    @contextmanager
    def _without_retries(self) -> Iterator[None]:
        waits, self.objects.waits = self.objects.waits, ()
        try:
            yield
        finally:
            self.objects.waits = waits

    def lock(self, sweep: str) -> AbstractContextManager[None]:
        """Hold the sweep's lock on the store, see harness/remote/lock.py."""
        return hold_sweep(self.objects, sweep)

    def pull(self, sweep: str | None = None, *, held: bool = False) -> None:
        """Copy the small files of a sweep, or of all sweeps, into the mirror; no weights.

        A trial that is further in the mirror stays. A sweep that the store no longer has is set
        aside and never copied back. held: the caller holds the sweep's local and remote locks, so
        trials that are further in the mirror are copied to the store.
        """
        entries = self.objects.list(check_name(sweep) if sweep else "")
        of_sweep: dict[str, dict[str, Entry]] = {}
        for key, entry in entries.items():
            name, _, rest = key.partition("/")
            if rest:
                of_sweep.setdefault(name, {})[rest] = entry
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the mirror of {self.uri} must be writable: {error}") from error
        for name in [sweep] if sweep else [path.name for path in self.path.iterdir()]:
            if "plan.json" not in of_sweep.get(name, {}):
                self._set_aside(self.path / name, held)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for name, found in of_sweep.items():
                if name == _EVALUATIONS:
                    self._bring(pool, [e for e in found.values() if e.key.count("/") <= 3])
                elif "plan.json" in found:
                    self._pull_sweep(pool, name, found, held)

    def pull_trial(self, trial_dir: Path, *, whole: bool = False) -> None:
        """Copy one trial into the mirror; `whole`: with the weights of its checkpoints."""
        prefix = self._key(trial_dir)
        self._pull_trial(trial_dir, self.objects.list(prefix))
        if whole:
            for name in _CHECKPOINTS:
                self.checkpoints.pull(trial_dir / "checkpoints", name)

    def fetch(self, trial_dir: Path) -> None:
        """Copy the weights of a trial's best checkpoint into the mirror, if they are not there."""
        self.checkpoints.pull(trial_dir / "checkpoints", "best")

    def push_trial(self, trial_dir: Path) -> None:
        """Copy a trial's changed files to the store, its status last; for its only writer."""
        self._push(trial_dir / "config.json")
        self.checkpoints.push(trial_dir / "checkpoints", "last")
        self.push_episodes(trial_dir / "episodes")
        self.checkpoints.push(trial_dir / "checkpoints", "best")
        for name in ("curves.parquet", "health.json", "error.txt"):
            self._push(trial_dir / name)
        self._push(trial_dir / "status.json")
        if TrialFolder(trial_dir).read_status().get("status") == "finished":
            self.objects.delete(self._key(trial_dir / "error.txt"))  # of an earlier attempt

    def push_episodes(self, folder: Path, removed: Iterable[Path] = ()) -> None:
        """Copy new files of an episodes' folder to the store, then remove those they replace."""
        for path in sorted(folder.glob("*.parquet")):
            self._push(path)
        if folder.parent.parent.name == _EVALUATIONS:
            self._push(folder.parent / "evaluation.json")
        for path in removed:
            self.objects.delete(self._key(path))

    def push_plan(self, sweep: str) -> None:
        """Copy the driver's own files to the store: plan.json and the order of a search."""
        for path in sorted((self.path / sweep).glob("*.json")):
            if not path.name.startswith("."):
                self._push(path)

    def push_derived(self, sweep: str) -> None:
        """Copy derived files to the store: tables, figures, videos, answers, the page."""
        folder = self.path / sweep
        paths = [path for path in folder.glob("*") if path.suffix in (".json", ".md", ".html")]
        paths += [path for name in _DERIVED for path in (folder / name).rglob("*")]
        for path in sorted(paths):
            if path.is_file() and not path.name.startswith("."):
                self._push(path)

    def _pull_sweep(
        self, pool: ThreadPoolExecutor, sweep: str, found: dict[str, Entry], held: bool
    ) -> None:
        folder = self.path / sweep
        with files.lock(folder / ".lock") as free:
            if free or held:  # otherwise a sweep runs here, and its local files are newer
                self._bring(pool, [e for name, e in found.items() if _is_top(name)])
        trials: dict[str, dict[str, Entry]] = {}
        for name, entry in found.items():
            parts = PurePosixPath(name).parts
            if parts[0] == "trials" and len(parts) > 2:
                trials.setdefault(parts[1], {})[entry.key] = entry
        here = {path.parent.name for path in folder.glob("trials/*/status.json")} if held else set()
        pulled = {
            id_: pool.submit(self._pull_trial, folder / "trials" / id_, trials.get(id_, {}))
            for id_ in sorted(trials.keys() | here)
        }
        further = [id_ for id_, each in pulled.items() if each.result()]
        for id_ in further if held else ():
            self.push_trial(folder / "trials" / id_)

    def _pull_trial(self, trial_dir: Path, entries: Mapping[str, Entry]) -> bool:
        """Copy a trial's small files into the mirror; return whether the mirror's is further."""
        prefix = self._key(trial_dir)
        status_key = f"{prefix}/status.json"
        # Read first and written last, so all files read in between are at least as new.
        entry = entries.get(status_key)
        local = TrialFolder(trial_dir).read_status()
        if entry is not None and local and self._is_same(entry):
            content, status = b"", local
        else:
            content, status = self._read_status(status_key)
        newer = rank(status) > rank(local)
        with files.lock(trial_dir / ".lock") as free:
            for key, each in entries.items():
                name = key.removeprefix(f"{prefix}/")
                path = self.path / key
                if name.startswith("episodes/") and name.endswith(".parquet"):
                    if not path.exists() or (newer and free and not self._is_same(each)):
                        self._bring_one(each)
                elif name in _OF_TRIAL and name != "status.json":
                    if free and (newer or not path.exists()):
                        self._bring_one(each)
                elif name == "checkpoints/best.json" and free:
                    weights = trial_dir / "checkpoints" / "best" / checkpoints.WEIGHTS
                    if newer or not weights.parent.exists():
                        self.checkpoints.describe(trial_dir / "checkpoints", "best")
            if newer and free:
                for name in ("error.txt", "health.json"):
                    if f"{prefix}/{name}" not in entries:
                        (trial_dir / name).unlink(missing_ok=True)
                self._put(status_key, content, entry)
        return rank(local) > rank(status)

    def _read_status(self, key: str) -> tuple[bytes, dict[str, Any]]:
        try:
            content = self.objects.read(key, MAX_SMALL_BYTES)
            status = json.loads(content)
        except FileNotFoundError:
            return b"", {}
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            return b"", {}  # not a whole status: the same as none
        return content, status if isinstance(status, dict) else {}

    def _bring(self, pool: ThreadPoolExecutor, entries: Iterable[Entry]) -> None:
        wanted = [entry for entry in entries if not self._is_same(entry)]
        list(pool.map(self._bring_one, wanted))

    def _bring_one(self, entry: Entry) -> None:
        try:
            content = self.objects.read(entry.key, MAX_SMALL_BYTES)
        except FileNotFoundError:
            return  # merged into another file since it was listed
        self._put(entry.key, content, entry)

    def _put(self, key: str, content: bytes, entry: Entry | None) -> None:
        path = self.path / key
        with files.atomic(path) as file:
            file.write(content)
        if entry is not None and entry.size == len(content):
            # Sweeps are ordered by their plans' times, and an unchanged file is not copied again.
            os.utime(path, (entry.written, entry.written))
        self._note(path)

    def _is_same(self, entry: Entry) -> bool:
        """Return whether the mirror's file certainly has the content of this object."""
        try:
            status = (self.path / entry.key).stat()
        except FileNotFoundError:
            return False
        same = status.st_size == entry.size and abs(status.st_mtime - entry.written) < 1e-3
        return same and entry.settled

    def _push(self, path: Path) -> None:
        try:
            now = path.stat()
            key = self._key(path)
            if self._known.get(key) == (now.st_size, now.st_mtime_ns):
                return
            content = path.read_bytes()
        except FileNotFoundError:
            return
        self.objects.write(key, content)
        self._known[key] = now.st_size, now.st_mtime_ns

    def _note(self, path: Path) -> None:
        status = path.stat()
        self._known[self._key(path)] = status.st_size, status.st_mtime_ns

    def _key(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _set_aside(self, folder: Path, held: bool) -> None:
        if not (folder / "plan.json").exists():
            return
        with files.lock(folder / ".lock") as free:
            if not (free or held):
                return
            aside = (
                self.path.with_name(f"{self.path.name}.gone") / f"{folder.name}-{time.time_ns()}"
            )
            aside.mkdir(parents=True)
            for path in folder.iterdir():
                if path.name != ".lock":  # it is locked
                    path.rename(aside / path.name)


def rank(status: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return a key that orders the statuses of one trial: the higher of two copies is valid."""

    def number(name: str) -> int:
        value = status.get(name)
        return value if isinstance(value, int) else -1

    name = status.get("status")
    return number("attempts"), number("step"), _ORDER.index(name) if name in _ORDER else -1


def _is_top(name: str) -> bool:
    return "/" not in name and name.endswith(".json") and not name.startswith(".")

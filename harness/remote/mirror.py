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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from harness.core import files
from harness.core.command_lines import uri_note
from harness.core.errors import UserError
from harness.core.paths import cache_folder, check_name, is_uri
from harness.core.throttle import Throttle
from harness.remote.checkpoint_sync import RemoteCheckpoints
from harness.remote.object_store import Entry, Objects, RemoteError
from harness.storage.trial_folder import TrialFolder

AT_ONCE = 16
# The share of a trial's time for copying to the store, as for saving checkpoints.
PUSHING_SHARE = 0.02
MAX_SMALL_BYTES = 256 * 2**20
_CHECKPOINTS = ("last", "best")
_OF_TRIAL = ("config.json", "health.json", "error.txt", "curves.parquet")
_ORDER = ("pending", "running", "stopped", "failed", "finished")
_DERIVED = ("*.json", "*.md", "*.html", "tables/**/*", "pictures/**/*", "videos/**/*")
_EVALUATIONS = "evaluations"


class Mirror:
    """A results folder on a store; `path` is its local copy, shared by all processes here."""

    def __init__(self, uri: str, *, path: Path | None = None) -> None:
        self.uri = uri.rstrip("/")
        self.objects = Objects(uri)
        if path is None:
            name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.objects.root).strip("-.")[-40:]
            digest = hashlib.sha256(self.uri.encode()).hexdigest()[:12]
            path = cache_folder() / "remote" / f"{name}-{digest}"
        self.path = path
        self._known: dict[str, tuple[int, int]] = {}  # stamps of files that the store has
        self.checkpoints = RemoteCheckpoints(self.objects, path)

    def check(self) -> None:
        """RemoteError when the store cannot be reached or written."""
        key = f".probe-{os.getpid()}-{time.time_ns():x}"
        with self.objects.without_retries():
            self.objects.write(key, b"")
            self.objects.delete(key)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Best effort: try each item once, ignore an unreachable store."""
        with self.objects.without_retries(), suppress(RemoteError):
            yield

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
            uri_note(self.path).write_text(f"{self.uri}\n")
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

    @contextmanager
    def carried(self, trial_dir: Path) -> Iterator[Callable[[], None]]:
        """Run a trial whose results lie on the store.

        First the trial is copied from the store, to continue from there. The yielded callable
        copies changes to the store, at most for a share of the time; a store that cannot be reached
        is tried again later. At the end everything is copied; RemoteError when that fails, and the
        local files stay.
        """
        self.pull_trial(trial_dir, whole=True)
        pushing = Throttle()

        def push() -> None:
            if pushing.due(PUSHING_SHARE):
                with pushing.timed(), self.once():
                    self.push_trial(trial_dir)

        try:
            yield push
        finally:
            try:
                self.push_trial(trial_dir)
            except RemoteError as error:
                folder = TrialFolder(trial_dir)
                folder.state = folder.read_status()
                folder.write_failure(error)
                raise

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
        self._push_shown((self.path / sweep).glob("*.json"))

    def push_derived(self, sweep: str) -> None:
        """Copy derived files to the store: tables, figures, videos, answers, the page."""
        self._push_shown(p for name in _DERIVED for p in (self.path / sweep).glob(name))

    def _push_shown(self, paths: Iterable[Path]) -> None:
        for path in sorted(paths):
            if path.is_file() and not path.name.startswith("."):
                self._push(path)

    def _pull_sweep(
        self, pool: ThreadPoolExecutor, sweep: str, found: dict[str, Entry], held: bool
    ) -> None:
        folder = self.path / sweep
        with files.lock(folder / ".lock") as free:
            if free or held:  # otherwise a sweep runs here, and its local files are newer
                top = [e for name, e in found.items() if re.fullmatch(r"[^./][^/]*\.json", name)]
                self._bring(pool, top)
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
        newer, best = rank(status) > rank(local), trial_dir / "checkpoints" / "best"
        with files.lock(trial_dir / ".lock") as free:
            for key, each in entries.items():
                name = key.removeprefix(f"{prefix}/")
                missing = not (self.path / key).exists()
                if name.startswith("episodes/") and name.endswith(".parquet"):
                    if missing or (newer and free and not self._is_same(each)):
                        self._bring_one(each)
                elif name in _OF_TRIAL and free and (newer or missing):
                    self._bring_one(each)
                elif name == "checkpoints/best.json" and free and (newer or not best.exists()):
                    self.checkpoints.describe(best.parent, "best")
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
        except UserError:
            raise
        except ValueError:
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
        self._known[key] = _stamp(path)

    def _is_same(self, entry: Entry) -> bool:
        """Return whether the mirror's file certainly has the content of this object."""
        try:
            status = (self.path / entry.key).stat()
        except FileNotFoundError:
            return False
        same = status.st_size == entry.size and abs(status.st_mtime - entry.written) < 1e-3
        return same and entry.settled

    def _push(self, path: Path) -> None:
        key = self._key(path)
        try:
            stamp = _stamp(path)
            if self._known.get(key) == stamp:
                return
            content = path.read_bytes()
        except FileNotFoundError:
            return
        self.objects.write(key, content)
        self._known[key] = stamp

    def _key(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _set_aside(self, folder: Path, held: bool) -> None:
        if not (folder / "plan.json").exists():
            return
        with files.lock(folder / ".lock") as free:
            if not (free or held):
                return
            gone = self.path.with_name(f"{self.path.name}.gone")
            aside = gone / f"{folder.name}-{time.time_ns()}"
            aside.mkdir(parents=True)
            for path in folder.iterdir():
                if path.name != ".lock":  # it is locked
                    path.rename(aside / path.name)


def readable_results(results: Path | str, sweep: str | None = None) -> Path:
    """Return the local folder of results, into which small files of a store are copied first.

    sweep: of this sweep only. UserError when the store cannot be read.
    """
    if not is_uri(results):
        return Path(results).expanduser()
    mirror = Mirror(str(results))
    mirror.pull(sweep)
    return mirror.path


def rank(status: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return a key that orders the statuses of one trial: the higher of two copies is valid."""

    def number(name: str) -> int:
        value = status.get(name)
        return value if isinstance(value, int) else -1

    name = status.get("status")
    return number("attempts"), number("step"), _ORDER.index(name) if name in _ORDER else -1


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns

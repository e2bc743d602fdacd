"""results/<sweep>/: its lock, its plan, the statuses of its trials, its copy on an object store."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from harness.config.plan import Plan
from harness.config.trial_config import to_dict
from harness.core import files, paths, provenance
from harness.core.errors import UserError
from harness.demos.source import Source
from harness.remote import lock as remote_lock
from harness.remote.mirror import Mirror
from harness.scheduling.jobs import Job
from harness.storage import json_schemas
from harness.storage.trial_folder import TrialFolder

SCHEMA = 1
ENDED = ("finished", "stopped", "failed")  # the statuses that a worker leaves


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep share, in plain values that can be sent to a worker.

    folder: the sweep's; uri: of the store that it is a copy of, None for a folder that every
    machine shares. data: the paths of the demonstrations; fingerprint: what their hash must be.
    threads: of a trial. seconds: the time limit of a trial.
    """

    folder: str
    data: tuple[str, ...]
    fingerprint: str
    threads: int
    seconds: float
    uri: str | None = None

    def check_shared(self) -> None:
        """OSError when this machine does not see the sweep's folder."""
        if self.uri is None and not (Path(self.folder) / "plan.json").is_file():
            raise OSError(
                f"all machines of a cluster must share {self.folder}, {platform.node()} does not; "
                "give --results a shared folder or an object store's URI"
            )


class SweepFolder:
    """One sweep's folder; only the holder of its lock writes to it.

    mirror: the object store that it is a copy of; without one, what concerns a store does nothing.
    """

    def __init__(self, path: Path, mirror: Mirror | None = None) -> None:
        self.path, self.mirror = path, mirror
        self._whole: dict[str, tuple[tuple[int, int], ...]] = {}

    @classmethod
    def at(cls, results: Path | str, name: str) -> Self:
        """Return the folder of a sweep in a results folder or below a store's URI.

        UserError when the store cannot be reached and written.
        """
        if not paths.is_uri(results):
            return cls(Path(results).expanduser().absolute() / name)
        mirror = Mirror(str(results))
        mirror.check()
        return cls(mirror.path / name, mirror)

    @property
    def uri(self) -> str | None:
        """Where the results lie that this folder is a copy of, None for a folder of its own."""
        return None if self.mirror is None else self.mirror.uri

    def trial(self, id_: str) -> TrialFolder:
        """Return the folder of a trial."""
        return TrialFolder(self.path / "trials" / id_)

    def statuses(self) -> dict[str, dict[str, Any]]:
        """Return the status.json of each trial that has one, by the trial's id.

        A finished trial of which a file is missing or cannot be read has the status "lost", one
        that failed on a full disk "no room": both are to be run again.
        """
        ids = files.entries(self.path / "trials")
        return {id_: status for id_ in ids if (status := self._status(id_))}

    def _status(self, id_: str) -> dict[str, Any]:
        trial = self.trial(id_)
        status = trial.read_status()
        # A copy of a store's results has no weights.
        if self.mirror is None and status.get("status") == "finished":
            version = tuple(trial.versions())
            if self._whole.get(id_) != version and trial.lost(status):
                return {**status, "status": "lost"}
            self._whole[id_] = version  # is not read again while no file changes
        if status.get("status") == "failed" and status.get("lacked_room"):
            return {**status, "status": "no room"}
        return status

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; UserError when another holds it or it is read-only.

        The system releases the lock of a process that dies.
        """
        path, name = self.path / ".lock", self.path.name
        with ExitStack() as stack:
            try:
                held = stack.enter_context(files.lock(path))
            except OSError as error:
                raise UserError(
                    f"the results' folder must be writable, {self.path} is not: {error.strerror}"
                ) from None
            if not held:
                holder = path.read_text()[:200].strip() or "another process"
                raise UserError(
                    f"a sweep runs once at a time, {self.path} is being run by {holder}"
                )
            path.write_text(f"process {os.getpid()} on {platform.node()}\n")
            if self.mirror is not None:
                stack.enter_context(remote_lock.held(self.mirror.objects, name))
                self.mirror.pull(name, held=True)
            yield
            path.write_text("")

    def refresh(self) -> None:
        """Copy the sweep's small files from the store, without the lock."""
        if self.mirror is not None:
            self.mirror.pull(self.path.name)

    def push_plan(self) -> None:
        """Copy the plan to the store; RemoteError when that fails."""
        if self.mirror is not None:
            self.mirror.push_plan(self.path.name)

    def publish(self) -> None:
        """Copy tables, answers and the page to the store."""
        if self.mirror is not None:
            self.mirror.push_derived(self.path.name)

    def attempt(self, copy: Callable[[Mirror], None]) -> None:
        """Copy something between this folder and its store, if the store can be reached."""
        if self.mirror is not None:
            with self.mirror.once():
                copy(self.mirror)

    def plan(self) -> dict[str, Any]:
        """Return the plan of the last run, {} without one; UserError when it is not readable."""
        path = self.path / "plan.json"
        # A torn plan is set aside: every line of it follows from the space file.
        content: dict[str, Any] = json_schemas.read_or(path)
        if content and content.get("schema") != SCHEMA:
            raise UserError(f"{path} must be a plan of schema {SCHEMA}, as this program writes it")
        return content

    def check_same(self, plan: Plan, source: Source, fingerprint: str, delta: float | None) -> None:
        """UserError when the sweep was begun with another budget, other data or other rounds.

        delta: of its rounds, None without any.
        """
        before = self.plan()
        if not before:
            return
        name = self.path.name
        if before["budget"] != plan.budget:
            raise UserError(
                f"sweep {name} was begun with --budget {before['budget']}, given {plan.budget}; "
                "give it another --name"
            )
        rounds = before.get("until_verdict")
        if rounds is not None:
            # The boundaries of its looks hold for these alone.
            known = rounds["delta"], tuple(before["train_seeds"])
            given = delta, plan.train_seeds
            if known != given:
                raise UserError(
                    f"sweep {name} was begun with {_until(*known)}, given {_until(*given)}; "
                    "give it another --name"
                )
        dataset = before["dataset"]
        if dataset["fingerprint"] != fingerprint:
            raise UserError(
                f"sweep {name} was begun on {dataset['path']} with fingerprint "
                f"{dataset['fingerprint'][:12]}, given {source.path} with {fingerprint[:12]}; "
                "give the same --data or another --name"
            )

    def changed_code(self) -> list[str]:
        """Return the files that decide a trial's numbers and differ from those of the last run."""
        before, now = self.plan().get("code"), provenance.code()
        if before is None:
            return []
        if 2 * len(before.keys() & now.keys()) < len(before):
            return ["the layout of the source files"]  # one line for a hundred files that moved
        return sorted(name for name in before | now if before.get(name) != now.get(name))

    def write_plan(
        self,
        plan: Plan,
        space: Path,
        jobs: Iterable[Job],
        source: Source,
        fingerprint: str,
        until_verdict: Mapping[str, Any] | None = None,
    ) -> None:
        """Write plan.json: questions, trials, demonstrations, and the version of the code.

        until_verdict: delta and the most trials of a sweep of rounds, whose trials follow.
        """
        content = {
            "schema": SCHEMA,
            "sweep": self.path.name,
            "space": str(space),
            "budget": plan.budget,
            "written": time.time(),
            "train_seeds": list(plan.train_seeds),
            "dataset": {
                "path": source.path,
                "kind": source.kind,
                "fingerprint": fingerprint,
            },
            "provenance": provenance.collect(),
            "code": provenance.code(),
            "questions": [
                {
                    "question": question.name,
                    "text": question.text,
                    "track": question.track,
                    "baseline": plan.baselines[question.track],
                    "arms": [{"arm": a.name, "config_hash": a.config_hash} for a in question.arms],
                }
                for question in plan.questions
            ],
            "baseline": next(iter(plan.baselines.values()), None),
            "baselines": dict(plan.baselines),
            "trials": [
                {
                    "config_hash": job.config_hash,
                    "train_seed": job.train_seed,
                    **{key: job.info[key] for key in ("question", "arm", "track")},
                    "config": to_dict(job.config),
                }
                for job in jobs
            ],
            "search": None if plan.search is None else plan.search.describe(),
            "until_verdict": until_verdict,
        }
        files.write_json(content, self.path / "plan.json")


def _until(delta: float | None, seeds: Sequence[int]) -> str:
    if delta is None:
        return "no --until-verdict"
    return f"--until-verdict --delta {delta:g} --train-seeds {','.join(map(str, seeds))}"

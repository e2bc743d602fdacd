"""results/<sweep>/: who may write there, what was planned there, how far its trials are."""

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from harness.config.plan import Plan
from harness.config.trial_config import config_hash, parse_trial_id, to_dict
from harness.core import files, paths, provenance
from harness.core.errors import UserError
from harness.demos.source import Source
from harness.remote.mirror import Mirror
from harness.scheduling.jobs import Job
from harness.storage import json_schemas
from harness.storage.trial_folder import TrialFolder

SCHEMA = 1


class SweepFolder:
    """One sweep's folder; only the holder of its lock writes there.

    mirror: the object store that it is a copy of; everything that follows is as without one.
    """

    def __init__(self, path: Path, mirror: "Mirror | None" = None) -> None:
        self.path, self.mirror = path, mirror

    @classmethod
    def at(cls, results: Path | str, name: str) -> Self:
        """Return the folder of a sweep in a results folder or below a store's URI.

        UserError when the store cannot be reached and written.
        """
        if not paths.is_uri(results):
            return cls(Path(results).expanduser().absolute() / name)
        from harness.remote.mirror import (
            Mirror,  # the import takes a while that folders need not wait
        )

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

    def statuses(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return each trial's status.json, {} for one that has not begun.

        One that is finished and has lost what is to be read of it is "lost".
        """
        try:
            begun = {entry.name for entry in os.scandir(self.path / "trials")}
        except OSError:
            begun = set()  # no folder yet; of one that cannot be read the lock will tell
        return {id_: self._status(id_) if id_ in begun else {} for id_ in ids}

    def _status(self, id_: str) -> dict[str, Any]:
        trial = self.trial(id_)
        status = trial.read_status()
        # A copy of a store's results has no weights.
        if self.mirror is None and status.get("status") == "finished" and trial.has_lost(status):
            return {**status, "status": "lost"}
        return status

    def trial_ids(self) -> list[str]:
        """Return the trials that have a folder."""
        return sorted(path.parent.name for path in self.path.glob("trials/*/config.json"))

    def seconds(self) -> dict[str, float]:
        """Return how long finished trials took by config hash, the mean over training seeds."""
        found: dict[str, list[float]] = {}
        for id_, status in self.statuses(self.trial_ids()).items():
            if status.get("status") == "finished":
                seconds = status["train_seconds"] + status.get("select_seconds", 0.0)
                found.setdefault(parse_trial_id(id_)[0], []).append(seconds)
        return {hash_: sum(each) / len(each) for hash_, each in found.items()}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; UserError when another holds it or it is read-only.

        The system gives the lock up when its process dies, so a stale one is in nobody's way.
        """
        path = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise UserError(
                f"the results' folder must be writable, {self.path} is not: {error.strerror}"
            ) from None
        with files.lock(path) as held:
            if not held:
                holder = path.read_text()[:200].strip() or "another process"
                raise UserError(
                    f"a sweep runs once at a time, {self.path} is being run by {holder}"
                )
            path.write_text(f"process {os.getpid()} on {platform.node()}\n")
            with self._store():
                yield
            path.write_text("")

    @contextmanager
    def _store(self) -> Iterator[None]:
        if self.mirror is None:
            yield
            return
        with self.mirror.lock(self.path.name):
            self.mirror.pull(self.path.name, held=True)
            yield

    def refresh(self) -> None:
        """Take note of what a store knows of the sweep, for a look that changes nothing."""
        if self.mirror is not None:
            self.mirror.pull(self.path.name)

    def refresh_trial(self, id_: str) -> None:
        """Take note of what a worker on another machine has put into the store."""
        if self.mirror is not None:
            with self.mirror.once():
                self.mirror.pull_trial(self.trial(id_).path)

    def push_trial(self, id_: str) -> None:
        """Put what this process has written of a trial into the store."""
        if self.mirror is not None:
            with self.mirror.once():
                self.mirror.push_trial(self.trial(id_).path)

    def push(self) -> None:
        """Put the plan into the store; RemoteError when that cannot be done."""
        if self.mirror is not None:
            self.mirror.push_plan(self.path.name)

    def push_order(self) -> None:
        """Put the order of a search into the store; out of reach, it goes there with the next."""
        if self.mirror is not None:
            with self.mirror.once():
                self.mirror.push_plan(self.path.name)

    def publish(self) -> None:
        """Put what people read (tables, answers, the page) into the store."""
        if self.mirror is not None:
            self.mirror.push_derived(self.path.name)

    def plan(self) -> dict[str, Any]:
        """Return the plan of the last run, {} without one; UserError when it is not readable."""
        path = self.path / "plan.json"
        # A torn plan is set aside: every line of it follows from the space file.
        content: dict[str, Any] = json_schemas.read_or(path)
        if content and content.get("schema") != SCHEMA:
            raise UserError(f"{path} must be a plan of schema {SCHEMA}, as this program writes it")
        return content

    def check_same(self, budget: str, source: Source, fingerprint: str) -> None:
        """UserError when the last run had another budget or other data."""
        before = self.plan()
        if not before:
            return
        name = self.path.name
        if before["budget"] != budget:
            raise UserError(
                f"sweep {name} was begun with --budget {before['budget']}, given {budget}; "
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
        """Return the files that decide a trial's numbers and are not those of the last run."""
        before, now = self.plan().get("code"), provenance.code()
        if before is None:
            return []
        return sorted(name for name in before | now if before.get(name) != now.get(name))

    def write_plan(
        self, plan: Plan, space: Path, jobs: Iterable[Job], source: Source, fingerprint: str
    ) -> None:
        """Write plan.json: everything that is asked for, and what it is asked of."""
        content = {
            "schema": SCHEMA,
            "sweep": self.path.name,
            "space": str(space),
            "budget": plan.budget,
            "written": time.time(),
            "train_seeds": list(plan.train_seeds),
            "dataset": {
                "path": str(source.path),
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
            "trials": [_planned(job) for job in jobs],
            "search": None if plan.search is None else plan.search.describe(),
        }
        files.write_json(content, self.path / "plan.json")


def _planned(job: Job) -> Mapping[str, Any]:
    hash_ = config_hash(job.config)
    return {
        "config_hash": hash_,
        "train_seed": job.train_seed,
        **{key: job.info[key] for key in ("question", "arm", "track")},
        "config": to_dict(job.config),
    }

"""How long a sweep will take: from finished trials, else from a measurement on this machine.

The measurement needs torch, so it runs in a process of its own (`harness.trials.estimate`).
"""

import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.paths import ROOT
from harness.core.text import one_line
from harness.scheduling.jobs import Job

STARTING_SECONDS = 15.0  # of Ray and its workers
MAX_MEASURED = 100  # configs, more than there is time for
MAX_SECONDS = 300.0


@dataclass(frozen=True)
class Estimate:
    """Seconds by trial id, and how they were found; without seconds, why there are none."""

    seconds: Mapping[str, float]
    how: str

    def wall(self, slots: int, jobs: float) -> float:
        """Return the seconds until so many jobs like these are done on so many slots."""
        if not self.seconds:
            return 0.0
        mean = sum(self.seconds.values()) / len(self.seconds)
        return STARTING_SECONDS + max(max(self.seconds.values()), mean * jobs / slots)


def estimate(jobs: Sequence[Job], finished: Mapping[str, float], threads: int) -> Estimate:
    """Return an estimate for the jobs.

    finished: the seconds that finished trials took, by config hash (another training seed takes as
    long). Of the other configs, the first of each kind (observation mode and policy) is measured,
    then others while the budget lasts; the rest are assumed to take the mean of their kind.
    """
    unknown = [job for job in jobs if job.config_hash not in finished]
    known_kinds = {_kind(job) for job in jobs if job.config_hash in finished}
    measured: dict[str, float] = {}
    spent = 0.0
    if unknown:
        try:
            measured, spent = _measure(_firsts_first(unknown, known_kinds), threads)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Estimate({}, f"no estimate: {one_line(error)}")
    known = {**finished, **measured}
    kinds: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if job.config_hash in known:
            kinds.setdefault(_kind(job), []).append(known[job.config_hash])
    overall = [seconds for some in kinds.values() for seconds in some]
    seconds = {}
    for job in jobs:
        same_kind = kinds.get(_kind(job), overall)
        seconds[job.id] = known.get(job.config_hash, sum(same_kind) / len(same_kind))
    configs = {job.config_hash for job in jobs}
    timed, told = len(measured), len(configs & finished.keys())
    parts = [f"{told} configs from finished trials"] if told else []
    parts += [f"{timed} configs timed here in {spent:.0f} s"] if timed else []
    rest = len(configs) - told - timed
    parts += [f"{rest} extrapolated"] if rest else []
    return Estimate(seconds, ", ".join(parts) or "nothing to run")


def _measure(jobs: Sequence[tuple[Job, bool]], threads: int) -> tuple[dict[str, float], float]:
    """Return the seconds of a trial by config hash, and the seconds spent on measuring.

    jobs: in their order, each with whether it is the first of its kind.
    OSError, ValueError or SubprocessError with the reason when they could not be measured.
    """
    content = [{"job": job.dumps(), "first": first} for job, first in jobs[:MAX_MEASURED]]
    done = subprocess.run(
        [sys.executable, "-m", "harness.trials.estimate"],
        input=json.dumps({"threads": threads, "jobs": content}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=MAX_SECONDS,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(lines[-1])
    found: dict[str, Any] = json.loads((done.stdout.splitlines() or [""])[-1])
    return found["seconds"], found["spent"]


def _firsts_first(
    jobs: Iterable[Job], known: Collection[tuple[str, str]]
) -> list[tuple[Job, bool]]:
    """Return one job a config, with the first ones of kinds that are not known (True) in front."""
    by_config: dict[str, Job] = {}
    for job in jobs:
        by_config.setdefault(job.config_hash, job)
    firsts: dict[tuple[str, str], Job] = {}
    for job in by_config.values():
        if _kind(job) not in known:
            firsts.setdefault(_kind(job), job)
    others = [job for job in by_config.values() if firsts.get(_kind(job)) is not job]
    return [(job, True) for job in firsts.values()] + [(job, False) for job in others]


def _kind(job: Job) -> tuple[str, str]:
    return job.config.policy.obs_mode, job.config.policy.kind

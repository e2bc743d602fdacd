"""How long a sweep will take: from finished trials, else from a measurement on this machine.

The measurement needs torch, so it runs in a process of its own (`harness.trials.estimate`).
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
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
    configs: dict[str, Job] = {}  # the first job of each config
    for job in jobs:
        configs.setdefault(job.config_hash, job)
    known = {hash_: finished[hash_] for hash_ in configs if hash_ in finished}
    told, timed, spent = len(known), 0, 0.0
    known_kinds = {_kind(configs[hash_]) for hash_ in known}
    unknown = [job for hash_, job in configs.items() if hash_ not in known]
    firsts: dict[tuple[str, str], Job] = {}
    for job in unknown:
        if _kind(job) not in known_kinds:
            firsts.setdefault(_kind(job), job)
    if unknown:
        others = [job for job in unknown if firsts.get(_kind(job)) is not job]
        try:
            measured, spent = _measure([*firsts.values(), *others], len(firsts), threads)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Estimate({}, f"no estimate: {one_line(error)}")
        known |= measured
        timed = len(measured)
    kinds: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if job.config_hash in known:
            kinds.setdefault(_kind(job), []).append(known[job.config_hash])
    overall = [seconds for some in kinds.values() for seconds in some]
    means = {_kind(job): fmean(kinds.get(_kind(job), overall)) for job in jobs}
    seconds = {job.id: known.get(job.config_hash, means[_kind(job)]) for job in jobs}
    counts = (
        (told, "configs from finished trials"),
        (timed, f"configs timed here in {spent:.0f} s"),
        (len(configs) - told - timed, "extrapolated"),
    )
    how = ", ".join(f"{count} {what}" for count, what in counts if count)
    return Estimate(seconds, how or "nothing to run")


def _measure(jobs: Sequence[Job], firsts: int, threads: int) -> tuple[dict[str, float], float]:
    """Return the seconds of a trial by config hash, and the seconds spent on measuring.

    firsts: how many of the jobs are the first of their kind.
    OSError, ValueError or SubprocessError with the reason when they could not be measured.
    """
    texts = [job.dumps() for job in jobs[:MAX_MEASURED]]
    done = subprocess.run(
        [sys.executable, "-m", "harness.trials.estimate"],
        input=json.dumps({"threads": threads, "firsts": firsts, "jobs": texts}),
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


def _kind(job: Job) -> tuple[str, str]:
    return job.config.policy.obs_mode, job.config.policy.kind

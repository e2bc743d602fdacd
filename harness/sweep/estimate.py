"""How long a sweep will take: from finished trials, else from a measurement on this machine.

The measurement needs torch, so it runs in a process of its own (`harness.trials.estimate`).
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.core.paths import ROOT
from harness.core.text import one_line
from harness.scheduling.jobs import Job

STARTING_SECONDS = 15.0  # of Ray and its workers
MAX_MEASURED = 1000  # configs; of more the rest takes their mean
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
    long). A job that takes another's weights is only evaluated. Other configs are timed here, the
    most different ones first, for 1 % of what the jobs are estimated to take but at most 15 s; the
    rest takes the times of the most similar ones. One finished config of each kind is timed too:
    what was timed is scaled by how long these took.
    """
    configs: dict[str, Job] = {}  # the first job of each config
    for job in jobs:
        configs.setdefault(job.config_hash, job)
    trials = Counter(job.config_hash for job in jobs)
    known = {hash_: finished[hash_] for hash_ in configs if hash_ in finished}
    counts = [(len(known), "configs from finished trials")]
    unknown = [hash_ for hash_ in configs if hash_ not in known][:MAX_MEASURED]
    scaled = ""
    if unknown:
        kinds = {_kind(configs[hash_]) for hash_ in unknown}
        both = {_kind(configs[hash_]): hash_ for hash_ in known if _kind(configs[hash_]) in kinds}
        asked = [configs[hash_] for hash_ in (*unknown, *both.values())]
        try:
            measured = _measure(asked, trials, threads)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Estimate({}, f"no estimate: {one_line(error)}")
        factor = 1.0
        if both:
            took = sum(known[hash_] for hash_ in both.values())
            factor = took / sum(measured.seconds[hash_] for hash_ in both.values())
            scaled = f", scaled by {factor:.2g} as finished trials took"
        known |= {hash_: factor * measured.seconds[hash_] for hash_ in unknown}
        timed = min(measured.timed, len(unknown))
        counts.append((timed, f"configs timed here in {measured.spent:.0f} s"))
        counts.append((len(configs) - counts[0][0] - timed, "extrapolated from the most similar"))
    mean = fmean(known.values()) if known else 0.0
    seconds = {job.id: known.get(job.config_hash, mean) for job in jobs}
    how = ", ".join(f"{count} {what}" for count, what in counts if count)
    return Estimate(seconds, f"{how}{scaled}" or "nothing to run")


@dataclass(frozen=True)
class _Measured:
    """Seconds of a trial by config hash; how many configs were timed, and the seconds it took."""

    seconds: Mapping[str, float]
    timed: int
    spent: float


def _measure(jobs: Sequence[Job], trials: Mapping[str, int], threads: int) -> _Measured:
    """Time jobs' configs; trials: how many each config has.

    OSError, ValueError or SubprocessError with the reason when they could not be measured.
    """
    asked = {
        "threads": threads,
        "jobs": [job.dumps() for job in jobs],
        "trials": [trials[job.config_hash] for job in jobs],
        "trained": [job.weights_of is None for job in jobs],
    }
    done = subprocess.run(
        [sys.executable, "-m", "harness.trials.estimate"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=MAX_SECONDS,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(lines[-1])
    return _Measured(**json.loads((done.stdout.splitlines() or [""])[-1]))


def _kind(job: Job) -> tuple[str, str]:
    return job.config.policy.obs_mode, job.config.policy.kind

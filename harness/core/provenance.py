"""The provenance of a result: git revision, hashes of the code, package versions, device."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from harness.core.paths import INSTALLED, ROOT

# The files of this project that affect a trial's numbers.
DECIDING = (
    "envs/**/*.py",
    "ibc/**/*.py",
    "harness/config/protocol.py",
    "harness/core/seeds.py",
    "harness/demos/source.py",
    "harness/evaluation/rollout.py",
    "harness/trials/runner.py",
)
PACKAGES = ("torch", "numpy", "pymunk", "gymnasium", "zarr", "pyarrow", "ray", "optuna")


def collect(device: str = "cpu") -> dict[str, Any]:
    """Return git_revision, git_dirty, versions and device, the columns of a trial's row."""
    revision, dirty = git_state()
    return {
        "git_revision": revision,
        "git_dirty": dirty,
        "versions": versions(),
        "device": device_name(device),
    }


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the commit and whether tracked files differ from it; (None, None) without git."""
    if INSTALLED:  # a repository around it would be another one
        return None, None
    revision = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    if revision is None or changes is None:
        return None, None
    return revision, bool(changes)


@cache
def code() -> dict[str, str]:
    """Return 12 hex digits of the hash of each file that affects a trial's numbers, by its path."""
    paths = sorted(path for pattern in DECIDING for path in ROOT.glob(pattern))
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in paths
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, this project and the packages that affect its numbers."""
    found = {"python": platform.python_version()}
    for name in ("ibc-harness", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed, for instance Ray on a machine that only trains
    return found


def choose_device(device: str) -> str:
    """Return "cuda" or "cpu" for "auto", any other device unchanged."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def device_name(device: str) -> str:
    """Return the name of the device; for a CPU with the number of threads torch uses."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git(*arguments: str) -> str | None:
    # Without optional locks, reading the state never blocks a commit in progress.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

"""Small real trials and sweeps for the fault tests, and what breaks machines for them."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core import files
from harness.storage import checkpoints, table_schemas
from tests.commands import terminal, without_clocks

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "sweep_1"

# A trial of a tenth of a second: real weights, real rollouts, two selections.
TINY = {
    "policy.obs_mode": "state",
    "policy.energy.width": 8,
    "policy.energy.depth": 1,
    "policy.encoder.state_width": 8,
    "policy.negatives.count": 4,
    "policy.inference.samples": 4,
    "policy.inference.iterations": 1,
    "train.steps": 8,
    "train.epoch_steps": 2,
    "train.batch_size": 8,
    "train.warmup_steps": 2,
    "train.val_windows": 8,
    "select.seeds": 2,
    "select.every": 4,
}


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, Any]:
    """The settings of a trial of a tenth of a second."""
    return dict(TINY)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy of its own of the results folder of the golden sweep."""
    return Path(shutil.copytree(GOLDEN / "results", tmp_path / "golden"))


@pytest.fixture(scope="session")
def numbers_of() -> Callable[[Path], dict[str, Any]]:
    """Everything that a trial's folder says but for the clocks: rows, weights, checkpoints."""

    def numbers(trial: Path) -> dict[str, Any]:
        episodes = sorted((trial / "episodes").glob("*.parquet"))
        found: dict[str, Any] = {
            "curves": without_clocks(table_schemas.read_file(trial / "curves.parquet", "curves")),
            "episodes": [
                without_clocks(table_schemas.read_file(path, "episodes")) for path in episodes
            ],
            "health": files.read_json(trial / "health.json"),
        }
        status = files.read_json(trial / "status.json")
        names = ("status", "step", "epoch", "best_step", "select_score", "select_n")
        found |= {name: status[name] for name in names}
        for name in ("best", "last"):
            path = checkpoints.find(trial / "checkpoints", name)
            assert path is not None, name
            described = checkpoints.describe(path)
            assert described["policy_hash"] == checkpoints.weights_hash(path), name
            found[name] = (described["step"], described["policy_hash"])
        return found

    return numbers


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """What runs a program's text in a fresh interpreter, behind a prefix if one is given."""

    def run(
        text: str, *arguments: object, prefix: tuple[str, ...] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        command = [*prefix, sys.executable, "-c", text, *map(str, arguments)]
        given = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": 240, **more}
        environment = terminal(OMP_NUM_THREADS="1", **given.pop("env", {}))
        return subprocess.run(command, check=False, env=environment, **given)

    return run


@pytest.fixture(scope="session")
def mounted() -> Callable[[Path, str], tuple[str, ...]]:
    """What to put before a command so that it sees a file system of its own at a folder.

    The mount lives in a mount namespace and ends with the command: nothing is left to unmount.
    Works for root, and for others where user namespaces are allowed; skips where neither is.
    """

    def prefix(folder: Path, how: str) -> tuple[str, ...]:
        refused = []
        for options in (("-m",), ("-r", "-m")):
            command = ("unshare", *options, "sh", "-c", f'{how} && exec "$@"', "sh")
            try:
                done = subprocess.run(
                    [*command, "true"], capture_output=True, text=True, timeout=60, check=False
                )
            except FileNotFoundError:
                pytest.skip("util-linux's unshare is needed to mount a file system for a test")
            if done.returncode == 0:
                return command
            refused.append(done.stderr.strip())
        pytest.skip(f"no file system can be mounted here: {'; '.join(refused)}")

    return prefix

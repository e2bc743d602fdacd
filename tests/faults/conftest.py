"""Small real trials and sweeps for the fault tests, and what breaks machines for them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.core import files
from harness.storage import checkpoints, table_schemas
from harness.storage import tables as store

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

SPACE = (ROOT / "tests" / "tiny.yaml").read_text()

# What two runs of the same trial may differ in: clocks, and how often it had to be begun.
CLOCKS = {
    "seconds",
    "samples_per_second",
    "train_seconds",
    "select_seconds",
    "policy_ms",
    "env_ms",
    "render_ms",
    "attempts",
    "git_revision",
    "git_dirty",
}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, write_demos: Callable[..., Any]) -> Path:
    """The path of 60 frames of made-up demonstrations."""
    path = tmp_path_factory.mktemp("faults-data") / "demos.zarr"
    write_demos(path, lengths=(20, 15, 25))
    return path


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, Any]:
    """The settings of a trial of a tenth of a second."""
    return dict(TINY)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy of its own of the results folder of the golden sweep."""
    return Path(shutil.copytree(GOLDEN / "results", tmp_path / "golden"))


def rows(table: Any) -> list[dict[str, Any]]:
    """Return a table's rows without what belongs to a clock or to the sweep's name."""
    return [
        {k: v for k, v in row.items() if k not in CLOCKS | {"sweep"}} for row in table.to_pylist()
    ]


@pytest.fixture(scope="session")
def numbers_of() -> Callable[[Path], dict[str, Any]]:
    """Everything that a trial's folder says but for the clocks: rows, weights, checkpoints."""

    def numbers(trial: Path) -> dict[str, Any]:
        episodes = sorted((trial / "episodes").glob("*.parquet"))
        found: dict[str, Any] = {
            "curves": rows(table_schemas.read_file(trial / "curves.parquet", "curves")),
            "episodes": [rows(table_schemas.read_file(path, "episodes")) for path in episodes],
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
def tables_of() -> Callable[[Path], dict[str, Any]]:
    """A sweep's three tables but for the clocks; no episode may be there twice."""

    def tables(sweep: Path) -> dict[str, Any]:
        kinds = ("trials", "curves", "episodes")
        found = {kind: rows(store.read(sweep, kind)) for kind in kinds}  # type: ignore[arg-type]
        keys = [(r["config_hash"], r["train_seed"], r["env_seed"]) for r in found["episodes"]]
        assert len(keys) == len(set(keys))
        keys = [(r["config_hash"], r["train_seed"], r["step"]) for r in found["curves"]]
        assert len(keys) == len(set(keys))
        return found

    return tables


class Door:
    """run_sweep.py with a space file, made-up demonstrations and a results folder."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.results = folder / "results"
        self.space = folder / "tiny.yaml"
        self.space.write_text(SPACE)
        self.environment: dict[str, str] = {}

    def start(self, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        given = [self.space, "--data", self.data, "--results", self.results]
        command = [*prefix, sys.executable, ROOT / "run_sweep.py", *given, *options]
        cache = {"IBC_HARNESS_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **cache, **self.environment},
            cwd=self.folder,
            start_new_session=True,
        )

    def run(self, *options: str, prefix: tuple[str, ...] = ()) -> tuple[int, str, str]:
        process = self.start(*options, prefix=prefix)
        try:
            out, err = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            kill_all_of(process)
            raise
        return process.returncode, out, err

    def statuses(self, name: str) -> list[dict[str, Any]]:
        return [
            files.read_json(path) for path in (self.results / name).glob("trials/*/status.json")
        ]


@pytest.fixture
def door(tmp_path: Path, tiny_data: Path) -> Door:
    return Door(tmp_path, tiny_data)


@pytest.fixture(scope="module")
def shared_door(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Door:
    """One door for all tests of a file."""
    return Door(tmp_path_factory.mktemp("door"), tiny_data)


def members_of(session: int) -> list[int]:
    """Return the living processes of a session; zombies have left it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def kill_all_of(process: subprocess.Popen[str]) -> None:
    """End a process and all of its session."""
    for pid in members_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="session")
def processes_of() -> Callable[[int], list[int]]:
    return members_of


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], object], float], None]:
    def wait(condition: Callable[[], object], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "waited too long"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """What runs a program's text in a fresh interpreter, behind a prefix if one is given."""

    def run(
        text: str, *arguments: object, prefix: tuple[str, ...] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        command = [*prefix, sys.executable, "-c", text, *map(str, arguments)]
        given = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": 240, **more}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **given.pop("env", {})}
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


@pytest.fixture
def killed_at_the_end() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes put into this list are ended with their sessions, whatever the test does."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        kill_all_of(process)

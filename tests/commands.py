"""The project's commands as a user starts them: fresh processes with a terminal's environment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core import files
from harness.storage import tables

ROOT = Path(__file__).resolve().parent.parent
SPACE = (ROOT / "tests" / "tiny.yaml").read_text()
# Seconds, in which something can happen to a trial.
LONG = SPACE.replace("steps: 40", "steps: 300")
BARE_SWEEP = ROOT / "tests" / "bare_sweep.py"

# What belongs to the test session or to accounts, not to a user's terminal.
_NOT_A_TERMINALS = (
    *("RAY_", "PYTEST_", "AWS_", "WANDB_", "MLFLOW_", "IBC_HARNESS_", "GITHUB_"),
    *("MAKE", "MFLAGS"),
)
_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")

# What two runs of the same trial may differ in: clocks, how often it was begun, and where.
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


def terminal(**more: str) -> dict[str, str]:
    """Return the environment of a user's terminal, with more variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_A_TERMINALS) and not any(word in name for word in _SECRETS)
    }
    return {**kept, **more}


class Commands:
    """Starts commands in a folder that holds a space of seconds, `tiny.yaml`, and `results`."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.results = folder / "results"
        self.space = folder / "tiny.yaml"
        self.space.write_text(SPACE)
        self.environment: dict[str, str] = {"IBC_HARNESS_CACHE": str(folder / "cache")}
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, *words: object, prefix: tuple[str, ...] = (), **environment: str
    ) -> "subprocess.Popen[str]":
        """Start Python with these words: `run_eval.py ...` or `-m harness.results ...`.

        Its processes are a session of their own. prefix: what stands before the command.
        """
        process = subprocess.Popen(
            [*prefix, sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=terminal(**{"PYTHONPATH": str(ROOT), **self.environment, **environment}),
            cwd=self.folder,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(
        self, *words: object, prefix: tuple[str, ...] = (), seconds: float = 600, **environment: str
    ) -> tuple[int, str, str]:
        """Run to the end and return the exit code and what was printed."""
        process = self.start(*words, prefix=prefix, **environment)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_all_of(process)
            raise
        return process.returncode, out, err

    def sweep(
        self, *options: object, results: object = None, whole: bool = False
    ) -> tuple[object, ...]:
        """Return the words of a sweep.

        whole: with what a sweep has for people (estimate, pictures, page); else by bare_sweep.py.
        """
        program = ROOT / "run_sweep.py" if whole else BARE_SWEEP
        given = (self.space, "--data", self.data, "--results", results or self.results)
        return (program, *given, *options)

    def start_sweep(self, *options: object, **more: Any) -> "subprocess.Popen[str]":
        """Start a sweep into `results`; see `sweep` and `start`."""
        return self.start(*self.sweep(*options), **more)

    def run_sweep(self, *options: object, **more: Any) -> tuple[int, str, str]:
        """Run a sweep into `results`; see `sweep` and `run`."""
        return self.run(*self.sweep(*options), **more)

    def statuses(self, name: str) -> list[dict[str, Any]]:
        """Return the statuses of a sweep's trials."""
        return [
            files.read_json(path) for path in (self.results / name).glob("trials/*/status.json")
        ]

    def close(self) -> None:
        """End what is still running, with all that it started."""
        for process in self.started:
            if process.poll() is None or members_of(process.pid):
                kill_all_of(process)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@contextmanager
def opened(folder: Path, data: Path) -> Iterator[Commands]:
    """Commands in a folder; what is still running afterwards is ended."""
    made = Commands(folder, data)
    try:
        yield made
    finally:
        made.close()


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


def kill_all_of(process: "subprocess.Popen[str]") -> None:
    """End a process and all of its session."""
    for pid in members_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited longer than {seconds:.0f} s"
        time.sleep(0.02)


def without_clocks(table: Any) -> list[dict[str, Any]]:
    """Return a table's rows without what belongs to a clock or to the sweep's name."""
    return [
        {k: v for k, v in row.items() if k not in CLOCKS | {"sweep"}} for row in table.to_pylist()
    ]


def tables_of(sweep: Path) -> dict[str, Any]:
    """Return a sweep's three tables but for the clocks; no row may be there twice."""
    found = {}
    for kind, keys in (
        ("trials", ("config_hash", "train_seed")),
        ("curves", ("config_hash", "train_seed", "step")),
        ("episodes", ("config_hash", "train_seed", "env_seed")),
    ):
        found[kind] = without_clocks(tables.read(sweep, kind))  # type: ignore[arg-type]
        named = [tuple(row[key] for key in keys) for row in found[kind]]
        assert len(named) == len(set(named)), kind
    return found


@dataclass
class Watch:
    """Whom the processes of a session talk to, seen every quarter of a second.

    sockets: (state, own address, other address) as /proc/net has them; told: what Ray's processes
    were told about sending statistics.
    """

    sockets: set[tuple[str, bytes, bytes]] = field(default_factory=set)
    told: set[bytes] = field(default_factory=set)

    @classmethod
    def until_the_end(cls, process: "subprocess.Popen[str]") -> "Watch":
        """Look until the session's first process has ended."""
        made = cls()
        while process.poll() is None:
            known = _sockets()
            for pid in members_of(process.pid):
                made.sockets |= {known[inode] for inode in _inodes(pid) & known.keys()}
                made.told |= _usage_statistics(pid)
            time.sleep(0.25)
        return made


def _usage_statistics(pid: int) -> set[bytes]:
    """Return what a process of Ray's is told in its environment about sending statistics."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        name = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return set()
    if b"gcs_server" not in name and b"raylet" not in name:
        return set()
    return {word for word in words if word.startswith(b"RAY_USAGE_STATS_ENABLED")} or {b"nothing"}


def _inodes(pid: int) -> set[str]:
    """Return the inodes of a process's sockets, none if it has ended."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
    except OSError:
        return set()
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def _sockets() -> dict[str, tuple[str, bytes, bytes]]:
    """Return (state, own, other address) of all TCP and UDP sockets by inode, as /proc has them."""
    found = {}
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            found[words[9]] = (words[3], _address(words[1]), _address(words[2]))
    return found


def _address(text: str) -> bytes:
    """Return the IP address of /proc/net's hexadecimal `address:port`, as four or sixteen bytes."""
    raw = bytes.fromhex(text.partition(":")[0])
    return b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))

"""A sweep that loses its driver, a worker and a node has the same tables as an undisturbed one.

    python -m benchmarks.disturbed_sweep [--seed 0] [--trials 6] [--folder DIR]

Starts three Ray nodes of one CPU each on this machine (as processes; Ray counts their CPUs). The
same sweep runs twice: once undisturbed, once disturbed at random times (from --seed). Prints the
events with their times, and exits with 1 if the tables differ.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from harness.core import files
from harness.storage import tables

ROOT = Path(__file__).resolve().parent.parent
# Columns in which two runs of the same sweep may differ.
OWN = {"sweep", "attempts", "train_seconds", "samples_per_second", "git_revision", "git_dirty"}
PATIENCE_SECONDS = 600.0


def space(trials: int, steps: int) -> str:
    arms = "".join(f"      a{i}: {{policy.energy.width: {8 + i}}}\n" for i in range(1, trials))
    return f"""
version: 1
name: disturbed
train_seeds: [0]
base:
  policy:
    obs_mode: state
    energy: {{width: 8, depth: 1}}
    encoder.state_width: 8
    negatives.count: 4
    inference: {{samples: 4, iterations: 1}}
  train: {{steps: {steps}, epoch_steps: 20, batch_size: 8, warmup_steps: 2, val_windows: 8}}
  select.seeds: 2
questions:
  width:
    ask: How wide?
    arms:
{arms}"""


def write_demonstrations(path: Path) -> None:
    """Write sixty random rows in Diffusion Policy's layout."""
    rng = np.random.default_rng(0)
    state = rng.uniform(50, 450, (60, 5)).astype(np.float32)
    state[:, 4] = rng.uniform(0, 2 * np.pi, 60)  # in degrees they would be refused
    action = np.clip(state[:, :2] + rng.normal(0, 20, (60, 2)), 0, 512).astype(np.float32)
    keypoint = rng.uniform(0, 512, (60, 9, 2)).astype(np.float32)
    root = zarr.open_group(path, mode="w", zarr_format=2)
    arrays: dict[str, Any] = {
        "data/state": state,
        "data/action": action,
        "data/keypoint": keypoint,
        "meta/episode_ends": np.array([20, 35, 60]),
    }
    for name, values in arrays.items():
        root.create_array(
            name, data=values, chunks=values.shape, config={"write_empty_chunks": True}
        )


class Sweep:
    """The sweep's command on a cluster, and the files in its folder."""

    def __init__(self, folder: Path, name: str, address: str) -> None:
        self.folder, self.name, self.address = folder, name, address
        self.results = folder / "results"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the command."""
        words = [ROOT / "run_sweep.py", self.folder / "space.yaml", "--name", self.name]
        words += ["--data", self.folder / "demos.zarr", "--results", self.results]
        words += ["--address", self.address]
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "IBC_HARNESS_CACHE": str(self.folder / "cache")},
        )
        STARTED.append(self.process)

    def end(self) -> None:
        """Wait for the command and print its last lines."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        shown = [line for line in out.splitlines() if " trials finished" in line]
        for line in [*shown, *err.strip().splitlines()[-3:]]:
            say(f"    | {line}")
        say(f"the driver ended with code {self.process.returncode}")

    def steps(self) -> int:
        """Return the optimiser steps of all trials so far."""
        return sum(status.get("step", 0) for status in self.statuses())

    def statuses(self) -> Iterator[dict[str, Any]]:
        """Yield the status of each trial that has started."""
        for path in (self.results / self.name).glob("trials/*/status.json"):
            try:
                yield files.read_json(path)
            except FileNotFoundError:
                continue

    def rows(self, kind: Any) -> list[dict[str, Any]]:
        """Return a table without the columns in which two runs may differ."""
        rows = tables.read(self.results / self.name, kind).to_pylist()
        return [
            {k: v for k, v in row.items() if k not in OWN and not k.endswith("_ms")} for row in rows
        ]


START = time.monotonic()
STARTED: list["subprocess.Popen[str]"] = []


def say(text: str) -> None:
    print(f"{time.monotonic() - START:7.1f} s  {text}", flush=True)


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """Start a head without CPUs and nodes of one CPU; shut all down at the end."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster()  # type: ignore[no-untyped-call]
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    try:
        made.add_node(num_cpus=0, **small)
        for _ in range(nodes):
            made.add_node(num_cpus=1, **small)
        yield made
    finally:
        for process in STARTED:
            process.kill()  # one may still run after an error
        made.shutdown()


def trial_workers(root: int) -> list[int]:
    """Return the descendants of process `root` that train a trial."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue

    def is_below(pid: int) -> bool:
        while pid in parents and pid != root:
            pid = parents[pid]
        return pid == root

    return [pid for pid in parents if is_below(pid) and b"ray::ImplicitFunc" in command(pid)]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for_steps(sweep: Sweep, steps: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while sweep.steps() < steps:
        assert sweep.process is not None
        if sweep.process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the sweep ended before step {steps}: {sweep.process.communicate()}")
        time.sleep(0.05)


def disturb(what: str, sweep: Sweep, made: Any, nodes: list[Any]) -> None:
    """Send SIGKILL to the driver, a worker or a node."""
    assert sweep.process is not None
    finished = sum(status.get("status") == "finished" for status in sweep.statuses())
    at = f"at {sweep.steps()} steps, {finished} trials finished"
    if what == "driver":
        sweep.process.kill()
        sweep.process.communicate()
        say(f"SIGKILL to the driver {at}; the same command again")
        sweep.start()
    elif what == "worker":
        pids = trial_workers(os.getpid())
        if not pids:
            raise SystemExit("found no worker to kill")
        os.kill(pids[0], signal.SIGKILL)
        say(f"SIGKILL to worker {pids[0]} {at}")
    else:
        made.remove_node(nodes.pop(), allow_graceful=False)
        say(f"SIGKILL to a node {at}; {len(nodes)} left")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    parser.add_argument("--trials", type=int, default=6, help="of the sweep")
    parser.add_argument("--steps", type=int, default=600, help="of a trial")
    parser.add_argument("--folder", type=Path, help="working folder (default: a temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="disturbed-") as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        write_demonstrations(folder / "demos.zarr")
        (folder / "space.yaml").write_text(space(given.trials, given.steps))
        with cluster(3) as made:
            nodes = list(made.worker_nodes)[1:]
            say(f"three one-CPU nodes; {given.trials} trials of {given.steps} steps, undisturbed")
            alone = Sweep(folder, "undisturbed", made.address)
            alone.start()
            alone.end()

            disturbed = Sweep(folder, "disturbed", made.address)
            rng = random.Random(given.seed)
            whole = given.trials * given.steps
            events = ["driver", "worker", "node"]
            rng.shuffle(events)
            times = sorted(rng.uniform(0.1, 0.8) for _ in events)
            say("the same sweep, disturbed")
            disturbed.start()
            for what, share in zip(events, times, strict=True):
                wait_for_steps(disturbed, max(given.steps // 10, int(share * whole)))
                disturb(what, disturbed, made, nodes)
            disturbed.end()
        same = True
        for kind in ("trials", "curves", "episodes"):
            ours, theirs = disturbed.rows(kind), alone.rows(kind)
            equal = ours == theirs or [drop_rates(r) for r in ours] == [
                drop_rates(r) for r in theirs
            ]
            same &= equal
            say(f"{kind}: {len(ours)} rows, {'the same' if equal else 'NOT the same'}")
        keys = [
            (r["config_hash"], r["train_seed"], r["env_seed"]) for r in disturbed.rows("episodes")
        ]
        once = len(keys) == len(set(keys))
        attempts = sorted(status.get("attempts", 0) for status in disturbed.statuses())
        say(
            f"each (trial, start) {'exactly once' if once else 'MORE THAN ONCE'}; "
            f"attempts {attempts}"
        )
        return 0 if same and once else 1


def drop_rates(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row without seconds and rates."""
    return {k: v for k, v in row.items() if "second" not in k}


if __name__ == "__main__":
    sys.exit(main())

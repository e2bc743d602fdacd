"""Measures the overhead of a sweep, part by part, with `run_sweep.py`.

    python -m benchmarks.sweep_efficiency [--parts busy overhead plan memory images] [--quick]
                                          [--out results/sweep_efficiency.json]

busy      24 trials of about 30 s on two slots: training time / (wall time x slots), from the start
          of the command to its end (7 minutes).
overhead  seconds of one more trivial trial beside its training, on one slot: the slope between
          sweeps of few and of many trials; for comparison the slope of plain Tune function
          trainables that import torch and report once.
plan      a plan of 10,000 trials expanded, checked and printed (`--dry-run`).
memory    the driver's peak memory over a sweep of 1,000 trivial trials (a quarter of an hour).
images    resident and proportional memory of the workers while 1, 2 and 4 image trials run in
          parallel, and of their shared mapped copy of the demonstrations.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.world import ROOT, machine
from harness.core.paths import CACHE_VARIABLE
from harness.demos import source
from harness.sweep.folder import SweepFolder

EPOCHS = 20  # of a trial of `busy`
PARTS = ("busy", "overhead", "plan", "memory", "images")
TRIVIAL = {
    "policy.obs_mode": "keypoints",
    "policy.obs_horizon": 1,
    "policy.encoder.state_width": 16,
    "policy.energy.width": 16,
    "policy.inference.lattice": 9,
    "train.steps": 2,
    "train.epoch_steps": 2,
    "train.warmup_steps": 1,
    "train.batch_size": 16,
    "train.val_windows": 16,
    "select.seeds": 1,
}
REAL = {
    "policy.obs_mode": "keypoints",
    "policy.obs_horizon": 2,
    "train.batch_size": 256,
    "train.warmup_steps": 10,
    "select.seeds": 1,
}
IMAGE = {
    "policy.obs_mode": "image",
    "policy.obs_horizon": 1,
    "policy.encoder.channels": [8, 16, 16],
    "policy.encoder.reduce_maps": 8,
    "policy.energy.width": 16,
    "policy.inference.lattice": 9,
    "train.batch_size": 32,
    "train.warmup_steps": 1,
    "train.val_windows": 32,
    "select.seeds": 1,
}
_PLAIN = """
import os, sys, tempfile, time, warnings
warnings.simplefilter("ignore")
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AIR_NEW_OUTPUT="0")
import ray
from ray import tune
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR",
         log_to_driver=False, object_store_memory=100 * 2**20)
def trainable(config):
    import torch
    tune.report({"sum": float(torch.ones(3).sum())})
for count in map(int, sys.argv[1:]):
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"x": tune.grid_search(list(range(count)))},
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        print(count, time.perf_counter() - began, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="the overhead of a sweep")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="few and short trials")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
        "busy": busy, "overhead": overhead, "plan": plan, "memory": memory, "images": images,
    }  # fmt: skip
    print(f"{machine()}\n\n| part | figure | |\n|---|---|--:|", flush=True)
    figures: dict[str, Any] = {}
    for name in arguments.parts:
        with tempfile.TemporaryDirectory(prefix="sweep-efficiency-") as folder:
            figures[name] = parts[name](Path(folder), arguments.quick)
        for what, value in figures[name].items():
            print(f"| {name} | {what} | {value} |", flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"machine": machine(), **figures}, indent=1))


def busy(folder: Path, quick: bool) -> dict[str, Any]:
    """Return the share of the slots' time that was training."""
    trials, seconds = (4, 1.0) if quick else (24, 30.0)
    steps = _steps_of(folder / "calibration", seconds)
    settings = {**REAL, "train.steps": steps, "train.epoch_steps": max(1, steps // EPOCHS)}
    found = sweep(folder, settings, trials, "--cpus-per-trial", "1")
    each = SweepFolder(found.folder)
    status = list(each.statuses().values())
    trained = sum(one["train_seconds"] for one in status)
    selected = sum(one.get("select_seconds", 0.0) for one in status)
    slots = os.cpu_count() or 1
    spent = sum(one["finished"] - one["started"] for one in status)
    ends = sorted(one["finished"] for one in status)
    first = min(one["started"] for one in status)
    return {
        "trials": len(status),
        "training, s per trial": f"{trained / len(status):.1f}",
        "wall time, s": f"{found.wall:.1f}",
        f"training / (wall time x {slots} slots)": f"{trained / (found.wall * slots):.3f}",
        "the same, including selection": f"{(trained + selected) / (found.wall * slots):.3f}",
        "before the first trial, s": f"{first - found.began:.1f}",
        "other time of a trial, s": f"{(spent - trained - selected) / trials:.2f}",
        "its selection, one episode, s": f"{selected / trials:.2f}",
        "between two trials, s": (
            f"{(sum(ends[-slots:]) - slots * first - spent) / max(1, trials - slots):.2f}"
        ),
        "idle slots before the last trial ended, s": (
            f"{sum(ends[-1] - end for end in ends[-slots:]):.1f}"
        ),
        "after the last trial, s": f"{found.began + found.wall - ends[-1]:.1f}",
    }


def _steps_of(folder: Path, seconds: float) -> int:
    """Return the number of steps that take this time while another trial runs."""
    steps = 200
    for attempt in ("guess", "calibration"):  # with the trials' ratio of steps to epochs
        epoch = max(1, steps // EPOCHS)
        short = {**REAL, "train.steps": 4 * epoch, "train.epoch_steps": epoch}
        found = SweepFolder(sweep(folder / attempt, short, 2, "--cpus-per-trial", "1").folder)
        status = found.statuses().values()
        trained = sum(one["train_seconds"] for one in status) / len(status)
        steps = max(EPOCHS, round(seconds / trained * 4 * epoch))
    return steps


def overhead(folder: Path, quick: bool) -> dict[str, Any]:
    """Return the overhead of one more trial, here and with plain Tune."""
    few, many = (2, 4) if quick else (4, 24)
    walls, trained, selected = [], [], []
    for count in (few, many):
        found = sweep(folder / str(count), TRIVIAL, count, "--cpus-per-trial", str(os.cpu_count()))
        walls.append(found.wall)
        each = SweepFolder(found.folder)
        status = list(each.statuses().values())
        trained.append(sum(one["train_seconds"] for one in status))
        selected.append(sum(one.get("select_seconds", 0.0) for one in status))
    further = many - few
    plain_few, plain_many = (1, 2) if quick else (2, 8)
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN, "1", str(plain_few), str(plain_many)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    # The first of three runs is a warm-up.
    times = [float(line.split()[1]) for line in done.stdout.splitlines() if line.strip()][1:]
    slope, training, selecting = (
        (each[1] - each[0]) / further for each in (walls, trained, selected)
    )
    return {
        "one more trial, s": f"{slope:.2f}",
        "of it without training, s": f"{slope - training:.2f}",
        "and without its selection, s": f"{slope - training - selecting:.2f}",
        "one more plain Tune trial that imports torch, s": (
            f"{(times[1] - times[0]) / (plain_many - plain_few):.2f}"
        ),
        "the first trial, from the start of the command, s": f"{walls[0] - (few - 1) * slope:.1f}",
    }


def plan(folder: Path, quick: bool) -> dict[str, Any]:
    """Return the time to expand, check and print 10,000 trials."""
    configs, seeds = (20, 5) if quick else (2000, 5)
    found = sweep(folder, TRIVIAL, configs, "--dry-run", seeds=seeds)
    return {"trials": f"{configs * seeds:,}", "wall time, s": f"{found.wall:.1f}"}


def memory(folder: Path, quick: bool) -> dict[str, Any]:
    """Return the driver's peak memory."""
    trials = 4 if quick else 1000
    peak = 0

    def watch(pid: int) -> None:
        nonlocal peak
        peak = max(peak, status(pid, "VmHWM"))

    found = sweep(folder, TRIVIAL, trials, "--yes", watch=watch)
    return {
        "trials": f"{trials:,}",
        "wall time, s": f"{found.wall:.0f}",
        "driver's peak memory, MiB": f"{peak / 1024:.0f}",
    }


def images(folder: Path, quick: bool) -> dict[str, Any]:
    """Return the memory of parallel image trials."""
    cache = folder / "cache"
    os.environ[CACHE_VARIABLE] = str(cache)  # a separate file, so that only these trials map it
    try:
        demos = source.open_demos(source.resolve_source(), "image")
        assert demos.images is not None
        figures = {"the demonstrations' images, MiB": f"{demos.images.nbytes / 2**20:.0f}"}
        steps = 60 if quick else 600
        for count in (1, 2) if quick else (1, 2, 4):
            most: dict[str, int] = {}

            def watch(pid: int, most: dict[str, int] = most, count: int = count) -> None:
                found = _workers(cache)
                if found["workers"] == count and found["Pss"] > most.get("Pss", 0):
                    most.update(found)

            settings = {**IMAGE, "train.steps": steps, "train.epoch_steps": 20}
            share = f"{(os.cpu_count() or 1) / count:g}"
            sweep(folder / str(count), settings, count, "--cpus-per-trial", share, watch=watch)
            for what, key in (
                ("workers' resident", "Rss"), ("proportional", "Pss"), ("of it images", "images"),
            ):  # fmt: skip
                figures[f"{count} in parallel: {what}, MiB"] = f"{most.get(key, 0) / 1024:.0f}"
    finally:
        del os.environ[CACHE_VARIABLE]
    return figures


def _workers(cache: Path) -> dict[str, int]:
    """Return the memory (KiB) of other processes that map a file in `cache`."""
    total = {"workers": 0, "Rss": 0, "Pss": 0, "images": 0}
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        try:
            if str(cache) not in (folder / "maps").read_text():
                continue
            rollup, maps = (folder / "smaps_rollup").read_text(), (folder / "smaps").read_text()
        except OSError:
            continue  # the process has ended or belongs to another user
        mapped = re.search(rf"{re.escape(str(cache))}.*?^Pss:\s+(\d+)", maps, re.S | re.M)
        total["workers"] += 1
        total["images"] += int(mapped[1]) if mapped else 0
        for name in ("Rss", "Pss"):
            total[name] += _number(rollup, name)
    return total


def _number(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.M)
    return int(found[1]) if found else 0


def status(pid: int, name: str) -> int:
    try:
        return _number(Path(f"/proc/{pid}/status").read_text(), name)
    except OSError:
        return 0


class Swept:
    """A finished sweep: its folder, start time and wall time in seconds."""

    def __init__(self, folder: Path, began: float, wall: float) -> None:
        self.folder, self.began, self.wall = folder, began, wall


def sweep(
    folder: Path,
    settings: dict[str, Any],
    configs: int,
    *options: str,
    seeds: int = 1,
    watch: Callable[[int], None] | None = None,
) -> Swept:
    """Run `run_sweep.py` on configs that differ in their number of negatives.

    watch: called with the driver's process id several times per second.
    """
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / "space.yaml"
    arms = {f"{n} negatives": {"policy.negatives.count": n} for n in range(65, 64 + configs)}
    content: dict[str, Any] = {
        "version": 1,
        "name": "efficiency",
        "train_seeds": list(range(seeds)),
        "base": {**settings, "policy.negatives.count": 64},
    }
    if arms:
        content["questions"] = {"negatives": {"ask": "Which?", "arms": arms}}
    space.write_text(json.dumps(content))  # JSON is YAML
    results = folder / "results"
    command = [sys.executable, ROOT / "run_sweep.py", space, "--results", results, *options]
    with (folder / "log").open("w") as log:
        started, began = time.time(), time.perf_counter()
        driver = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=log, stderr=log)
        while driver.poll() is None:
            if watch is not None:
                watch(driver.pid)
            time.sleep(0.05 if watch is None else 0.2)
        wall = time.perf_counter() - began
    if driver.returncode:
        output = (folder / "log").read_text()[-2000:]
        raise SystemExit(f"run_sweep.py ended with {driver.returncode}:\n{output}")
    return Swept(results / "efficiency-standard", started, wall)


if __name__ == "__main__":
    main()

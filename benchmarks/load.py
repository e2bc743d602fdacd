"""Measures large loads: a big plan, reading tables, a long evaluation, readers beside a sweep.

    python -m benchmarks.load [--parts plan tables evaluation readers] [--quick]

plan        a plan of 2,000 trials expanded, checked and printed (`--dry-run`): time, peak memory.
tables      each command that reads on about 300 finished trials (300,000 episodes), with derived
            tables and from the trials' files (benchmarks/results_size.py).
evaluation  20,000 starts of a small policy on --workers: episodes a second (and a CPU second) and
            the memory of all its processes, in each quarter; both should be flat.
readers     8 processes that run the commands that read, one after the other, beside a sweep of 40
            trials of two seconds: none may fail or leave anything out. What a command takes, and
            the sweep's wall time with and without them.
"""

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import results_size, sweep_efficiency
from benchmarks.generated_sweep import Size
from benchmarks.results_size import QUICK
from benchmarks.sweep_efficiency import TRIVIAL
from benchmarks.world import ROOT, machine
from harness.storage import tables

GOLDEN = ROOT / "tests" / "golden" / "sweep_1" / "results"
TABLES = Size(configs=91, questions=8, train_seeds=3, select=50, report=900, epochs=40)
READERS, READING = 8, ("list", "show", "answers", "trials", "episodes", "best", "sql")
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the parts and print lines of Markdown tables."""
    parts: dict[str, Callable[[Path, argparse.Namespace], None]] = {
        "plan": plan, "tables": read_tables, "evaluation": evaluation, "readers": readers,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--workers", type=int, default=2, help="of the evaluation (2)")
    parser.add_argument("--quick", action="store_true", help="small ones, to see that it runs")
    given = parser.parse_args()
    print(machine(), flush=True)
    for name in given.parts:
        print(f"\n{name}\n", flush=True)
        with tempfile.TemporaryDirectory(prefix="load-") as folder:
            parts[name](Path(folder), given)


def plan(folder: Path, given: argparse.Namespace) -> None:
    """Print the time and peak memory of a dry run."""
    configs, seeds, peak = (10, 2, 0) if given.quick else (400, 5, 0)

    def watch(pid: int) -> None:
        nonlocal peak
        peak = max(peak, sweep_efficiency.status(pid, "VmHWM"))

    found = sweep_efficiency.sweep(folder, TRIVIAL, configs, "--dry-run", seeds=seeds, watch=watch)
    print("| trials | wall time, s | peak memory, MiB |\n|--:|--:|--:|")
    print(f"| {configs * seeds:,} | {found.wall:.1f} | {peak / 1024:.0f} |", flush=True)


def read_tables(folder: Path, given: argparse.Namespace) -> None:
    """Print the time and memory of the commands that read."""
    results_size.measure(folder, QUICK if given.quick else TABLES, derived_only=False)


@dataclass(frozen=True)
class State:
    """An evaluation at some time: its episodes, CPU seconds and resident memory (KiB)."""

    seconds: float
    episodes: int
    cpu: float
    memory: int


def evaluation(folder: Path, given: argparse.Namespace) -> None:
    """Print rate and memory in the quarters of a long evaluation."""
    starts = 400 if given.quick else 20_000
    results = folder / "results"
    shutil.copytree(GOLDEN, results)
    words = ["--ckpt", "best", "--seeds", str(starts), "--workers", str(given.workers)]
    words += ["--results", str(results)]
    states: list[State] = []
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run_eval.py"), *words],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        while process.poll() is None:
            cpu, memory = _session(process.pid)
            parts = sum(1 for _ in results.glob("golden/trials/*/episodes/eval-*-part*"))
            states.append(State(time.monotonic() - began, 25 * parts, cpu, memory))
            time.sleep(0.2 if given.quick else 1.0)
    rows = tables.read(results / "golden", "episodes")
    done = len({seed for seed in rows["env_seed"].to_pylist() if seed >= 300_000})
    if process.returncode or done < starts:
        raise SystemExit(f"{done} of {starts} starts, {(folder / 'log').read_text()[-2000:]}")
    wall = time.monotonic() - began
    print(f"{starts:,} starts in {wall:.0f} s, start and end included\n")
    print("| quarter | episodes/s | episodes/CPU s | resident memory, MiB: mean, most |")
    print("|---|--:|--:|--:|")
    for number in range(4):
        low, high = number * starts / 4, (number + 1) * starts / 4
        inside = [each for each in states if low < each.episodes <= high]
        if len(inside) < 2:
            continue
        first, last = inside[0], inside[-1]
        episodes = last.episodes - first.episodes
        rate = episodes / (last.seconds - first.seconds)
        efficiency = episodes / max(last.cpu - first.cpu, 1 / TICKS)
        memory = np.array([each.memory for each in inside]) / 1024
        print(
            f"| {number + 1} | {rate:.1f} | {efficiency:.1f} | {memory.mean():.0f}, "
            f"{memory.max():.0f} |",
            flush=True,
        )


def _session(session: int) -> tuple[float, int]:
    """Return CPU seconds and resident memory (KiB; shared pages in each) of a session's processes.

    Both without Ray's own: of the command and its workers, whose names begin so.
    """
    cpu, memory = 0.0, 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[3]) == session and (b"run_eval.py" in command or b"ray::" in command[:5]):
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            memory += sweep_efficiency.status(int(path.name), "VmRSS")
    return cpu, memory


def readers(folder: Path, given: argparse.Namespace) -> None:
    """Print what commands take beside a sweep, and what the sweep takes beside them."""
    trials, count = (4, 2) if given.quick else (40, READERS)
    settings = {**TRIVIAL, "train.steps": 400, "train.epoch_steps": 20}
    alone = sweep_efficiency.sweep(folder / "alone", settings, trials)
    taken: list[tuple[str, float]] = []
    with _reading(folder / "read" / "results", count, taken):
        read = sweep_efficiency.sweep(folder / "read", settings, trials)
    if tables.read(alone.folder, "trials").num_rows != tables.read(read.folder, "trials").num_rows:
        raise SystemExit("the sweep that was read has not the trials of the other")
    print("| command | times run | median s | slowest s |\n|---|--:|--:|--:|")
    for name in READING:
        walls = [wall for command, wall in taken if command == name]
        if walls:
            median = float(np.median(walls))
            print(f"| {name} | {len(walls)} | {median:.1f} | {max(walls):.1f} |")
    print(
        f"\n{trials} trials in {alone.wall:.0f} s alone, in {read.wall:.0f} s beside {count} "
        f"readers, of whose {len(taken)} commands none failed or left anything out",
        flush=True,
    )


@contextmanager
def _reading(results: Path, count: int, taken: list[tuple[str, float]]) -> Iterator[None]:
    """Run the commands that read again and again in the body; SystemExit for one that fails."""
    over, failed = threading.Event(), list[str]()

    def read(number: int) -> None:
        turns = itertools.cycle(READING[number % len(READING) :] + READING[: number % len(READING)])
        while not over.is_set() and not failed:
            if not list(results.glob("*/plan.json")):
                time.sleep(0.1)
                continue
            name = next(turns)
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "harness.results", name, "--results", str(results)],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            # Before a trial has finished, there is no best one.
            early = name == "best" and done.returncode == 2 and done.stderr.count("\n") == 1
            if (done.returncode or done.stderr) and not early:
                failed.append(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
            taken.append((name, time.monotonic() - began))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failed:
        raise SystemExit(failed[0])


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()

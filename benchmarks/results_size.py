"""Measures the cost of reading a big sweep: 1,000 trials, 1,000,000 episodes, with curves.

    python -m benchmarks.results_size [--derived-only] [--folder DIR] [--quick]
                                      [--out results/results_size.json]

The sweep is generated (benchmarks/generated_sweep.py) with the writers of real ones. Each command
runs in a new process, first with derived tables (the state after a sweep), then without (the state
after evaluations, where the trials' own files are read). Wall time includes imports; memory is the
peak. The limits are 10 s and 1 GiB for `show` and `report`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import generated_sweep
from benchmarks.generated_sweep import Size
from benchmarks.world import ROOT, machine
from harness.storage import tables

NAME = "generated"
QUICK = Size(configs=6, questions=2, train_seeds=2, select=10, report=20, epochs=5)
SECONDS, MIB = 10.0, 1024

# A process reads its own peak: its parent only knows the maximum over all children.
_MEASURED = """
import runpy, sys
sys.argv = ["harness.results.__main__", *sys.argv[1:]]
try:
    runpy.run_module("harness.results.__main__", run_name="__main__")
finally:
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            print(line, file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="time and memory of reading a big sweep")
    parser.add_argument("--derived-only", action="store_true", help="with derived tables only")
    parser.add_argument("--folder", type=Path, help="keep and reuse the generated sweep here")
    parser.add_argument("--quick", action="store_true", help="a few trials, to see that it runs")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else Size()
    results = arguments.folder or Path(tempfile.mkdtemp(prefix="results-size-"))
    try:
        rows = measure(results, size, derived_only=arguments.derived_only)
    finally:
        if arguments.folder is None:
            shutil.rmtree(results)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": machine(), "size": vars(size), "rows": rows}
        arguments.out.write_text(json.dumps(figures, indent=1))


def measure(
    results: Path, size: Size, *, derived_only: bool
) -> list[tuple[str, str, float, float]]:
    """Print and return the rows of a table: every command's wall time (s) and peak memory (MiB)."""
    sweep = results / NAME
    if not (sweep / "plan.json").exists():
        results.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        generated_sweep.write(sweep, size)
        print(f"generated in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(machine())
    questions = min(size.questions, size.configs - 1)
    print(f"{size.trials:,} trials, {size.episodes:,} episodes, {questions} questions\n")
    print("| command | tables | wall time, s | peak memory, MiB |\n|---|---|--:|--:|", flush=True)
    arms = ("question 0 / baseline", "question 0 / 1 negatives")
    commands = {
        "list": ("list",),
        "show": ("show", NAME),
        "answers": ("answers", NAME),
        "trials": ("trials", NAME),
        "compare": ("compare", *arms, "--sweep", NAME),
        "report": ("report", NAME),
    }
    rows = []
    shutil.rmtree(sweep / "tables", ignore_errors=True)
    for state in ("derived",) if derived_only else ("derived", "read from the trials' files"):
        if state == "derived":
            tables.rebuild(sweep)
        else:
            shutil.rmtree(sweep / "tables")
        for name, command in commands.items():
            wall, mib = run(results, command)
            rows.append((name, state, wall, mib))
            print(f"| {name} | {state} | {wall:.1f} | {mib:.0f} |", flush=True)
    within = all(
        wall <= SECONDS and mib <= MIB
        for name, state, wall, mib in rows
        if state == "derived" and name in ("show", "report")
    )
    verdict = "within" if within else "NOT within"
    print(f"\n`show` and `report` with derived tables: {verdict} {SECONDS:g} s and {MIB:,} MiB")
    return rows


def run(results: Path, command: tuple[str, ...]) -> tuple[float, float]:
    """Return the wall time (s) and peak memory (MiB) of one command in its own process."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *command, "--results", str(results)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    peak = next(line for line in done.stderr.splitlines()[::-1] if line.startswith("VmHWM"))
    return wall, int(peak.split()[1]) / 1024


if __name__ == "__main__":
    main()

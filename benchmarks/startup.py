"""CPU and wall time of the commands that only read: results, and a refused search space.

`python -m benchmarks.startup [--before FOLDER] [--rounds N]` runs each command in fresh processes
and prints medians. With --before the same commands of another checkout, run by its own
interpreter, take turns with these, and the ratio of CPU times is printed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "tests" / "golden" / "sweep_1" / "results"
READING = ("--help", "list", "show", "answers", "trials", "episodes", "best")
TYPO = "version: 1\ntrain_seeds: [0]\nbase: {train: {stesp: 900}}\n"


@dataclass(frozen=True)
class Command:
    """A command line and the exit code that it must have."""

    name: str
    arguments: tuple[str, ...]
    code: int = 0


def commands(checkout: Path, folder: Path) -> list[Command]:
    """Return the commands, which read a small sweep with fresh tables and a space with a typo."""
    results = folder / "results"
    shutil.copytree(RESULTS, results)
    space = folder / "typo.yaml"
    space.write_text(TYPO)
    module = ("-m", "harness.results")
    run(checkout, Command("rebuild", (*module, "rebuild", "--results", str(results))))
    found = [
        Command(f"results {name}", (*module, name, "--results", str(results))) for name in READING
    ]
    found.append(Command("results --wrong", (*module, "--wrong"), 2))
    found.append(Command("run_sweep.py TYPO.yaml", ("run_sweep.py", str(space), "--dry-run"), 2))
    return found


def run(checkout: Path, command: Command) -> tuple[float, float]:
    """Return the CPU seconds (user and system) and wall seconds of a command in a checkout."""
    python = checkout / ".venv" / "bin" / "python"
    interpreter = str(python) if checkout != ROOT and python.exists() else sys.executable
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [interpreter, *command.arguments], cwd=checkout, capture_output=True, check=False
    )
    after, wall = os.times(), time.perf_counter() - began
    if done.returncode != command.code:
        text = done.stderr.decode(errors="replace")
        raise SystemExit(f"{command.name} in {checkout} ended with {done.returncode}: {text}")
    cpu = after.children_user - before.children_user
    return cpu + after.children_system - before.children_system, wall


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    checkouts = [ROOT] if given.before is None else [given.before.resolve(), ROOT]
    heads = [] if given.before is None else ["CPU s before", "wall s before"]
    heads += ["CPU s", "wall s", *([] if given.before is None else ["CPU ratio"])]
    print(f"{'command':<24}" + "".join(f"{head:>15}" for head in heads))
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(len(checkouts))]
        listed = [commands(*each) for each in zip(checkouts, folders, strict=True)]
        for turns in zip(*listed, strict=True):
            command, pairs = turns[0], list(zip(checkouts, turns, strict=True))
            for checkout, each in pairs:  # fills the caches of files and byte code
                run(checkout, each)
            times = [[run(*pair) for pair in pairs] for _ in range(given.rounds)]
            medians = [
                statistics.median(values)
                for of_checkout in zip(*times, strict=True)
                for values in zip(*of_checkout, strict=True)
            ]
            cells = [f"{median:.3f}" for median in medians]
            if given.before is not None:
                cells.append(f"{medians[2] / medians[0]:.2f}")
            print(f"{command.name:<24}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

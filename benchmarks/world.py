"""Measures this environment against gym-pusht, in one run on the same demonstrations.

    python -m benchmarks.world [--seconds 3] [--rounds 3] [--out results/world.json]

gym-pusht needs pymunk < 7, so it has its own virtual environment under build/ (created in the first
run, with network access). A single environment runs on core 0. Several run in gymnasium's
AsyncVectorEnv for gym-pusht (a process for each environment, two cores), and in lockstep here: in
one process on one core, and in two processes on two. Both compute coverage and reward each step.
Each figure is the best of alternating rounds, because other load only slows a machine down.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "benchmarks/world_worker.py"
PEER = "gym-pusht"
TOGETHER = (2, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description="this environment's speed against gym-pusht's")
    parser.add_argument("--seconds", type=float, default=3.0, help="of stepping per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="the best of these is reported")
    parser.add_argument("--data", type=Path, default=ROOT / "data/expert.zarr")
    parser.add_argument("--peer-venv", type=Path, default=ROOT / "build/peers/gym-pusht")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    peer = peer_python(arguments.peer_venv)
    with tempfile.TemporaryDirectory() as folder:
        workload = Path(folder) / "workload.npz"
        write_workload(arguments.data, workload)
        measure = Measure(peer, workload, arguments.seconds, arguments.rounds)
        rows = [alone(measure, mode) for mode in ("state", "image")]
        rows += [together(measure, mode, n) for mode in ("state", "image") for n in TOGETHER]
        chipmunk = measure.best("chipmunk", "state", 0, cores=[0])
    versions = peer_versions(peer)
    print(machine(), versions, sep="\n", end="\n\n")
    table = [("", PEER, "ours, 1 process", "times", "ours, 2 processes", "times"), *rows]
    for row in table:
        print("| " + " | ".join(row) + " |")
        if row is table[0]:
            print("|---|" + "--:|" * 5)
    print(f"\nChipmunk alone on the same episodes: {chipmunk:,.0f} steps/s")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": machine(), "peer": versions, "rows": table, "chipmunk": chipmunk}
        arguments.out.write_text(json.dumps(figures, indent=1))


def peer_python(folder: Path) -> Path:
    """Return the Python of the peer's virtual environment; create it if missing."""
    python = folder / "bin/python"
    if not python.exists():
        print(f"creating {folder} for {PEER}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


def peer_versions(python: Path) -> str:
    code = (
        "from importlib.metadata import version as v;"
        "print(*(f'{n} {v(n)}' for n in ('gym-pusht', 'pymunk', 'gymnasium', 'numpy',"
        " 'opencv-python', 'pygame')), sep=', ')"
    )
    result = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return result.stdout.strip()


def machine() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


def write_workload(data: Path, path: Path, episodes: int = 40) -> None:
    """Write seeds, raw draws of the resets and actions of some demonstrations."""
    root = zarr.open_group(data, mode="r")
    ends = root["meta/episode_ends"][:episodes]
    seeds = root["meta/seeds"][:episodes]
    draws = []
    for seed in seeds.tolist():
        random = np.random.RandomState(seed)
        places = [random.randint(50, 450), random.randint(50, 450)]
        places += [random.randint(100, 400), random.randint(100, 400)]
        draws.append([*places, random.randn() * 2 * np.pi - np.pi])
    np.savez(path, seeds=seeds, draws=draws, actions=root["data/action"][: ends[-1]], ends=ends)


class Measure:
    """Runs workers in either environment and keeps the best of some rounds."""

    def __init__(self, peer: Path, workload: Path, seconds: float, rounds: int) -> None:
        self.peer = peer
        self.workload = workload
        self.seconds = seconds
        self.rounds = rounds

    def pair(self, mode: str, count: int, cores: list[int]) -> list[float]:
        """Return the best rates of the peer and of ours in one and in two processes."""
        runs: dict[str, list[float]] = {"peer": [], "one": [], "two": []}
        for _ in range(self.rounds):
            runs["peer"].append(self.rate("peer", mode, count, [cores]))
            runs["one"].append(self.rate("ours", mode, count, [[0]]))
            if count:
                runs["two"].append(self.rate("ours", mode, count, [[0], [1]]))
        return [max(rates, default=0.0) for rates in runs.values()]

    def best(self, world: str, mode: str, count: int, cores: list[int]) -> float:
        """Return the best rate of one worker on `cores`."""
        return max(self.rate(world, mode, count, [cores]) for _ in range(self.rounds))

    def rate(self, world: str, mode: str, count: int, places: list[list[int]]) -> float:
        """Return steps per second of parallel workers, one for each list of cores."""
        python = self.peer if world == "peer" else Path(sys.executable)
        command = [python, WORKER, world, mode, str(count), self.workload, str(self.seconds)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        if world == "peer":
            environment.pop("PYTHONPATH")
        workers = [
            subprocess.Popen(
                [str(part) for part in command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
            )
            for cores in places
        ]
        total = 0.0
        for worker in workers:
            output, _ = worker.communicate()
            if worker.returncode:
                raise SystemExit(f"{' '.join(map(str, command))} ended with {worker.returncode}")
            result: dict[str, Any] = json.loads(output.splitlines()[-1])
            total += result["steps"] / result["seconds"]
        return total


def alone(measure: Measure, mode: str) -> tuple[str, ...]:
    peer, ours, _ = measure.pair(mode, 0, [0])
    return (
        f"{mode}, one environment",
        f"{peer:,.0f}",
        f"{ours:,.0f}",
        f"{ours / peer:.1f}",
        "",
        "",
    )


def together(measure: Measure, mode: str, count: int) -> tuple[str, ...]:
    peer, one, two = measure.pair(mode, count, [0, 1])
    return (
        f"{mode}, {count} together",
        f"{peer:,.0f}",
        f"{one:,.0f}",
        f"{one / peer:.1f}",
        f"{two:,.0f}",
        f"{two / peer:.1f}",
    )


if __name__ == "__main__":
    main()

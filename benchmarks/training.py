"""Measures training and inference against a plain fp32 version of the same network, in one run.

    python -m benchmarks.training [--quick] [--threads 1 2] [--out results/training.json]
    python -m benchmarks.training --images [--rounds 8]
    python -m benchmarks.training --quality [--seeds 3] [--steps 1000]

Three versions alternate on the same demonstrations, with the same number of negatives:
plain       Diffusion Policy's network in plain PyTorch (benchmarks/plain_ibc.py);
ours        the same network, dropout masks by candidate or by window;
default     the default recipe at this width: an inner product, negatives shared by the batch.
Every figure is the best of the rounds, because other load only slows a machine down. Steps of large
networks have fewer windows, except for the default's 256. Memory is measured in a separate process.
`--images` compares the image recipes alone, in both number formats where the CPU has bf16 units.
`--quality` trains all versions from the same weights and prints the loss on held-out windows
(without dropout, with the same candidates) as mean and spread over seeds.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain_ibc import ROUNDS, SAMPLES
from benchmarks.plain_images import PlainImageTrainer
from benchmarks.training_cases import (
    Ours,
    Size,
    default_network,
    image_network,
    image_recipes,
    load,
    masks_by_candidate,
    plain,
    same_network,
)
from benchmarks.training_quality import compare
from benchmarks.world import machine
from harness.demos.source import resolve_source
from ibc.data.windows import Windows
from ibc.training.optim import cpu_has_bf16

SIZES = (
    Size(256, 256, 256),
    Size(256, 1024, 64),
    Size(512, 256, 64),
    Size(512, 1024, 32),
    Size(1024, 256, 32),
    Size(1024, 1024, 8),
)
QUICK = (Size(256, 256, 32), Size(512, 256, 16), Size(1024, 256, 4))
VERSIONS = ("plain", "ours, masks by candidate", "ours", "default")
# Steps of the default recipe are short, so several steps of 256 windows are timed together.
DEFAULT_BATCH, DEFAULT_STEPS = 256, 4
Rates = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="training and inference against a plain version")
    parser.add_argument("--data", type=Path, help="demonstrations (those of a sweep)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2, help="after a warm-up")
    parser.add_argument("--quick", action="store_true", help="small steps, one round, no memory")
    parser.add_argument("--images", action="store_true", help="the image recipes alone")
    parser.add_argument("--quality", action="store_true", help="compare losses instead of speed")
    parser.add_argument("--seeds", type=int, default=3, help="of --quality")
    parser.add_argument("--steps", type=int, default=1000, help="of --quality")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    source = resolve_source(arguments.data)
    if arguments.memory_of:
        print(json.dumps(memory_here(load(source.path)[0], arguments.memory_of)))
        return
    print(f"{machine()}, torch {torch.__version__}\n{source}\n", flush=True)
    if arguments.quality:
        figures: dict[str, Any] = compare(*load(source.path), arguments.seeds, arguments.steps)
    elif arguments.images:
        figures = image_speeds(source.path, arguments)
    else:
        figures = speeds(source.path, arguments)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"machine": machine(), **figures}, indent=1))


def speeds(data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    windows, _ = load(data)
    rounds = 1 if arguments.quick else arguments.rounds
    figures: dict[str, Any] = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        peak = matrix_rate(torch.float32)
        line = f"fp32 matrix products: {peak:.0f} GFLOP/s"
        if cpu_has_bf16():
            line += f", bf16: {matrix_rate(torch.bfloat16):.0f}"
        else:
            line += "; no bf16 units, so bf16 is not measured"
        print(f"## {threads} thread(s). {line}\n\nTraining, windows/s (share of the matrix rate)\n")
        rows: dict[str, Any] = {}
        head("width, negatives (windows a step)", *VERSIONS, *VERSIONS[1:])
        for size in QUICK if arguments.quick else SIZES:
            rates = in_turns(training(windows, size), rounds)
            name = f"{size.width}, {size.negatives} ({size.batch})"
            rows[name] = rates
            shares = [f" ({100 * rates[v] * work(size) / peak:.0f} %)" for v in VERSIONS[:3]]
            row(name, rates, [*shares, ""])
        print("\nInference, actions/s\n")
        acting: dict[str, Any] = {}
        head("width, observations at once", "plain", "ours", "default", "ours", "default")
        for width in (256,) if arguments.quick else (256, 512, 1024):
            for count in (1, 8):
                rates = in_turns(inference(windows, width, count), rounds)
                acting[f"{width}, {count}"] = rates
                row(f"{width}, {count}", rates, [""] * 3)
        reached = acting["256, 1"]["ours"] * SAMPLES * ROUNDS * 6 * 256**2 / 1e9 / peak
        print(f"\nours reaches {100 * reached:.0f} % of the matrix rate at width 256 alone")
        print("\nTraining on images, width 256, 256 negatives, 32 windows a step: windows/s\n")
        head("", "plain", "ours", "default", "ours", "default")
        rates = in_turns(images(load(data, "image")[0]), rounds)
        row("conv trunk", rates, [""] * 3)
        print(flush=True)
        figures[f"threads {threads}"] = {
            "fp32_gflops": peak, "training": rows, "inference": acting, "images": rates
        }  # fmt: skip
    if not arguments.quick:
        figures["memory"] = memory(data)
    return figures


def image_speeds(data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        print(f"## {threads} thread(s): training on images, windows/s\n")
        cases = image_recipes(data, steps=1 if arguments.quick else 4)
        head("", *cases, *list(cases)[1:])
        for dtype in (torch.float32, torch.bfloat16) if cpu_has_bf16() else (torch.float32,):
            for _, case in cases.values():
                case.trainer.dtype = dtype
            rates = in_turns({n: (k, c.epoch) for n, (k, c) in cases.items()}, arguments.rounds)
            name = str(dtype).removeprefix("torch.")
            row(name, rates, [""] * len(cases), against="before")
            figures[f"threads {threads}, {name}"] = rates
        print(flush=True)
    return figures


def in_turns(cases: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> Rates:
    """Return items per second of every case, the best of alternating rounds."""
    best = dict.fromkeys(cases, float("inf"))
    for number in range(rounds + 1):
        for name, (_, run) in cases.items():
            start = time.perf_counter()
            run()
            if number:  # round 0 is a warm-up
                best[name] = min(best[name], time.perf_counter() - start)
    return {name: items / best[name] for name, (items, _) in cases.items()}


def training(windows: Windows, size: Size) -> dict[str, tuple[int, Callable[[], object]]]:
    by_candidate = masks_by_candidate(same_network(size))
    default = Ours(windows, default_network(size), DEFAULT_BATCH, steps=DEFAULT_STEPS)
    return {
        "plain": (size.batch, plain(windows, size).step),
        "ours, masks by candidate": (size.batch, Ours(windows, by_candidate, size.batch).epoch),
        "ours": (size.batch, Ours(windows, same_network(size), size.batch).epoch),
        "default": (DEFAULT_BATCH * DEFAULT_STEPS, default.epoch),
    }


def inference(
    windows: Windows, width: int, count: int
) -> dict[str, tuple[int, Callable[[], object]]]:
    size = Size(width, 256, 8)
    theirs = plain(windows, size)
    numbers = torch.arange(count)
    obs = {"keypoints": torch.from_numpy(windows.batch(numbers.numpy())["keypoints"])}
    policies = [Ours(windows, make(size), 8) for make in (same_network, default_network)]

    def act(policy: Ours) -> Tensor:
        return policy.act(obs)

    return {
        "plain": (count, lambda: theirs.act(theirs.obs_LF[numbers])),
        "ours": (count, lambda: act(policies[0])),
        "default": (count, lambda: act(policies[1])),
    }


def images(windows: Windows) -> dict[str, tuple[int, Callable[[], object]]]:
    batch = 32
    ours, default = (
        Ours(windows, image_network(concat, 256, 256), batch) for concat in (True, False)
    )
    return {
        "plain": (batch, PlainImageTrainer(windows, 256, 256, batch).step),
        "ours": (batch, ours.epoch),
        "default": (batch, default.epoch),
    }


def work(size: Size) -> float:
    """Return the GFLOP of a window: forward, and backward to inputs and weights."""
    width = size.width
    return 3 * 2 * (3 * width**2 + 2 * width + width) * (size.negatives + 1) / 1e9


def matrix_rate(dtype: torch.dtype, side: int = 1024) -> float:
    """Return the GFLOP/s of the best of some square matrix products."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def memory(data: Path) -> dict[str, float]:
    """Return GiB beyond the data of a training step: width 1024, 1024 negatives, batch 256."""
    gib = {}
    for name in ("plain 8", "plain 16", "ours 256"):
        command = [sys.executable, "-m", "benchmarks.training", "--memory-of", name]
        output = subprocess.run(
            [*command, "--data", str(data)], check=True, capture_output=True, text=True
        ).stdout
        gib[name] = json.loads(output.splitlines()[-1])
    slope = (gib["plain 16"] - gib["plain 8"]) / 8
    gib["plain 256, by extrapolation"] = gib["plain 16"] + 240 * slope
    print("Memory of a training step, width 1024, 1024 negatives, in GiB beyond the data\n")
    for name, value in gib.items():
        print(f"- {name} windows: {value:.2f}" if name[-1].isdigit() else f"- {name}: {value:.1f}")
    return gib


def memory_here(windows: Windows, name: str) -> float:
    torch.set_num_threads(2)
    version, count = name.split()
    size = Size(1024, 1024, int(count))
    (torch.randn(64, 64) @ torch.randn(64, 64)).sum()  # so the libraries' memory is not counted
    # Not ru_maxrss: a process inherits its parent's if that was larger.
    before = status("VmRSS")
    if version == "plain":
        plain(windows, size).step()
    else:
        Ours(windows, same_network(size), size.batch).epoch()
    return (status("VmHWM") - before) / 2**20


def status(name: str) -> int:
    """Return a line of /proc/self/status in KiB: VmRSS is current memory, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def head(*names: str) -> None:
    print("| " + " | ".join(names) + " |\n|---|" + "--:|" * (len(names) - 1))


def row(name: str, rates: Rates, notes: list[str], against: str = "plain") -> None:
    cells = [f"{rate:,.1f}{note}" for rate, note in zip(rates.values(), notes, strict=True)]
    times = [f"{rate / rates[against]:.1f} x" for v, rate in rates.items() if v != against]
    print("| " + " | ".join([name, *cells, *times]) + " |", flush=True)


if __name__ == "__main__":
    main()

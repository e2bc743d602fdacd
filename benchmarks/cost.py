"""The cost of a big study: 1,000 trials x 3 training seeds x 500 episodes, from measured rates.

    python -m benchmarks.cost --sweep results/NAME      rates from a sweep's tables
    python -m benchmarks.cost                           rates measured now, in a short run

Prints a Markdown table: hours on 2 cores, one GPU, 64 GPUs. The GPU's rate is measured if there is
one, or given by --gpu-samples-per-second; otherwise the table says "not measured".
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from harness.core.errors import UserError
from harness.core.provenance import device_name
from harness.storage import tables

TRIALS, SEEDS, EPISODES, CORES = 1_000, 3, 500, 2
STEPS, BATCH = 20_000, 256  # of a trial, if no sweep is given
MEASURED_STEPS, MEASURED_EPISODES = 400, 50


@dataclass(frozen=True)
class Rates:
    """Training seconds per trial and episodes per second, both on one core; their origin."""

    train_seconds: float
    samples: float  # windows per trial
    episodes_per_second: float
    origin: str


def of_sweep(folder: Path) -> Rates:
    """Read the mean rates of a sweep's finished trials."""
    trials = tables.read(folder, "trials")
    trials = trials.filter(pc.equal(trials["status"], "finished"))
    episodes = tables.read(folder, "episodes")
    episodes = episodes.filter(pc.is_null(episodes["error"]))
    if not trials.num_rows or not episodes.num_rows:
        raise UserError(f"rates need finished trials, and {folder} has none")
    parts = [pc.fill_null(episodes[name], 0.0) for name in ("policy_ms", "env_ms", "render_ms")]
    spent = sum(pc.sum(part).as_py() for part in parts) / 1000
    seconds = pc.mean(trials["train_seconds"]).as_py()
    samples = pc.mean(pc.multiply(trials["samples_per_second"], trials["train_seconds"])).as_py()
    devices = ", ".join(sorted({name for name in trials["device"].to_pylist() if name}))
    origin = f"{trials.num_rows} trials, {episodes.num_rows} episodes of {folder.name} on {devices}"
    return Rates(seconds, samples, episodes.num_rows / spent, origin)


def measured(device: str = "cpu") -> Rates:
    """Train the ablations' keypoint baseline briefly on one thread and roll it out."""
    import torch

    from harness.config.protocol import Protocol, blocks
    from harness.config.trial_config import TrialConfig, resolve, to_dict
    from harness.evaluation.rollout import evaluate_block
    from harness.trials.runner import run_trial
    from ibc.policies.factory import load_policy

    torch.set_num_threads(1)
    base = to_dict(TrialConfig())
    config = resolve(
        base,
        {
            "train.steps": MEASURED_STEPS,
            "train.epoch_steps": MEASURED_STEPS // 4,
            "train.batch_size": BATCH,
            "select.seeds": 1,
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        done = run_trial(config, Path(folder) / "trial", device=device)
        rate = MEASURED_STEPS * BATCH / done["train_seconds"]
        policy = load_policy(Path(folder) / "trial" / "checkpoints" / "best")
        began = time.perf_counter()
        for block in blocks(range(300_000, 300_000 + MEASURED_EPISODES), 25):
            evaluate_block(policy, block, Protocol())
        episodes = MEASURED_EPISODES / (time.perf_counter() - began)
    samples = float(STEPS * BATCH)
    origin = f"measured now on {device_name(device)}: {STEPS:,} steps of {BATCH} per trial"
    return Rates(samples / rate, samples, episodes, origin)


def table(rates: Rates, gpu_samples_per_second: float | None, gpu_origin: str) -> str:
    """Return the costs as Markdown, in hours of an otherwise idle machine."""
    runs = TRIALS * SEEDS
    train = runs * rates.train_seconds / CORES
    roll = runs * EPISODES / rates.episodes_per_second / CORES
    lines = ["| on | training | evaluation | together |", "|---|--:|--:|--:|"]
    lines.append(line(f"{CORES} cores", train, roll))
    if gpu_samples_per_second is None:
        lines += [f"| {name}{' | not measured' * 3} |" for name in ("1 GPU", "64 GPUs")]
    else:
        one = runs * rates.samples / gpu_samples_per_second
        # Evaluation stays on CPUs: each GPU is counted with the same number of cores.
        lines.append(line("1 GPU", one, roll))
        lines.append(line("64 GPUs", one / 64, roll / 64))
    head = f"{TRIALS:,} trials x {SEEDS} training seeds, {EPISODES} episodes each"
    notes = [
        f"Rates: {rates.origin}; {rates.train_seconds:.0f} s of one core to train a trial, "
        f"{rates.episodes_per_second:.1f} episodes per second and core."
    ]
    if gpu_samples_per_second is None:
        notes.append(
            "There is no GPU to measure: pass --gpu-samples-per-second, the column "
            "samples_per_second of a trial that ran on yours."
        )
    else:
        notes.append(f"GPU: {gpu_samples_per_second:,.0f} samples per second ({gpu_origin}).")
        notes.append(f"Evaluation is counted on {CORES} cores for each GPU.")
    return "\n".join([head, "", *lines, "", *notes])


def line(name: str, train: float, roll: float) -> str:
    return f"| {name} | {hours(train)} | {hours(roll)} | {hours(train + roll)} |"


def hours(seconds: float) -> str:
    value = seconds / 3600
    return f"{value:,.1f} h" if value < 100 else f"{value:,.0f} h ({value / 24:,.0f} days)"


def gpu_rate(given: float | None) -> tuple[float | None, str]:
    """Return samples per second of one GPU and the origin of that number."""
    if given is not None:
        return given, "as given"
    import torch

    if not torch.cuda.is_available():
        return None, ""
    rates = measured("cuda")
    return rates.samples / rates.train_seconds, f"measured now on {device_name('cuda')}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", type=Path, metavar="DIR", help="read the rates from its tables")
    parser.add_argument("--gpu-samples-per-second", type=float, metavar="X")
    given = parser.parse_args()
    rates = measured() if given.sweep is None else of_sweep(given.sweep)
    print(table(rates, *gpu_rate(given.gpu_samples_per_second)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

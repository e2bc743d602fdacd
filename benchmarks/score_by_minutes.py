"""Score and success rate against minutes of training, for implicit and explicit policies.

    python -m benchmarks.score_by_minutes --methods ibc mse mdn diffusion --minutes 20 --out DIR
    python -m benchmarks.score_by_minutes --join DIR

Each method is trained once in its own process (--jobs in parallel). Its rate is measured first, and
its schedule has the number of steps that fit into --minutes of training. At each mark the averaged
weights are evaluated on the test seeds; only training counts as time. Each method writes
DIR/<method>.json; all of them are joined into a table and DIR/score_by_minutes.svg.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.svg import Curve, panels
from benchmarks.world import machine
from harness.config import trial_config
from harness.config.protocol import Protocol, blocks, parse_seeds
from harness.config.trial_config import TrialConfig
from harness.core.seeds import streams
from harness.demos.source import open_demos, resolve_source
from harness.evaluation.rollout import evaluate_block
from harness.stats.intervals import share_interval, wilson
from ibc.data.demos import Demos, split
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

# Overrides of the defaults, which are those of the energy model on keypoints.
METHODS: dict[str, dict[str, Any]] = {
    "ibc": {},
    "mse": {"policy.kind": "mse"},
    "mse-wide": {  # the best settings for regression in first experiments
        "policy.kind": "mse",
        "policy.energy": {"width": 512, "depth": 4, "dropout": 0.1},
        "train.learning_rate": 1e-3,
    },
    "mdn": {"policy.kind": "mdn"},
    "diffusion": {
        "policy.kind": "diffusion",
        "policy.action_horizon": 8,
        "policy.execute": 4,
        "policy.action.bounds": "steps",
    },
}
MARKS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # minutes; --minutes is always the last
EPOCHS = 100
RATE_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description="score against training minutes")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--data", type=Path, help="demonstrations (those of a sweep)")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--marks", type=float, nargs="+", help="minutes at which to evaluate")
    parser.add_argument("--seeds", type=int, default=200, help="test seeds from 300000 on")
    parser.add_argument("--train-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="per training")
    parser.add_argument("--jobs", type=int, default=1, help="methods trained in parallel")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all methods")
    parser.add_argument("--out", type=Path, default=Path("results/score_by_minutes"))
    parser.add_argument("--join", type=Path, help="only join the results in this folder")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        return run(arguments.methods[0], arguments)
    if arguments.join is None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(start, arguments.methods))
    return join(arguments.join or arguments.out)


def start(method: str) -> None:
    """Run one method with this command's arguments in its own process."""
    command = [sys.executable, "-m", "benchmarks.score_by_minutes", *sys.argv[1:]]
    subprocess.run([*command, "--methods", method, "--here"], check=True)


def run(method: str, arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    overrides = dict(pair.split("=", 1) for pair in arguments.set)
    given = {key: json.loads(value) for key, value in overrides.items()}
    demos = open_demos(resolve_source(arguments.data), "keypoints")
    settings = {**METHODS[method], **given}
    rate = steps_per_second(configure(settings, 10**6, 50), demos, arguments.train_seed)
    total = max(EPOCHS, round(rate * 60 * arguments.minutes))
    config = configure(settings, total, max(1, total // EPOCHS))
    trainer = make_trainer(config, demos, arguments.train_seed)
    marks = [m for m in arguments.marks or MARKS if m < arguments.minutes] + [arguments.minutes]
    seeds = parse_seeds(str(arguments.seeds))
    print(f"{method}: {rate:.1f} steps/s, {total} steps", flush=True)
    points, trained = [], 0.0
    for mark in marks:
        while trainer.step < total * mark / arguments.minutes and not trainer.done:
            before, metrics = trainer.step, trainer.run_epoch()
            samples = (trainer.step - before) * config.train.batch_size
            trained += samples / metrics["samples_per_second"]
        points.append({"minutes": trained / 60, "step": trainer.step, **evaluate(trainer, seeds)})
        print(f"{method}: {line(points[-1])}", flush=True)
    content = {
        "method": method,
        "machine": machine(),
        "threads": arguments.threads,
        "demonstrations": demos.fingerprint,
        "train_seed": arguments.train_seed,
        "config": trial_config.to_dict(config),
        "points": points,
    }
    (arguments.out / f"{method}.json").write_text(json.dumps(content, indent=1))


def configure(settings: Mapping[str, Any], steps: int, epoch_steps: int) -> TrialConfig:
    plan = {"train.steps": steps, "train.epoch_steps": epoch_steps, "train.val_windows": 128}
    warmup = min(500, steps // 10)
    return trial_config.resolve({**plan, "train.warmup_steps": warmup, **settings})


def make_trainer(config: TrialConfig, demos: Demos, train_seed: int) -> Trainer:
    seeds, policy = streams(train_seed), config.policy
    parts = split(demos, config.split)
    train, val = (
        Windows(demos, part, policy.obs_mode, policy.obs_horizon, policy.action_horizon)
        for part in (parts.train_episodes, parts.val_episodes)
    )
    built = build_policy(policy, fit_normalizer(policy, train), generator_seed=seeds["init"])
    return Trainer(built, train, val, config.train, seeds)


def steps_per_second(config: TrialConfig, demos: Demos, train_seed: int) -> float:
    """Return the rate of a short training without its first epoch."""
    trainer = make_trainer(config, demos, train_seed)
    trainer.run_epoch()
    spent, first = 0.0, trainer.step
    while spent < RATE_SECONDS:
        samples = config.train.epoch_steps * config.train.batch_size
        spent += samples / trainer.run_epoch()["samples_per_second"]
    return (trainer.step - first) / spent


def evaluate(trainer: Trainer, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Return score and success rate of the averaged weights with intervals, on one thread."""
    threads, begun = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    protocol = Protocol()
    rows = [
        row
        for block in blocks(seeds, protocol.block_size)
        for row in evaluate_block(trainer.policy_for_inference(), block, protocol)
    ]
    torch.set_num_threads(threads)
    for row in rows:
        if row["error"] is not None:
            raise SystemExit(f"the episode of seed {row['env_seed']} failed: {row['error']}")
    score = share_interval([row["score"] for row in rows])
    success = wilson(sum(row["success"] for row in rows), len(rows))
    return {
        "n": len(rows),
        "score": [score.value, score.low, score.high],
        "success": [success.value, success.low, success.high],
        "policy_ms_a_step": sum(r["policy_ms"] for r in rows) / sum(r["length"] for r in rows),
        "evaluation_seconds": time.perf_counter() - begun,
    }


def line(point: Mapping[str, Any]) -> str:
    score, success = point["score"], point["success"]
    return (
        f"{point['minutes']:.1f} min, step {point['step']}: score {score[0]:.3f} "
        f"[{score[1]:.3f}, {score[2]:.3f}], success {100 * success[0]:.1f} % "
        f"[{100 * success[1]:.1f}, {100 * success[2]:.1f}]"
    )


def join(folder: Path) -> None:
    """Print the table of all methods in the folder and draw their curves."""
    known = {method: folder / f"{method}.json" for method in METHODS}
    found = {m: json.loads(path.read_text()) for m, path in known.items() if path.exists()}
    if not found:
        raise SystemExit(f"{folder} has no results of any method")
    table = Table("method", "minutes", "steps", "score", "95 %", "success", "95 %", "ms/action")
    for method, result in found.items():
        for point in result["points"]:
            (score, *around), (success, *near) = point["score"], point["success"]
            table.add_row(
                method,
                f"{point['minutes']:.1f}",
                str(point["step"]),
                f"{score:.3f}",
                "{:.3f} to {:.3f}".format(*around),
                f"{100 * success:.1f} %",
                "{:.1f} to {:.1f}".format(*(100 * value for value in near)),
                f"{point['policy_ms_a_step']:.2f}",
            )
    seeds, threads = (
        " or ".join(map(str, sorted(numbers)))
        for numbers in (
            {point["n"] for result in found.values() for point in result["points"]},
            {result["threads"] for result in found.values()},
        )
    )
    Console(width=120).print(table)
    print(f"{seeds} test seeds, {threads} thread(s) each, {next(iter(found.values()))['machine']}")
    curves = {
        title: [
            Curve(method, [(p["minutes"], *p[name]) for p in result["points"]])
            for method, result in found.items()
        ]
        for title, name in (("score", "score"), ("success rate", "success"))
    }
    drawing = folder / "score_by_minutes.svg"
    drawing.write_text(panels(curves, "minutes of training"), encoding="utf-8")
    print(f"wrote {drawing}")


if __name__ == "__main__":
    main()

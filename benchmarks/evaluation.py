"""Measures evaluation against gymnasium's AsyncVectorEnv, in one run on two cores.

    python -m benchmarks.evaluation [--episodes 100] [--only keypoints|image] [--ckpt DIR ...]
                                    [--quick] [--out results/evaluation.json]

The peer is AsyncVectorEnv over gym-pusht with a process for each environment, the policy called on
the batch in the main process, finished environments stepped until the whole batch is done. Both
sides use the same weights, candidates, initial states and random numbers for each episode. The peer
is timed for some seconds with every number of environments and threads, and its best setting runs
all episodes. Ours is what `run_eval.py` runs: blocks of 25 in lockstep on two one-thread workers.
Without `--ckpt`, small policies are trained first, about a minute each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.world import ROOT, machine, peer_python, peer_versions
from envs.batched import LockstepPushT
from harness.config.protocol import Protocol, blocks
from harness.config.trial_config import resolve
from harness.core.seeds import REPORT_SEEDS
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import open_pool
from harness.stats import intervals
from harness.trials.runner import run_trial
from ibc.policies.base import read_config

PEER_WORKER = ROOT / "benchmarks/evaluation_peer.py"
WORKERS = 2
IMAGE = {
    "policy.obs_mode": "image",
    "policy.encoder.trunk": "conv",
    "policy.encoder.reduce_maps": 32,
    "policy.encoder.pooling": "softargmax",
    "policy.encoder.stacking": "features",
    "train.batch_size": 64,
}
COMMON = {
    "policy.obs_horizon": 2,
    "policy.action.frame": "agent",
    "policy.action.bounds": "window",
    "policy.action.window": 100.0,
    "train.warmup_steps": 20,
    "train.val_windows": 64,
    "select.seeds": 1,
}
POLICIES: dict[str, tuple[int, dict[str, Any]]] = {  # steps of about a minute, settings
    "keypoints": (1500, {"policy.obs_mode": "keypoints", "train.batch_size": 256}),
    "keypoints, width 64": (
        1500,
        {
            "policy.obs_mode": "keypoints",
            "train.batch_size": 256,
            "policy.energy.width": 64,
            "policy.encoder.state_width": 64,
        },
    ),
    "image": (150, IMAGE),
    "image, narrow trunk": (150, {**IMAGE, "policy.encoder.channels": [16, 32, 64]}),
}


@dataclass(frozen=True)
class Side:
    """The times and scores of one side.

    wall: seconds for all episodes; start: seconds before the first step; episodes: how many were
    run; shares: of `wall`, by part; scores: by seed; how: the setting, as text.
    """

    wall: float
    start: float
    episodes: int
    shares: dict[str, float]
    scores: dict[int, float]
    how: str

    @property
    def rate(self) -> float:
        """Episodes per second."""
        return self.episodes / self.wall


def main() -> None:
    parser = argparse.ArgumentParser(description="evaluation against gymnasium's AsyncVectorEnv")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--only", choices=("keypoints", "image"), help="policies of this kind")
    parser.add_argument(
        "--ckpt", type=Path, action="append", default=[], help="instead of training"
    )
    parser.add_argument("--environments", type=int, nargs="+", default=[2, 8, 25, 50])
    parser.add_argument(
        "--probe", type=float, default=20.0, help="seconds for each setting of the peer"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of an untrained policy")
    parser.add_argument("--peer-venv", type=Path, default=ROOT / "build/peers/gym-pusht")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    peer = peer_python(arguments.peer_venv)
    print(f"{machine()}, torch {torch.__version__}; {peer_versions(peer)}\n", flush=True)
    protocol = Protocol(max_episode_steps=20) if arguments.quick else Protocol()
    count = 4 if arguments.quick else arguments.episodes
    seeds = list(REPORT_SEEDS[:count])
    found: dict[str, tuple[Side, Side]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {str(path): path for path in arguments.ckpt}
        if not checkpoints:
            names = [n for n in POLICIES if n.startswith(arguments.only or "")]
            for name in names[:1] if arguments.quick else names:
                checkpoints[name] = train(name, Path(folder), quick=arguments.quick)
        for name, checkpoint in checkpoints.items():
            mode = read_config(checkpoint).obs_mode
            spec = {"mode": mode, "seeds": seeds, "steps": protocol.max_episode_steps}
            theirs = best_of_peer(peer, checkpoint, spec, arguments)
            ours = here(checkpoint, seeds, protocol)
            found[name] = theirs, ours
            print(f"\n{name}: {agreement(theirs, ours)}", flush=True)
    print("\n" + "\n".join(tables(found)))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        figures = {name: [vars(side) for side in sides] for name, sides in found.items()}
        arguments.out.write_text(json.dumps({"machine": machine(), **figures}, indent=1))


def train(name: str, folder: Path, *, quick: bool) -> Path:
    """Train a small policy and return its checkpoint."""
    steps, settings = POLICIES[name]
    steps = 20 if quick else steps
    epoch = min(steps, 50)
    length = {"train.steps": steps, "train.epoch_steps": epoch}
    if quick:
        length |= {"train.batch_size": 16, "train.warmup_steps": 5, "policy.energy.width": 16}
    directory = folder / name.replace(", ", "-").replace(" ", "-")
    began = time.perf_counter()
    run_trial(resolve(COMMON, settings, length), directory)
    print(f"{name}: trained for {time.perf_counter() - began:.0f} s", flush=True)
    return directory / "checkpoints" / "best"


def best_of_peer(
    peer: Path, checkpoint: Path, spec: dict[str, Any], arguments: argparse.Namespace
) -> Side:
    """Time every setting of the peer briefly, then run all episodes with the fastest."""
    tried: list[tuple[float, int, int]] = []
    numbers = [2] if arguments.quick else arguments.environments
    for count in numbers:
        for threads in (1,) if arguments.quick else (1, 2):
            rate = there(peer, checkpoint, spec, count, threads, arguments.probe).rate
            print(f"  {count} environments, {threads} thread(s): {rate:.2f} episodes/s", flush=True)
            tried.append((rate, count, threads))
    _, count, threads = max(tried)
    return there(peer, checkpoint, spec, count, threads, 1e9)


def there(
    peer: Path, checkpoint: Path, spec: dict[str, Any], count: int, threads: int, seconds: float
) -> Side:
    """Evaluate with the peer in whole batches until the time is over."""
    behind = [place for place in sys.path if place.endswith("site-packages")] + [str(ROOT)]
    spec = {**spec, "checkpoint": str(checkpoint), "count": count, "threads": threads}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({**spec, "seconds": seconds, "behind": behind}, file)
        file.flush()
        # One thread for each environment's process; the worker sets torch's threads itself.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        command = [str(peer), str(PEER_WORKER), file.name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    result = json.loads(done.stdout.splitlines()[-1])
    wall, cores = result["wall"], min(count, os.cpu_count() or 1)
    shares = {
        "inference": result["inference"] / wall,
        "world": result["world"] / cores / wall,
        "rendering": result["rendering"] / cores / wall,
    }
    if spec["mode"] != "image":
        starts = np.array(list(result["states"].values()))
        seeds = [int(seed) for seed in result["states"]]
        apart = float(np.abs(_starts(seeds) - starts)[:, :4].max())
        if apart > 1e-6:
            raise SystemExit(f"both sides must start from the same states, got {apart} px")
    scores = {int(seed): score for seed, score in result["scores"].items()}
    how = f"{count} environments, {threads} thread{'s' if threads > 1 else ''}"
    return Side(wall, result["start"], result["episodes"], shares, scores, how)


def _starts(seeds: list[int]) -> np.ndarray[Any, Any]:
    world = LockstepPushT(seeds)
    world.reset()
    return world.states.copy()


def here(checkpoint: Path, seeds: list[int], protocol: Protocol) -> Side:
    """Evaluate as `run_eval.py` does, on two workers."""
    source = Source(checkpoint=checkpoint)
    began = time.perf_counter()
    with open_pool(protocol, WORKERS) as pool:
        # Workers start and load the policy with their first block, so each runs one episode first.
        list(pool.run([Task(source, (seeds[0],)), Task(source, (seeds[-1],))]))
        start = time.perf_counter() - began
        began = time.perf_counter()
        tasks = [Task(source, block) for block in blocks(seeds, protocol.block_size)]
        rows = [row for _, outcome in pool.run(tasks) for row in outcome.rows]
        wall = time.perf_counter() - began
    columns = {"inference": "policy_ms", "world": "env_ms", "rendering": "render_ms"}
    shares = {
        name: sum(row[column] for row in rows) / 1e3 / (wall * WORKERS)
        for name, column in columns.items()
    }
    scores = {row["env_seed"]: row["score"] for row in rows}
    return Side(wall, start, len(rows), shares, scores, f"{WORKERS} workers")


def agreement(theirs: Side, ours: Side) -> str:
    """Return both mean scores and their paired difference as text."""
    seeds = sorted(theirs.scores.keys() & ours.scores.keys())
    a, b = (np.array([side.scores[seed] for seed in seeds]) for side in (theirs, ours))
    difference = intervals.paired_difference(b[None], a[None])
    return (
        f"score {a.mean():.3f} (peer) and {b.mean():.3f} (ours) on the same {len(seeds)} starts, "
        f"difference {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    )


def tables(found: dict[str, tuple[Side, Side]]) -> list[str]:
    """Return the figures as Markdown."""
    lines = [
        "| policy | AsyncVectorEnv, episodes/s | at its best with | ours, episodes/s | times |"
    ]
    lines.append("|---|--:|---|--:|--:|")
    for name, (theirs, ours) in found.items():
        times = ours.rate / theirs.rate
        lines.append(
            f"| {name} | {theirs.rate:.2f} | {theirs.how} | {ours.rate:.2f} | {times:.1f} x |"
        )
    lines += ["", "| share of the time | inference | world | rendering | rest | start |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for name, sides in found.items():
        for side, whose in zip(sides, ("AsyncVectorEnv", "ours"), strict=True):
            rest = max(0.0, 1 - sum(side.shares.values()))
            cells = [f"{share:.0%}".replace("%", " %") for share in (*side.shares.values(), rest)]
            lines.append(f"| {name}, {whose} | " + " | ".join(cells) + f" | {side.start:.1f} s |")
    return lines


if __name__ == "__main__":
    main()

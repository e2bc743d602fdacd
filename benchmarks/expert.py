"""Success and movement of the planner, beside the human demonstrations.

    python benchmarks/expert.py [--seeds N] [--data PATH]

Plans the test seeds 300000.. on one core and prints successes, lengths and seconds; then speed,
jerk and idle share of these episodes and of the demonstrations at PATH (default: the downloaded
ones in data/, if present). Jerk is the third difference of the agent's recorded position.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table

from envs.expert.demonstrator import plan_episode

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 300_000
IDLE = 1.0  # px per step: slower counts as idle

Pairs = list[tuple[np.ndarray, np.ndarray]]


def movement(episodes: Pairs) -> dict[str, str]:
    """Return statistics of (states, actions) pairs: lag, speed and jerk, idle share."""
    lag, speed, jerk = [], [], []
    for states, actions in episodes:
        agent = states[:, :2].astype(np.float64)
        lag.append(np.linalg.norm(actions - agent, axis=1))
        speed.append(np.linalg.norm(np.diff(agent, axis=0), axis=1))
        jerk.append(np.linalg.norm(np.diff(agent, n=3, axis=0), axis=1))
    found = {}
    for name, parts in (("|action - agent|", lag), ("speed", speed), ("jerk", jerk)):
        values = np.concatenate(parts)
        found[f"{name}: mean"] = f"{values.mean():.1f}"
        for percent in (50, 90, 99):
            found[f"{name}: {percent} %"] = f"{np.percentile(values, percent):.1f}"
    found["idle share (< 1 px per step)"] = f"{np.mean(np.concatenate(speed) < IDLE):.3f}"
    return found


def recorded(path: Path) -> Pairs:
    """Read (states, actions) of every episode of a store."""
    root = zarr.open_group(str(path), mode="r")
    ends = np.asarray(root["meta/episode_ends"][:])
    arrays = [np.asarray(root[name][:]) for name in ("data/state", "data/action")]
    return list(zip(*(np.split(array, ends[:-1]) for array in arrays), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--data", type=Path, default=ROOT / "data/pusht_cchi_v7_replay.zarr")
    given = parser.parse_args()
    console = Console()
    start = time.perf_counter()
    episodes = [plan_episode(seed) for seed in range(FIRST_SEED, FIRST_SEED + given.seeds)]
    seconds = time.perf_counter() - start
    lengths = np.array([len(episode.actions) for episode in episodes])
    console.print(
        f"seeds {FIRST_SEED}-{FIRST_SEED + given.seeds - 1}: "
        f"{sum(episode.success for episode in episodes)} of {given.seeds} above coverage 0.95; "
        f"steps: median {np.median(lengths):.0f}, 95 % {np.percentile(lengths, 95):.0f}, "
        f"longest {lengths.max()}; {seconds / given.seeds:.2f} s per episode, "
        f"{1e3 * seconds / lengths.sum():.1f} ms per step"
    )
    columns = {"demonstrator": movement([(e.states, e.actions) for e in episodes])}
    columns["built-in set"] = movement(recorded(ROOT / "data/expert.zarr"))
    if given.data.exists():
        columns["human"] = movement(recorded(given.data))
    table = Table("px per step", *columns, title="movement")
    for row in columns["demonstrator"]:
        table.add_row(row, *(column[row] for column in columns.values()))
    console.print(table)


if __name__ == "__main__":
    main()

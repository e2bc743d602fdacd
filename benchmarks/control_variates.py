"""How many starts are saved by what is known of each start beforehand: control variates.

    python -m benchmarks.control_variates [--repeats N] [--starts N]

The test rows of docs/tables/recipes-bf16 (500 starts) are the population, and the mean score of few
of its starts is adjusted by regression for a covariate whose mean over all starts is known
(Lavenberg and Welch 1981, Management Science 27(3); Cochran 1977, chapter 7). Prints for each
policy as how many plain starts the adjusted ones count. "pose": the covariates are the T's squared
angle and distance to its goal and the agent's squared distance to the T; in truth (from the
variance of the adjusted mean over many draws) and as the regression itself says. "one seed", "all
seeds": the covariate is the score of a reference policy on each start, from one or all other
training seeds of the same config; "other data": from all training seeds of the other config; all
three from the share of the variance that it explains on the 500 starts. "covers": the plain 95 %
interval.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.physics.dynamics import World
from envs.physics.geometry import GOAL_POSE
from harness.core import errors
from harness.stats.intervals import share_interval
from harness.storage import episode_table, table_schemas

ROWS = Path(__file__).resolve().parents[1] / "docs" / "tables" / "recipes-bf16" / "episodes.parquet"
SEEDS = range(300_000, 300_500)
COLUMNS = "score", "success"

Floats = NDArray[np.float64]


def poses(seeds: range) -> Floats:
    """Return what is known of each start: the squared angle (rad2) and two squared distances."""
    world, found = World(), []
    goal_x, goal_y, goal_angle = GOAL_POSE
    for seed in seeds:
        world.reset(seed)
        agent_x, agent_y, x, y, angle = world.values
        turned = math.remainder(angle - goal_angle, 2 * math.pi)
        far = (x - goal_x) ** 2 + (y - goal_y) ** 2
        found.append((turned**2, far, (agent_x - x) ** 2 + (agent_y - y) ** 2))
    return np.array(found)


def adjusted(values: Floats, covariates: Floats, expected: Floats) -> tuple[float, float]:
    """Return the mean adjusted to the covariates' known means, and its worth in plain values."""
    n, p = covariates.shape
    scale = covariates.std(0)
    design = np.column_stack([np.ones(n), (covariates - expected) / scale])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ values
    rest = values - design @ coefficients
    variance = float(rest @ rest) / (n - p - 1) * inverse[0, 0]
    return float(coefficients[0]), float(values.var(ddof=1) / variance) if variance else float(n)


def main() -> int:
    parser = errors.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--starts", type=int, default=200)
    given: argparse.Namespace = parser.parse_args()
    found: dict[tuple[str, int], dict[str, Floats]] = {}
    trials = episode_table.by_trial(table_schemas.read_file(ROWS, "episodes"))
    for key, rows in trials.items():
        test = episode_table.within(rows, SEEDS).sort_by("env_seed")
        if test["env_seed"].to_pylist() == list(SEEDS):
            found[key] = {name: test[name].cast("float64").to_numpy() for name in COLUMNS}
    # Ensembles have a config and no other training seed.
    several = {name for name, _ in found if sum(name == other for other, _ in found) > 1}
    found = {key: values for key, values in found.items() if key[0] in several}
    known, rng, n = poses(SEEDS), np.random.default_rng(0), given.starts
    head = "mean | covers | pose, true | pose, said | one seed | all seeds | other data"
    print(f"| policy | column | {head} |\n|---|---|" + "--:|" * 7)
    for (name, seed), of_policy in found.items():
        for column, values in of_policy.items():
            drawn = rng.integers(len(SEEDS), size=(given.repeats, n))
            plain = values[drawn].mean(1)
            means, worth = np.array(
                [adjusted(values[at], known[at], known.mean(0)) for at in drawn]
            ).T
            held = [share_interval(values[at]) for at in drawn]
            covers = np.mean([each.low <= values.mean() <= each.high for each in held])
            same = [v[column] for k, v in found.items() if k[0] == name and k[1] != seed]
            other = [v[column] for k, v in found.items() if k[0] != name]
            references = (same[0], np.mean(same, axis=0), np.mean(other, axis=0))
            shares = [np.corrcoef(values, reference)[0, 1] ** 2 for reference in references]
            cells = [f"{n * plain.var() / means.var():.0f}", f"{worth.mean():.0f}"]
            cells += [f"{n / (1 - share):.0f}" for share in shares]
            text = f"{values.mean():.3f} | {covers:.1%} | {' | '.join(cells)}"
            print(f"| {name[:4]}-s{seed} | {column} | {text} |", flush=True)
    return errors.OK


if __name__ == "__main__":
    sys.exit(errors.run(main))

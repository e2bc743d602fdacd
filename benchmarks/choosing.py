"""Which offline number ranks policies as their rollouts do: rank correlations over a sweep.

    python -m benchmarks.choosing results/NAME [results/NAME ...]

Each selected trial gives one point: the numbers of its last epoch against the score and the success
rate of its selection episodes. Prints Spearman's correlation with its p-value as a Markdown table,
within each data set's trials; -1 is a number whose lowest value is the best policy.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from scipy import stats

from harness.core import errors
from harness.core.errors import OK, UserError
from harness.core.seeds import SELECT_SEEDS
from harness.storage import tables

NUMBERS = {
    "validation loss": "val_loss",
    "error of the readout": "val_readout_error_px",
    "error around contacts": "val_contact_error_px",
    "copied motion": "val_copied_motion",
    "training loss": "train_loss",
}
RESULTS = {"score": "score_mean", "success rate": "success_mean"}
FEWEST = 5  # trials


def points(folder: Path) -> dict[str, np.ndarray]:
    """Return each number of the trials that have all of them, and their two results."""
    last: dict[tuple[str, int], dict[str, float]] = {}
    for row in tables.read(folder, "curves").to_pylist():
        key = row["config_hash"], row["train_seed"]
        if key not in last or row["step"] > last[key]["step"]:
            last[key] = row
    episodes = tables.read(folder, "episodes")
    selected = episodes.filter(pc.less(episodes["env_seed"], SELECT_SEEDS.stop))
    means = selected.group_by(["config_hash", "train_seed"]).aggregate(
        [("score", "mean"), ("success", "mean")]
    )
    found: dict[str, list[float]] = {name: [] for name in (*NUMBERS, *RESULTS)}
    for row in means.to_pylist():
        metrics = last.get((row["config_hash"], row["train_seed"]), {})
        values = [metrics.get(column) for column in NUMBERS.values()]
        if all(value is not None for value in values):
            values += [row[column] for column in RESULTS.values()]
            for name, value in zip(found, values, strict=True):
                found[name].append(float(value))
    return {name: np.array(values) for name, values in found.items()}


def main() -> int:
    """Print the table of every folder."""
    parser = errors.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="results/NAME")
    for folder in parser.parse_args().folders:
        found = points(folder)
        count = len(found["score"])
        if count < FEWEST:
            raise UserError(f"a rank correlation needs {FEWEST} finished trials, given {count}")
        print(f"\n{folder.name}, {count} trials\n\n| number | with the score | with success |")
        print("|---|--:|--:|")
        for name in NUMBERS:
            cells = []
            for result in RESULTS:
                correlation = stats.spearmanr(found[name], found[result])
                cells.append(f"{correlation.statistic:+.2f} (p {correlation.pvalue:.3f})")
            print(f"| {name} | {' | '.join(cells)} |")
    return OK


if __name__ == "__main__":
    sys.exit(errors.run(main))

"""Which failure modes are reported by name, for each recipe.

    python -m benchmarks.health_table            (two minutes of one core)
    python -m benchmarks.health_table dp_state   (some recipes only)

Runs are small (benchmarks/health_cases.py): the built-in demonstrations, narrow networks, some
hundred steps. A cell is "named" if the failure mode is reported by its own name, "-" if the recipe
cannot have it. The last row is the same run with nothing broken.
"""

import sys
import time

from benchmarks.health_cases import CASES, SAVING, names, small, swallowed_save
from harness.demos.source import open_demos
from ibc.config.presets import PRESETS
from ibc.config.training import SplitConfig
from ibc.data.demos import Demos, split

OURS = ("ibc", "mse", "mdn", "diffusion", "images")


def column(demos: Demos, recipe: str) -> list[str]:
    """Return a recipe's cells: every failure mode, checkpoint saving, and the healthy run."""
    policy, parts = small(recipe), split(demos, SplitConfig())
    cells = []
    for case in CASES:
        if case.applies(policy):
            cells.append("named" if case.name in names(demos, policy, case, parts) else "MISSED")
        else:
            cells.append("-")
    cells.append("named" if swallowed_save(demos, policy) else "MISSED")
    return [*cells, ", ".join(names(demos, policy, None, parts)) or "none"]


def main(recipes: list[str]) -> int:
    """Print the table; return 1 if a failure mode is missed or a healthy run has a finding."""
    demos = open_demos("data/expert.zarr", "image")
    columns = {}
    for recipe in recipes or [*OURS, *PRESETS]:
        start = time.perf_counter()
        columns[recipe] = column(demos, recipe)
        print(f"{recipe}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(f"| failure mode | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    rows = [*(case.entry for case in CASES), SAVING, "nothing broken"]
    for i, row in enumerate(rows):
        print(f"| {row} | {' | '.join(cells[i] for cells in columns.values())} |")
    cells = [cell for made in columns.values() for cell in made]
    return int("MISSED" in cells or {made[-1] for made in columns.values()} != {"none"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The table that `python -m harness.demos info` prints."""

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from harness.data import Source
from harness.demo_stats import STRAYED_PX, Statistics
from harness.errors import one_line
from harness.protocol import THRESHOLDS
from ibc.demos import Demos

QUANTILES = (0, 5, 50, 95, 100)


def table(found: Statistics) -> Table:
    """A row for each quantity with its mean and its quantiles."""
    drawn = Table()
    drawn.add_column("quantity")
    for heading in ("mean", "least", "5 %", "median", "95 %", "most"):
        drawn.add_column(heading, justify="right")
    for name, values, digits in (
        ("episode length (steps)", found.lengths, 0),
        ("coverage reached by replay", found.coverage, 3),
        ("coverage at the end", found.final_coverage, 3),
        ("agent's speed (px/step)", found.speed, 1),
        ("target's distance (px)", found.reach, 1),
        ("action jerk (px/step^3)", found.jerk, 1),
        ("idle share of steps", found.idle, 3),
    ):
        drawn.add_row(name, *_cells(values, digits))
    return drawn


def lines(source: Source, demos: Demos, found: Statistics) -> list[str]:
    """What is said of the data set as a whole."""
    total = len(demos.episode_ends)
    images = "stored" if demos.pixels is not None else "drawn when needed"
    reached = ", ".join(f"{(found.coverage > c).sum()} above {c:.2f}" for c in THRESHOLDS)
    strayed = int((found.drift_px > STRAYED_PX).sum())
    return [
        one_line(source),
        f"{total} episodes, {len(demos.action)} steps, images {images}",
        f"coverage of {total} episodes: {reached}",
        f"replay against the record: median {np.median(found.drift_px):.1e} px off, {strayed} "
        f"episodes beyond {STRAYED_PX:g} px; {int(found.seeded.sum())} begin at a known reset",
        f"fingerprint: {demos.fingerprint}",
    ]


def _cells(values: NDArray[np.float64] | NDArray[np.int64], digits: int) -> list[str]:
    known = values[np.isfinite(values)]
    if not len(known):
        return ["-"] * (len(QUANTILES) + 1)
    numbers = [float(known.mean()), *np.percentile(known, QUANTILES).tolist()]
    return [f"{number:.{digits}f}" for number in numbers]

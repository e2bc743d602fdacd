"""The commands that make something to look at: report, pictures, landscape."""

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Group

from harness import checkpoint
from harness.cells import plain
from harness.errors import UserError
from harness.output import Answer


def report(given: argparse.Namespace) -> Answer:
    """Write the sweep's page."""
    from harness import page  # the other commands start without it

    folder = checkpoint.sweep_dir(given.results, given.sweep)
    path = page.write(folder) if given.out is None else page.write(folder, given.out.expanduser())
    return _files([path])


def pictures(given: argparse.Namespace) -> Answer:
    """Roll the best trials' episodes out again and animate them."""
    from harness import pictures as made  # brings torch and the world along

    folder = checkpoint.sweep_dir(given.results, given.sweep)
    entries = made.make(folder, given.trial or ())
    return _files(folder / made.FOLDER / entry["file"] for entry in entries)


def landscape_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `landscape` takes."""
    parser.add_argument("which", nargs="*", metavar="TRIAL|PATH", help="checkpoints (the best)")
    parser.add_argument("--sweep", metavar="SWEEP", help="where trials are looked for (newest)")
    parser.add_argument("--seed", type=int, default=300_000, metavar="S", help="start (300000)")
    parser.add_argument("--step", type=int, default=0, metavar="K", help="of the demonstrator (0)")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="(in the sweep's pictures/)")


def landscape(given: argparse.Namespace) -> Answer:
    """Draw one state's energy over the board for several checkpoints."""
    from harness import landscape as made

    out = None if given.out is None else given.out.expanduser()
    return _files([made.draw(given.results, given.sweep, given.which, given.seed, given.step, out)])


def _files(paths: Any) -> Answer:
    rows = [{"file": str(path), "bytes": path.stat().st_size} for path in paths]
    if not rows:
        raise UserError("nothing to draw: no trial has a checkpoint and episodes yet")
    lines = [plain(f"wrote {row['file']} ({row['bytes']:,} bytes)") for row in rows]
    return pa.Table.from_pylist(rows), Group(*lines)

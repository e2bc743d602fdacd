"""The commands that write: export, rebuild, report, pictures, landscape."""

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Group
from rich.text import Text

from harness.core import files
from harness.core.errors import UserError
from harness.results import export as exports
from harness.results.output import Answer
from harness.results.sql import KINDS
from harness.storage import lookup, table_schemas, tables
from harness.terminal.formatting import plain


def export(given: argparse.Namespace) -> Answer:
    """Write a sweep's tables for other tools, or one for a paper."""
    folder = lookup.sweep_dir(given.results, given.sweep)
    paths = exports.write(
        folder, given.to.expanduser(), given.format, given.table, force=given.force
    )
    rows = [{"file": str(path), "bytes": path.stat().st_size} for path in paths]
    lines = [plain(f"wrote {row['file']} ({row['bytes']:,} bytes)") for row in rows]
    return pa.Table.from_pylist(rows), Group(*lines)


def rebuild(given: argparse.Namespace) -> Answer:
    """Derive the tables again and say what changed."""
    folder = lookup.sweep_dir(given.results, given.sweep)
    before = {kind: _stored(folder, kind) for kind in KINDS}
    torn = _torn(folder)
    try:
        tables.rebuild(folder)
    except OSError as error:
        raise UserError(f"{folder} must be writable: {error.strerror}") from None
    rows, lines = [], []
    for kind in KINDS:
        now = table_schemas.read_file(folder / "tables" / f"{kind}.parquet", kind)
        was = before[kind]
        change = "new" if was is None else "unchanged" if was.equals(now) else "changed"
        count = None if was is None else was.num_rows
        rows.append({"table": kind, "rows": now.num_rows, "rows_before": count, "change": change})
        text = f"{kind}: {now.num_rows:,} rows, {change}"
        lines.append(Text(text if count in (None, now.num_rows) else f"{text} (were {count:,})"))
    aside = sorted(_torn(folder) - torn)
    for path in aside:
        rows.append({"table": path, "rows": None, "rows_before": None, "change": "set aside"})
        lines.append(plain(f"torn and set aside: {path}", "yellow"))
    old = len(torn)
    if old:
        lines.append(Text(f"{old} torn files lie there from earlier", style="dim"))
    return pa.Table.from_pylist(rows), Group(*lines)


def _stored(folder: Path, kind: table_schemas.Kind) -> pa.Table | None:
    try:
        path = folder / "tables" / f"{kind}.parquet"
        return files.read_or(None, table_schemas.read_file, path, kind)
    except pa.ArrowException:
        return None


def _torn(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.torn*")}


def report(given: argparse.Namespace) -> Answer:
    """Write the sweep's page."""
    from harness.page import document  # the other commands start without it

    folder = lookup.sweep_dir(given.results, given.sweep)
    path = (
        document.write(folder)
        if given.out is None
        else document.write(folder, given.out.expanduser())
    )
    return _files([path])


def pictures(given: argparse.Namespace) -> Answer:
    """Roll the best trials' episodes out again and animate them."""
    from harness.page import gallery  # brings torch and the world along

    folder = lookup.sweep_dir(given.results, given.sweep)
    entries = gallery.make(folder, given.trial or ())
    return _files(folder / gallery.FOLDER / entry["file"] for entry in entries)


def landscape_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `landscape` takes."""
    parser.add_argument("which", nargs="*", metavar="TRIAL|PATH", help="checkpoints (the best)")
    parser.add_argument("--sweep", metavar="SWEEP", help="where trials are looked for (newest)")
    parser.add_argument("--seed", type=int, default=300_000, metavar="S", help="start (300000)")
    parser.add_argument("--step", type=int, default=0, metavar="K", help="of the demonstrator (0)")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="(in the sweep's pictures/)")


def landscape(given: argparse.Namespace) -> Answer:
    """Draw one state's energy over the board for several checkpoints."""
    from harness.media import landscape as media_landscape

    out = None if given.out is None else given.out.expanduser()
    return _files(
        [media_landscape.draw(given.results, given.sweep, given.which, given.seed, given.step, out)]
    )


def _files(paths: Any) -> Answer:
    rows = [{"file": str(path), "bytes": path.stat().st_size} for path in paths]
    if not rows:
        raise UserError("nothing to draw: no trial has a checkpoint and episodes yet")
    lines = [plain(f"wrote {row['file']} ({row['bytes']:,} bytes)") for row in rows]
    return pa.Table.from_pylist(rows), Group(*lines)

"""The commands that write: export and rebuild."""

import argparse
from pathlib import Path

import pyarrow as pa
from rich.console import Group
from rich.text import Text

from harness import checkpoint, schemas, store
from harness import export as exports
from harness.cells import plain
from harness.errors import UserError
from harness.output import Answer
from harness.sql import KINDS


def export(given: argparse.Namespace) -> Answer:
    """Write a sweep's tables for other tools, or one for a paper."""
    folder = checkpoint.sweep_dir(given.results, given.sweep)
    paths = exports.write(
        folder, given.to.expanduser(), given.format, given.table, force=given.force
    )
    rows = [{"file": str(path), "bytes": path.stat().st_size} for path in paths]
    lines = [plain(f"wrote {row['file']} ({row['bytes']:,} bytes)") for row in rows]
    return pa.Table.from_pylist(rows), Group(*lines)


def rebuild(given: argparse.Namespace) -> Answer:
    """Derive the tables again and say what changed."""
    folder = checkpoint.sweep_dir(given.results, given.sweep)
    before = {kind: _stored(folder, kind) for kind in KINDS}
    torn = _torn(folder)
    try:
        store.rebuild(folder)
    except OSError as error:
        raise UserError(f"{folder} must be writable: {error.strerror}") from None
    rows, lines = [], []
    for kind in KINDS:
        now = schemas.read_file(folder / "tables" / f"{kind}.parquet", kind)
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


def _stored(folder: Path, kind: schemas.Kind) -> pa.Table | None:
    try:
        return schemas.read_file(folder / "tables" / f"{kind}.parquet", kind)
    except (FileNotFoundError, store.TornFileError, pa.ArrowException):
        return None


def _torn(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.torn*")}

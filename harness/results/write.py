"""The commands that write files from a sweep's tables: export, rebuild, report."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
from rich.console import Group
from rich.text import Text

from harness.analysis import sweep_results, verdicts
from harness.analysis.sweep_results import Sweep
from harness.core import files
from harness.core.errors import UserError
from harness.page import document
from harness.results import SUFFIXES, TABLES, paper_tables, sql
from harness.results.output import Answer, files_written, for_csv
from harness.storage import lookup, table_schemas, tables
from harness.terminal import answers_markdown
from harness.terminal.formatting import plain

_FOR_PAPERS = {"latex": paper_tables.latex, "markdown": paper_tables.markdown}


def export(given: argparse.Namespace) -> Answer:
    """Write a sweep's or an evaluation's tables for other tools, or one for a paper."""
    folder = lookup.tables_dir(given.results, given.sweep)
    to = given.to.expanduser()
    return files_written(
        write_tables(folder, to, given.format, given.table, given.question, force=given.force)
    )


def write_tables(
    folder: Path,
    to: Path,
    form: str,
    table: str | None,
    asked: Sequence[str] = (),
    *,
    force: bool,
) -> list[Path]:
    """Write a sweep's tables to a folder, or one to a file; return the files.

    to: a file where the name has the format's suffix, else a folder. A format for papers has one
    table, of the arms by question. asked: the questions, see `Sweep`.
    UserError when a file exists and force is not given, or the place is not writable.
    """
    if form in _FOR_PAPERS and table not in (None, "arms"):
        raise UserError(f"--format {form} takes the table of arms, given --table {table}")
    names = ["arms"] if form in _FOR_PAPERS else [table] if table else list(TABLES)
    suffix = SUFFIXES[form]
    if to.suffix == suffix and not to.is_dir():
        if len(names) > 1:
            raise UserError(f"one file holds one table: give --table or a folder, given {to}")
        paths = {names[0]: to}
    else:
        paths = {name: to / f"{name}{suffix}" for name in names}
    for path in paths.values():
        if path.is_dir() or (path.exists() and not force):
            raise UserError(f"{path} exists already; --force replaces files")
    sweep = Sweep(folder, asked)
    try:
        written = [path for name, path in paths.items() if _write(sweep, name, path, form)]
    except OSError as error:
        raise UserError(f"{to} must be a place to write to: {error.strerror}") from None
    if not written:
        raise UserError(f"sweep {folder.name} has nothing to write in {', '.join(paths)}")
    return written


def _write(sweep: Sweep, name: str, path: Path, form: str) -> bool:
    """Write one table; False for a table without columns, as no trial has begun."""
    if form in _FOR_PAPERS:
        text = _FOR_PAPERS[form](sweep, verdicts.answers(sweep))
        with files.atomic(path) as file:
            file.write(text.encode())
        return True
    if name == "arms":
        rows = pa.Table.from_pylist([arm.as_row() for arm in sweep.arms()])
    elif name == "answers":
        rows = verdicts.table(verdicts.answers(sweep))
    else:
        rows = sql.tables([sweep.folder], next(kind for kind in sql.KINDS if kind == name))
        rows = sweep_results.rows_asked(sweep.folder, rows, sweep.asked)
    if rows.num_columns == 0:
        return False
    with files.atomic(path) as file:
        if form == "csv":
            pyarrow.csv.write_csv(for_csv(rows), file)
        elif form == "arrow":
            pyarrow.feather.write_feather(rows, file, compression="uncompressed")
        else:
            pq.write_table(rows, file, compression="zstd")
    return True


def rebuild(given: argparse.Namespace) -> Answer:
    """Derive the tables and answers.md again and show what changed."""
    folder = lookup.sweep_dir(given.results, given.sweep)
    answers = folder / "answers.md"
    answered = answers.read_bytes() if answers.is_file() else None
    derived = {kind: folder / "tables" / f"{kind}.parquet" for kind in sql.KINDS}
    torn = _torn(folder)
    try:
        # Without the lock, as a sweep is running, torn files stay where they are.
        with files.lock(folder / ".lock"):
            before = {
                kind: files.read_or(None, table_schemas.read_file, path, kind)
                for kind, path in derived.items()
            }
            tables.rebuild(folder)
            answers_markdown.write(folder)
    except OSError as error:
        raise UserError(f"{folder} must be writable: {error.strerror}") from None
    rows, lines = [], []
    for kind, path in derived.items():
        now = table_schemas.read_file(path, kind)
        was = before[kind]
        change = "new" if was is None else "unchanged" if was.equals(now) else "changed"
        count = None if was is None else was.num_rows
        rows.append({"table": kind, "rows": now.num_rows, "rows_before": count, "change": change})
        text = f"{kind}: {now.num_rows:,} rows, {change}"
        lines.append(Text(text if count in (None, now.num_rows) else f"{text} (were {count:,})"))
    same = answered == answers.read_bytes()
    change = "new" if answered is None else "unchanged" if same else "changed"
    rows.append({"table": answers.name, "rows": None, "rows_before": None, "change": change})
    lines.append(Text(f"{answers.name}: {change}"))
    for name in sorted(_torn(folder) - torn):
        rows.append({"table": name, "rows": None, "rows_before": None, "change": "set aside"})
        lines.append(plain(f"truncated, set aside: {name}", "yellow"))
    if torn:
        lines.append(Text(f"{len(torn)} truncated files were set aside earlier", style="dim"))
    return pa.Table.from_pylist(rows), Group(*lines)


def _torn(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.torn*")}


def report(given: argparse.Namespace) -> Answer:
    """Write the sweep's HTML report."""
    folder = lookup.sweep_dir(given.results, given.sweep)
    out = None if given.out is None else given.out.expanduser()
    return files_written([document.write(folder, out, given.question)])

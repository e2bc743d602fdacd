"""A sweep's tables as files for other tools and for papers; nothing is ever overwritten unasked."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from harness.analysis import verdicts
from harness.analysis.sweep_results import Sweep
from harness.core.errors import UserError
from harness.core.files import atomic
from harness.results import paper_tables, sql
from harness.results.output import for_csv

TABLES = ("trials", "curves", "episodes", "arms", "answers")
_FOR_PAPERS = ("latex", "markdown")
_SUFFIX = {"csv": ".csv", "arrow": ".arrow", "parquet": ".parquet", "latex": ".tex"}


_SUFFIX |= {"markdown": ".md"}


FORMATS = tuple(_SUFFIX)


def write(folder: Path, to: Path, form: str, table: str | None, *, force: bool) -> list[Path]:
    """Write a sweep's tables to a folder, or one to a file; return the files.

    to: a name that ends like a file of this format is one, everything else a folder. For a paper
    there is one table, of the arms by question. UserError when a file is there already and force
    is not given, or the place cannot be written to.
    """
    if form in _FOR_PAPERS and table not in (None, "arms"):
        raise UserError(f"--format {form} takes the table of arms, given --table {table}")
    names = ["arms"] if form in _FOR_PAPERS else [table] if table else list(TABLES)
    if to.suffix == _SUFFIX[form] and not to.is_dir():
        if len(names) > 1:
            raise UserError(f"one file holds one table: give --table or a folder, given {to}")
        paths = {names[0]: to}
    else:
        paths = {name: to / f"{name}{_SUFFIX[form]}" for name in names}
    for path in paths.values():
        if path.is_dir() or (path.exists() and not force):
            raise UserError(f"{path} is there already; --force replaces files")
    try:
        return _write(Sweep(folder), paths, form)
    except OSError as error:
        raise UserError(f"{to} must be a place to write to: {error.strerror}") from None


def _write(sweep: Sweep, paths: Mapping[str, Path], form: str) -> list[Path]:
    written = []
    for name, path in paths.items():
        if form in _FOR_PAPERS:
            answers = verdicts.answers(sweep)
            made = paper_tables.latex if form == "latex" else paper_tables.markdown
            content = made(sweep, answers).encode()
            with atomic(path) as file:
                file.write(content)
        else:
            rows = _content(sweep, name)
            if rows.num_columns == 0:
                continue  # nothing has begun: no file is better than an empty one
            with atomic(path) as file:
                _WRITERS[form](rows, file)
        written.append(path)
    if not written:
        raise UserError(f"sweep {sweep.folder.name} has nothing to write in {', '.join(paths)}")
    return written


def _content(sweep: Sweep, name: str) -> pa.Table:
    if name == "arms":
        return pa.Table.from_pylist([arm.as_row() for arm in sweep.arms()])
    if name == "answers":
        return verdicts.table(verdicts.answers(sweep))
    kind = next(kind for kind in sql.KINDS if kind == name)
    return sql.tables([sweep.folder], kind)


_WRITERS: Mapping[str, Callable[[pa.Table, object], None]] = {
    "csv": lambda content, file: pyarrow.csv.write_csv(for_csv(content), file),
    "arrow": lambda content, file: pyarrow.feather.write_feather(
        content, file, compression="uncompressed"
    ),
    "parquet": lambda content, file: pq.write_table(content, file, compression="zstd"),
}

"""SQL queries with DuckDB over a sweep's tables, without access to files and the network.

A query may come from an untrusted page, so it can read the three tables and nothing else.
"""

import argparse
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.text import Text

from harness.core import command_lines
from harness.core.errors import UserError
from harness.core.text import one_line
from harness.results.output import Answer
from harness.storage import lookup, table_schemas
from harness.storage.tables import read
from harness.terminal import sweep_tables
from harness.terminal.formatting import plain, table, whole

KINDS: tuple[table_schemas.Kind, ...] = ("trials", "curves", "episodes")
# The last one locks them, so that no query can undo one.
_RESTRICTIONS = (
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET memory_limit = '1GB'",
    "SET lock_configuration = true",
)
MAX_SECONDS, MAX_MEMORY = 60.0, 2 * 10**9
# DuckDB's limit leaves out texts that a query makes, and its result.
_MEMORY = Path("/proc/self/status")


def command(given: argparse.Namespace) -> Answer:
    """Run a query, or list the tables and their columns."""
    folders = _folders(given)
    if given.query is None:
        return _tables(folders)
    content = ask(folders, given.query)
    part = content.slice(0, given.limit or None)
    return content, sweep_tables.cut(_shown(part), part.num_rows, content.num_rows)


def _folders(given: argparse.Namespace) -> list[Path]:
    if not given.all:
        return [lookup.tables_dir(given.results, given.sweep)]
    if given.sweep is not None:
        raise UserError("--all takes every sweep and --sweep one of them, given both")
    found = lookup.sweeps(given.results)
    if not found:
        raise UserError(f"a sweep is needed, and {given.results} holds none")
    lookup.leave_out_unreadable(given.results)
    return list(found)


def ask(folders: Sequence[Path], query: str) -> pa.Table:
    """Return the rows of a query over these sweeps' trials, curves and episodes.

    UserError with DuckDB's message for a query that fails, is no SELECT, or takes too much memory
    or time.
    """
    import duckdb  # a quarter of a second that the other commands do not need

    named = query.casefold()
    with duckdb.connect(":memory:") as connection:
        # Only tables whose names occur in the query: a million episodes take a while to read.
        for kind in KINDS:
            if kind in named:
                connection.register(kind, tables(folders, kind))
        for setting in _RESTRICTIONS:
            connection.execute(setting)
        try:
            statements = connection.extract_statements(query)
            if [each.type for each in statements] != [duckdb.StatementType.SELECT]:
                raise UserError('a query is one that returns rows: "SELECT ... FROM trials"')
            timer = threading.Timer(MAX_SECONDS, connection.interrupt)
            timer.start()
            try:
                with _limited_memory():
                    found = connection.sql(query).to_arrow_table()
            finally:
                timer.cancel()
            for column in found.columns:
                if pa.types.is_temporal(column.type) or pa.types.is_nested(column.type):
                    column.to_pylist()  # Python has no year above 9999 and no infinite date
            return found
        except duckdb.InterruptException:
            raise UserError(
                f"a query may take {MAX_SECONDS:.0f} s, and this one took longer"
            ) from None
        except (MemoryError, duckdb.OutOfMemoryException):
            raise UserError(
                f"a query may take {MAX_MEMORY / 1e9:g} GB of memory, and this one needs more"
            ) from None
        except (OverflowError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"dates must be from the year 1 to 9999: {one_line(error)}") from None
        except duckdb.Error as error:
            raise UserError(one_line(str(error).partition("\n\n")[0])[:500]) from None


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Let this process have so much more memory in the body; MemoryError beyond."""
    (line,) = (each for each in _MEMORY.read_text().splitlines() if each.startswith("VmData"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(line.split()[1]) * 1024 + MAX_MEMORY
    given = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([most, *given]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def tables(folders: Sequence[Path], kind: table_schemas.Kind) -> pa.Table:
    """Return a kind's rows of several sweeps, with columns `sweep` and `trial`."""
    parts = [_named(read(folder, kind), folder.name) for folder in folders]
    return parts[0] if len(parts) == 1 else _together(parts)


def _named(content: pa.Table, sweep: str) -> pa.Table:
    if "trial" not in content.column_names:
        seed = pc.cast(content["train_seed"], pa.string())
        trial = pc.binary_join_element_wise(content["config_hash"], seed, "-s")
        content = content.add_column(0, "trial", trial)
    names = pa.array([sweep] * content.num_rows, pa.string())
    index = content.schema.get_field_index("sweep")
    if index < 0:
        return content.add_column(0, "sweep", names)
    return content.set_column(index, "sweep", names)


def _together(parts: list[pa.Table]) -> pa.Table:
    """Concatenate tables; a setting that is text in one becomes text in all."""
    text = {field.name for part in parts for field in part.schema if field.type == pa.string()}
    schemas = [
        pa.schema([f.with_type(pa.string()) if f.name in text else f for f in part.schema])
        for part in parts
    ]
    cast = [part.cast(schema) for part, schema in zip(parts, schemas, strict=True)]
    return pa.concat_tables(cast, promote_options="permissive")


def _tables(folders: Sequence[Path]) -> Answer:
    rows, shown = [], []
    for kind in KINDS:
        content = tables(folders, kind)
        names = [{"table": kind, "column": f.name, "type": str(f.type)} for f in content.schema]
        rows += [{**name, "rows": content.num_rows} for name in names]
        columns = ", ".join(_quoted(name) for name in content.column_names)
        shown += [Text.assemble((kind, "bold"), f"  {content.num_rows:,} rows"), plain(columns)]
        shown.append(Text(""))
    example = (
        "SELECT arm, count(*) AS trials, avg(select_score) AS score FROM trials "
        "GROUP BY arm ORDER BY score DESC"
    )
    which = ["--all"] if len(folders) > 1 else ["--sweep", folders[0].name]
    line = command_lines.line("results", "sql", example, *which, results=folders[0].parent)
    shown.append(whole(line))
    return pa.Table.from_pylist(rows), Group(*shown)


def _quoted(name: str) -> str:
    return name if name.isidentifier() else '"' + name.replace('"', '""') + '"'


def _shown(content: pa.Table) -> RenderableType:
    made = table()
    for field in content.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        made.add_column(plain(field.name), justify="right" if number else "left", overflow="fold")
    for row in zip(*(column.to_pylist() for column in content.columns), strict=True):
        made.add_row(*(_cell(value) for value in row))
    return made


def _cell(value: object) -> Text:
    if value is None:
        return Text("", style="dim")
    return plain(f"{value:.6g}" if isinstance(value, float) else value)

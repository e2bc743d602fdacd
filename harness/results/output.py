"""What a command prints: text for a terminal, JSON, or comma-separated values."""

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness.core.text import one_line
from harness.terminal.formatting import whole

_PIPE_WIDTH = 160
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet evaluates a text that begins so
# What pyarrow does not write as CSV.
_NO_CSV = pa.types.is_nested, pa.types.is_binary, pa.types.is_interval
Answer = tuple[pa.Table, RenderableType]  # the rows, and what a terminal shows


def files_written(paths: Sequence[Path]) -> Answer:
    """Return which files a command has written, with their sizes."""
    rows = [{"file": str(path), "bytes": path.stat().st_size} for path in paths]
    lines = [whole(f"wrote {row['file']} ({row['bytes']:,} bytes)") for row in rows]
    return pa.Table.from_pylist(rows), Group(*lines)


def put(content: pa.Table, shown: RenderableType, *, as_json: bool, as_csv: bool) -> None:
    """Print a command's answer in the chosen form."""
    if as_json:
        print(json.dumps(_plain(content.to_pylist()), indent=1, default=str))
    elif as_csv:
        pyarrow.csv.write_csv(for_csv(content), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        # A text alone is a file's content: its lines are not wrapped.
        console().print(shown, soft_wrap=isinstance(shown, Text), crop=False)


def console() -> Console:
    """Return a console as wide as the terminal; 160 columns into a pipe, so nothing is cut."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(width=width, highlight=False, emoji=False)


def _plain(value: Any) -> Any:
    """Return nested values with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def for_csv(content: pa.Table) -> pa.Table:
    """Return a table that is safe in terminals and spreadsheets: each text is one line.

    Control characters are escaped, nested values become JSON, and a text that a spreadsheet would
    evaluate as a formula (it begins with = + - or @) gets an apostrophe in front.
    """
    for index, field in enumerate(content.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            change: Callable[[Any], str] = one_line
        elif any(holds(field.type) for holds in _NO_CSV):
            change = _as_json
        else:
            continue
        values = content.column(index).to_pylist()
        values = [None if value is None else _no_formula(change(value)) for value in values]
        content = content.set_column(index, field.name, pa.array(values, pa.string()))
    return content.rename_columns([_no_formula(one_line(name)) for name in content.column_names])


def _as_json(value: Any) -> str:
    return one_line(json.dumps(_plain(value), default=str))


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text

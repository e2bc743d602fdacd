"""How a command's answer leaves the program: for people, as JSON, as comma-separated values."""

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.csv
from rich.console import Console, RenderableType
from rich.text import Text

from harness.core.text import one_line

_PIPE_WIDTH = 160


# A spreadsheet takes a text that begins so for a formula and computes it.
_FORMULA = ("=", "+", "-", "@")
Answer = tuple[pa.Table, RenderableType]


def put(content: pa.Table, shown: RenderableType, *, as_json: bool, as_csv: bool) -> None:
    """Print an answer: what is shown to people, or its content."""
    if as_json:
        print(json.dumps(plain_rows(content), indent=1, ensure_ascii=True))
    elif as_csv:
        pyarrow.csv.write_csv(for_csv(content), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        # A text alone is a file's content: its lines stay lines.
        console().print(shown, soft_wrap=isinstance(shown, Text))


def console() -> Console:
    """Return a console as wide as the terminal; into a pipe 160 columns, so that nothing is cut."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(width=width, highlight=False, emoji=False)


def plain_rows(content: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows as values that JSON has; NaN and infinity become None."""
    return [{name: _plain(value) for name, value in row.items()} for row in content.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)  # dates, decimals, bytes: only a query can bring them


def for_csv(content: pa.Table) -> pa.Table:
    """Return a table whose texts are one harmless line each, for terminals and spreadsheets.

    Control characters are escaped, nested values become JSON, and a text that a spreadsheet would
    compute (it begins with = + - or @) gets an apostrophe in front.
    """
    for index, field in enumerate(content.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            change: Callable[[Any], str] = one_line
        elif pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            change = _as_json
        else:
            continue
        changed = [
            None if value is None else _no_formula(change(value))
            for value in content.column(index).to_pylist()
        ]
        content = content.set_column(index, field.name, pa.array(changed, pa.string()))
    return content.rename_columns([_no_formula(one_line(name)) for name in content.column_names])


def _as_json(value: Any) -> str:
    return one_line(json.dumps(_plain(value)))


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text

"""Cells of terminal tables: estimates, differences, bars, sparklines, text.

Text from files is never taken for markup: control characters are escaped.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from harness.core.text import one_line
from harness.stats.intervals import Estimate

NARROW, WIDE = 60, 120
BAR = 24
BAR_HEAD = "0" + " " * (BAR - 2) + "1"


def plain(text: object, style: str = "") -> Text:
    """Return any text as one line with control characters escaped."""
    return Text(one_line(text), style=style)


def parts(
    estimate: Estimate | None,
    *,
    percent: bool = False,
    sign: str = "",
    digits: int = 3,
    ends: int = 2,
) -> tuple[str, str]:
    """Return "0.612" and "[0.58, 0.64]", or "61.2 %" and "[58, 64]"; "" for what is unknown.

    sign: "+" for a difference; digits, ends: decimals of the value and of the interval's ends.
    """
    if estimate is None or math.isnan(estimate.value):
        return "", ""
    scale, unit = 1.0, ""
    if percent:
        scale, unit, digits, ends = 100.0, " %", 1, 0
    value = f"{estimate.value * scale:{sign}.{digits}f}{unit}"
    if math.isnan(estimate.low):
        return value, ""
    low, high = (f"{end * scale:{sign}.{ends}f}" for end in (estimate.low, estimate.high))
    return value, f"[{low}, {high}]"


def number(estimate: Estimate | None) -> str:
    """Return "0.612 [0.58, 0.64]"; without an interval the number alone, for NaN ""."""
    return " ".join(parts(estimate)).strip()


def percent(estimate: Estimate | None) -> str:
    """Return "45.2 % [41, 50]"."""
    return " ".join(parts(estimate, percent=True)).strip()


def difference(estimate: Estimate | None, digits: int = 3, ends: int = 2) -> str:
    """Return "+0.050 [+0.01, +0.09]"."""
    return " ".join(parts(estimate, sign="+", digits=digits, ends=ends)).strip()


def or_blank(value: float | None, form: str) -> str:
    """Return a number in a format, "" for None."""
    return "" if value is None else format(value, form)


def percent_of(share: float, digits: int = 0) -> str:
    """Return "45 %" of 0.45."""
    return f"{share * 100:.{digits}f} %"


def signed(estimate: Estimate | None) -> Text:
    """Return a difference, green or red where its interval excludes 0."""
    style = ""
    if estimate is not None:
        style = "green" if estimate.low > 0 else "red" if estimate.high < 0 else ""
    return Text(difference(estimate), style=style)


def bar(estimate: Estimate, width: int = BAR) -> Text:
    """Return the interval and the value drawn on a line from 0 to 1."""
    if math.isnan(estimate.value):
        return Text("")
    low = estimate.value if math.isnan(estimate.low) else estimate.low
    high = estimate.value if math.isnan(estimate.high) else estimate.high
    left, middle, right = (
        round(min(1.0, max(0.0, x)) * (width - 1)) for x in (low, estimate.value, high)
    )
    cells = ["·"] * width
    cells[left : right + 1] = ["─"] * (right + 1 - left)
    cells[middle] = "●"
    return Text("".join(cells), style="cyan")


# How plots mark each word of a verdict, by a shape beside a colour: sign, style.
SIGNS = {
    "helps": ("▲", "green"),
    "hurts": ("▼", "red"),
    "no difference": ("■", "cyan"),
    "not enough evidence": ("○", ""),
    "nothing to compare": ("·", "dim"),
}
_REACHES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def reach(differences: Sequence[Estimate]) -> float:
    """Return how far from 0 an axis of differences goes to both sides.

    It holds 9 of 10 ends of the intervals, so that one wide interval does not hide the others.
    """
    known = (end for each in differences for end in (each.value, each.low, each.high))
    ends = sorted(abs(end) for end in known if math.isfinite(end))
    most = ends[math.ceil(0.9 * len(ends)) - 1] if ends else 0.1
    return next((reach for reach in _REACHES if most <= reach), 1.0)


def difference_bar(
    found: Estimate, reach: float, width: int, sign: str = "●", style: str = ""
) -> Text:
    """Return a difference and its interval drawn on a line from -reach to reach, `│` at 0.

    The sign marks the value, `<` or `>` at an end a value beyond the line. width: an odd number.
    """
    if math.isnan(found.value):
        return Text("")
    cells = ["·"] * width
    cells[width // 2] = "│"
    if not math.isnan(found.low):
        left, right = (_cell(end, reach, width) for end in (found.low, found.high))
        cells[left : right + 1] = ["─"] * (right + 1 - left)
        if left < width // 2 < right:
            cells[width // 2] = "┼"
    beyond = "<" if found.value < -reach else ">" if found.value > reach else sign
    cells[_cell(found.value, reach, width)] = beyond
    return Text("".join(cells), style=style)


def _cell(value: float, reach: float, width: int) -> int:
    return round((min(reach, max(-reach, value)) / reach + 1) / 2 * (width - 1))


def difference_ruler(reach: float, width: int) -> Text:
    """Return the ends of the line that `difference_bar` draws, and its 0."""
    half = width // 2
    left, right = f"{-reach:g}", f"{reach:+g}"
    return Text(f"{left:<{half}}0{right:>{half}}", style="dim")


def longest_word(text: str) -> int:
    """Return the length of the longest word."""
    return max(map(len, text.split()), default=0)


_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> Text:
    """Return values as at most `width` bars, scaled from their minimum to their maximum.

    More values than bars are averaged; one that is not finite is drawn as `×`.
    """
    if not values or width < 1:
        return Text("")
    cuts = [round(i * len(values) / width) for i in range(width + 1)]
    if len(values) > width:
        parts = [values[start:stop] for start, stop in pairwise(cuts)]
        values = [sum(part) / len(part) for part in parts]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    bars = []
    for value in values:
        if not math.isfinite(value):
            bars.append("×")
        elif high > low:
            bars.append(_LEVELS[round((value - low) / (high - low) * (len(_LEVELS) - 1))])
        else:
            bars.append(_LEVELS[0])
    return Text("".join(bars), style="cyan")


def whole(text: str) -> Text:
    """Return a line to be copied, such as a path or a command: it never wraps."""
    return Text(one_line(text), no_wrap=True, overflow="ignore")


def fitted(made: Table, width: int, drop: Sequence[str]) -> Table:
    """Return a table without the columns, in the order given, for which there is no room.

    The room of a column is its longest word, or its longest text where that must not wrap.
    """
    if width < 1:
        return made
    for title in (*drop, None):
        if sum(map(_least_width, made.columns)) + 2 * (len(made.columns) - 1) <= width:
            break
        made.columns = [column for column in made.columns if title != str(column.header)]
    return made


def _least_width(column: Column) -> int:
    texts = [cell_text(cell) for cell in (column.header, *column.cells)]
    return max(
        [column.min_width or 0, *(len(t) if column.no_wrap else longest_word(t) for t in texts)]
    )


def cell_text(cell: RenderableType) -> str:
    """Return the text of a table's cell."""
    return cell.plain if isinstance(cell, Text) else str(cell)


def say(console: Console, text: str | Text, style: str = "") -> None:
    """Print a line: wrapped at words on a terminal, whole elsewhere.

    A word that is longer than the terminal, such as a path, stays whole too, so that it can be
    copied.
    """
    line = Text(text, style) if isinstance(text, str) else text
    if console.is_terminal and not console.is_dumb_terminal:
        wrapped = textwrap.wrap(
            line.plain, console.width, break_long_words=False, break_on_hyphens=False
        )
        line = Text("\n".join(wrapped), line.style)
    console.print(line, soft_wrap=True, highlight=False)


def facts(rows: Iterable[tuple[RenderableType, RenderableType]]) -> Table:
    """Return a table of names and values without a head; long values are folded."""
    made = table("name", "value", fold=("name", "value"))
    made.show_header = False
    for name, value in rows:
        made.add_row(name, value)
    return made


def table(*columns: str, right: Sequence[str] = (), fold: Sequence[str] = ()) -> Table:
    """Return an empty table in this project's style."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name not in fold,
            overflow="fold" if name in fold else "ellipsis",
        )
    return made

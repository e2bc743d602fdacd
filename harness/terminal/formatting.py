"""What a table's cell looks like on a terminal: estimates, differences, bars, foreign text.

Text from files is never markup here: it becomes rich Text with control characters escaped.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from harness.core.text import one_line
from harness.stats.intervals import Estimate

WIDE = 120
BAR = 24
BAR_HEAD = "0" + " " * (BAR - 2) + "1"


def plain(text: object, style: str = "") -> Text:
    """Return text from anywhere as one harmless line."""
    return Text(one_line(text), style=style)


def number(estimate: Estimate | None, digits: int = 3) -> str:
    """Return "0.612 [0.58, 0.64]"; without an interval the bare number, for NaN nothing."""
    if estimate is None or math.isnan(estimate.value):
        return ""
    value = f"{estimate.value:.{digits}f}"
    if math.isnan(estimate.low):
        return value
    return f"{value} [{estimate.low:.2f}, {estimate.high:.2f}]"


def percent_of(share: float, digits: int = 0) -> str:
    """Return "45 %" of 0.45."""
    return f"{share * 100:.{digits}f} %"


def percent(estimate: Estimate | None) -> str:
    """Return "45.2 % [41, 50]"."""
    if estimate is None or math.isnan(estimate.value):
        return ""
    value = percent_of(estimate.value, 1)
    if math.isnan(estimate.low):
        return value
    return f"{value} [{estimate.low * 100:.0f}, {estimate.high * 100:.0f}]"


def signed(estimate: Estimate | None) -> Text:
    """Return "+0.05 [+0.01, +0.09]", green or red where the interval leaves zero out."""
    if estimate is None or math.isnan(estimate.value):
        return Text("")
    if math.isnan(estimate.low):
        return Text(f"{estimate.value:+.3f}")
    style = "green" if estimate.low > 0 else "red" if estimate.high < 0 else ""
    text = f"{estimate.value:+.3f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return Text(text, style=style)


def bar(estimate: Estimate, width: int = BAR) -> Text:
    """Return 0 to 1 as a line of dots with the interval and the value drawn on it."""
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


_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> Text:
    """Return values as a line of at most `width` bars between their own lowest and highest.

    More values than bars are averaged; one that is not finite is a `×`.
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

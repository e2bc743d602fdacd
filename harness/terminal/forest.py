"""A forest plot in text: every arm's difference to its question's baseline, with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.analysis.verdicts import TITLES, Answer, Verdict
from harness.core.text import one_line
from harness.stats.intervals import Estimate
from harness.terminal.formatting import (
    SIGNS,
    WIDE,
    difference,
    difference_bar,
    difference_ruler,
    longest_word,
    plain,
    reach,
    table,
)

INDENT, GAP = 2, 2
NAME, MAX_NAME = 14, 44  # characters of an arm's name with its sign; a longer word gets more
SHOWN = ("helps", "hurts", "no difference", "not enough evidence")
Marked = tuple[Estimate, str]  # a difference and the word of its verdict


@dataclass(frozen=True)
class _Column:
    title: str
    width: int
    ruler: Text
    cell: Callable[[Verdict], Text]


def forest(found: Sequence[Answer], width: int) -> RenderableType:
    """Return for each question its line of verdicts and its arms, the largest difference first.

    width: of the screen, 40 or more; columns go before names are cut. All questions have the same
    axes.
    """
    verdicts = [verdict for answer in found for verdict in answer.ranked]
    columns, names = _fitted(verdicts, width - INDENT)
    parts: list[RenderableType] = []
    for answer in found:
        parts += [Text(""), *head(answer)]
        if answer.ranked:
            parts.append(Padding(_rows(answer.ranked, columns, names), (0, 0, 0, INDENT)))
    signs = "  ".join(f"{SIGNS[word][0]} {TITLES[word]}" for word in SHOWN)
    return Group(*parts, Text(""), Text(signs, style="dim"))


def head(answer: Answer) -> list[RenderableType]:
    """Return a question, its baseline and its line of verdicts."""
    title = Text.assemble((one_line(answer.question), "bold"), f"  {one_line(answer.text)}")
    return [title, plain(f"baseline: {answer.baseline}", "dim"), plain(answer.summary)]


def _fitted(verdicts: Sequence[Verdict], width: int) -> tuple[list[_Column], int]:
    """Return the columns for which there is room beside the arms' names, and the names' width."""
    bar = 21 if width >= WIDE else 15
    columns = [
        *_pair("score", lambda v: (v.score, v.word), verdicts, bar),
        *_pair("success rate", lambda v: (v.success, v.success_word), verdicts, bar),
    ]
    names = [one_line(verdict.arm) for verdict in verdicts]
    least = max([NAME, *(longest_word(name) + 2 for name in names)])
    while len(columns) > 1 and width - sum(each.width + GAP for each in columns) < least:
        columns.pop()
    room = width - sum(each.width + GAP for each in columns)
    longest = max([NAME, *(len(name) + 2 for name in names)])
    return columns, max(NAME, min(MAX_NAME, room, longest))


def _pair(
    title: str, of: Callable[[Verdict], Marked], verdicts: Sequence[Verdict], bar: int
) -> list[_Column]:
    """Return the column of a difference's bars and that of its numbers."""
    found = [of(verdict)[0] for verdict in verdicts]
    farthest, digits = reach(found), max((len(difference(each)) for each in found), default=0)

    def drawn(verdict: Verdict) -> Text:
        estimate, word = of(verdict)
        return difference_bar(estimate, farthest, bar, *SIGNS[word])

    def told(verdict: Verdict) -> Text:
        estimate, word = of(verdict)
        return Text(difference(estimate), SIGNS[word][1])

    return [
        _Column(title, bar, difference_ruler(farthest, bar), drawn),
        _Column("difference", digits, Text(""), told),
    ]


def _rows(verdicts: Sequence[Verdict], columns: Sequence[_Column], names: int) -> Table:
    made = table("", *(column.title for column in columns), fold=("",))
    made.columns[0].width = names
    made.add_row("", *(column.ruler for column in columns))
    for verdict in verdicts:
        sign, style = SIGNS[verdict.word]
        arm = Text.assemble((f"{sign} ", style), one_line(verdict.arm))
        made.add_row(arm, *(column.cell(verdict) for column in columns))
    return made

"""Verdicts and comparisons as terminal tables."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.analysis.sweep_results import Comparison
from harness.analysis.verdicts import RULE, Answer
from harness.core.text import one_line
from harness.stats.comparisons import Pair
from harness.terminal.formatting import WIDE, number, percent, plain, signed, table


def answers(name: str, found: Sequence[Answer], width: int) -> RenderableType:
    """Return every question's answer and the rule behind them."""
    parts: list[RenderableType] = [Text.assemble("sweep ", (one_line(name), "bold"))]
    for answer in found:
        title = Text.assemble((one_line(answer.question), "bold"), f"  {one_line(answer.text)}")
        parts += [Text(""), title]
        parts.append(plain(answer.summary, "green"))
        parts.append(Padding(_arms(answer, width), (0, 0, 0, 2)))
        parts += [
            Padding(Text.assemble((one_line(verdict.arm), "bold"), " ", verdict.text), (0, 0, 0, 2))
            for verdict in answer.verdicts
        ]
    return Group(*parts, Text(""), plain(RULE.replace("*", ""), "dim"))


def _arms(answer: Answer, width: int) -> Table:
    wide = width >= WIDE
    columns = ["arm", "score", "against the first", "seeds", "starts"]
    if wide:
        columns[2:2] = ["success"]
        columns[-2:-2] = ["better"]
    made = table(*columns, fold=("arm",), right=("seeds", "starts"))
    made.columns[0].min_width = 10
    by_arm = {verdict.arm: verdict for verdict in answer.verdicts}
    for arm in answer.arms:
        verdict = by_arm.get(arm.arm)
        score = arm.report if answer.reported else arm.select
        cells: dict[str, RenderableType] = {
            "arm": plain(arm.arm),
            "score": number(score),
            "against the first": signed(verdict.score) if verdict else "",
            "success": percent(arm.report_success if answer.reported else arm.success),
            "better": percent(verdict.pair.better) if verdict else "",
            "seeds": str(arm.group.finished),
            "starts": str(verdict.n if verdict else score.n),
        }
        made.add_row(*(cells[name] for name in columns))
    return made


_TITLES = {"success": "success rate", "final_coverage": "final coverage"}


def comparison(
    found: Sequence[Comparison], more: Pair, names: tuple[str, str], what: str
) -> RenderableType:
    """Return a paired comparison and what it was paired on; more: of the score."""
    made = table("", *(_TITLES.get(c.column, c.column) for c in found))
    for name in ("a", "b"):
        estimates = [c.a if name == "a" else c.b for c in found]
        cells = [
            percent(estimate) if c.column == "success" else number(estimate)
            for c, estimate in zip(found, estimates, strict=True)
        ]
        made.add_row(name, *cells)
    made.add_row("a - b", *(signed(c.difference) for c in found))
    first = found[0]
    lines = [
        Text.assemble("a = ", (one_line(names[0]), "bold"), f", training seeds: {first.seeds_a}"),
        Text.assemble("b = ", (one_line(names[1]), "bold"), f", training seeds: {first.seeds_b}"),
        Text(f"paired on {first.difference.n} {what}"),
    ]
    if first.dropped:
        lines.append(Text(f"{first.dropped} starts that not all of them have are left out"))
    parts = [*lines, Text(""), made, Text(""), _more(more), Text(""), Text(_verdict(first))]
    return Group(*parts)


def _more(pair: Pair) -> RenderableType:
    made = table("", "")
    made.show_header = False
    made.columns[1].no_wrap = False
    made.add_row("middle half of the scores, a", number(pair.middle_a))
    made.add_row("middle half of the scores, b", number(pair.middle_b))
    made.add_row("a scores higher than b on a start", percent(pair.better))
    if not math.isnan(pair.detectable):
        text = f"{pair.detectable:.3f} in score, four times of five, with these seeds and starts"
        made.add_row("smallest difference that shows", text)
    return made


def _verdict(found: Comparison) -> str:
    difference = found.difference
    if math.isnan(difference.low):
        verdict = "too few episodes for an interval"
    elif difference.low > 0:
        verdict = "a scores higher: the interval of the difference leaves 0 out"
    elif difference.high < 0:
        verdict = "b scores higher: the interval of the difference leaves 0 out"
    else:
        verdict = "no difference is shown: its interval includes 0"
    if min(found.seeds_a, found.seeds_b) < 2:
        verdict += " (of these very checkpoints; one training seed says nothing of others)"
    return verdict

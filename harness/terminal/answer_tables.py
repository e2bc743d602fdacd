"""Verdicts and comparisons as terminal tables."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.analysis.groups import Comparison
from harness.analysis.sweep_results import Sweep
from harness.analysis.verdicts import RULE, Answer
from harness.core.text import one_line
from harness.stats.comparisons import Pair
from harness.terminal.forest import INDENT, forest
from harness.terminal.formatting import (
    NARROW,
    WIDE,
    facts,
    fitted,
    number,
    percent,
    plain,
    signed,
    table,
)


def answers(sweep: Sweep, found: Sequence[Answer], width: int) -> RenderableType:
    """Return the forest plot, every question's arms, the rule and its check."""
    name = one_line(sweep.folder.name)
    parts: list[RenderableType] = [Text.assemble("sweep ", (name, "bold"))]
    if sweep.omission:
        parts.append(plain(sweep.omission, "dim"))
    if sweep.caveat:
        parts.append(plain(sweep.caveat, "yellow"))
    parts.append(forest(found, width))
    for answer in found:
        texts = [
            Text.assemble((one_line(verdict.arm), "bold"), " ", verdict.text)
            for verdict in answer.verdicts
        ]
        parts += [Text(""), plain(answer.question, "bold")]
        parts.append(Padding(Group(_arms(answer, width), *texts), (0, 0, 0, INDENT)))
    checks = dict.fromkeys(text for answer in found for text in answer.check)
    notes = [plain(text, "dim") for text in (RULE.replace("*", ""), *checks)]
    return Group(*parts, Text(""), *notes)


def _arms(answer: Answer, width: int) -> Table:
    columns = ["arm", "score"]
    if width >= NARROW:
        columns += ["success", "seeds", "starts"]
    if width >= WIDE:
        columns[-2:-2] = ["P(better)"]
    made = table(*columns, fold=("arm",), right=("seeds", "starts"))
    made.columns[0].min_width = 10
    for row in answer.rows():
        cells: dict[str, RenderableType] = {
            "arm": plain(row.arm.title),
            "score": number(row.score),
            "success": percent(row.success),
            "P(better)": percent(row.verdict.pair.better) if row.verdict else "",
            "seeds": str(row.seeds),
            "starts": str(row.n),
        }
        made.add_row(*(cells[name] for name in columns))
    return fitted(made, width - INDENT, ("P(better)", "starts", "seeds", "success"))


_TITLES = {"success": "success rate", "final_coverage": "final coverage"}


def comparison(
    found: Sequence[Comparison], more: Pair, names: tuple[str, str], starts: str, width: int
) -> RenderableType:
    """Return a paired comparison of several columns; more: further statistics of the score."""
    made = table("", *(_TITLES.get(c.column, c.column) for c in found))
    shown = [percent if c.column == "success" else number for c in found]
    made.add_row("a", *(show(c.a) for show, c in zip(shown, found, strict=True)))
    made.add_row("b", *(show(c.b) for show, c in zip(shown, found, strict=True)))
    made.add_row("a - b", *(signed(c.difference) for c in found))
    fitted(made, width, ("final coverage", "success rate"))
    first = found[0]
    lines = [
        Text.assemble("a = ", (one_line(names[0]), "bold"), f", training seeds: {first.seeds_a}"),
        Text.assemble("b = ", (one_line(names[1]), "bold"), f", training seeds: {first.seeds_b}"),
        Text(f"paired on {first.difference.n} {starts}"),
    ]
    if first.dropped:
        lines.append(Text(f"{first.dropped} starts that only some of them have are left out"))
    return Group(*lines, Text(""), made, Text(""), _more(more), Text(""), Text(_verdict(first)))


def gate(found: Comparison, more: Pair, margin: float, passed: bool | None) -> RenderableType:
    """Return what `--fail-if-worse` decided, and why; passed: see `comparisons.not_worse`."""
    difference, n = found.difference, found.difference.n
    rule = f"it passes only where the interval of a - b lies above -{margin:g}"
    if passed:
        return Text(f"passed: a is not worse than b by more than {margin:g} in score", "green")
    if passed is False:
        said = f"failed: a is worse than b by more than {margin:g} in score"
    else:
        said = f"failed for lack of evidence: {rule}"
        if difference.value > -margin and not math.isnan(more.detectable):
            half = difference.value - difference.low
            needed = math.ceil(n * (half / (difference.value + margin)) ** 2)
            said += f"; about {needed} starts may show it, if the difference stays"
            if min(found.seeds_a, found.seeds_b) > 1:
                said = said.replace("starts may", "starts, or more training seeds, may")
    return Text(said, "red")


def _more(pair: Pair) -> RenderableType:
    found = [
        ("interquartile mean, a", number(pair.middle_a)),
        ("interquartile mean, b", number(pair.middle_b)),
        ("P(a scores higher than b)", percent(pair.better)),
    ]
    if not math.isnan(pair.detectable):
        text = f"{pair.detectable:.3f} in score (80 % power, these seeds and starts)"
        found.append(("minimum detectable difference", text))
    return facts(found)


def _verdict(found: Comparison) -> str:
    low, high = found.difference.low, found.difference.high
    if math.isnan(low):
        verdict = "too few episodes for an interval"
    elif low > 0 or high < 0:
        better = "a" if low > 0 else "b"
        verdict = f"{better} scores higher: the interval of the difference excludes 0"
    else:
        verdict = "no significant difference: the interval includes 0"
    if min(found.seeds_a, found.seeds_b) < 2:
        verdict += " (for these checkpoints only; train at least 3 seeds)"
    return verdict

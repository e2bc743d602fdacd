"""The answers of a sweep as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from harness.analysis.sweep_results import UNANSWERABLE, Sweep
from harness.analysis.verdicts import RULE, Answer, Row, answers
from harness.core import files
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.core.text import one_line
from harness.stats import comparisons
from harness.terminal.formatting import difference, number, percent

_ESCAPED = {ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_[]<>|#"}
_HEAD = (
    "arm",
    "score",
    "IQM",
    "success",
    "score vs baseline",
    "success vs baseline",
    "P(better)",
    "seeds",
    "starts",
    "verdict",
)


def markdown(sweep: Sweep, found: Sequence[Answer] | None = None) -> str:
    """Return answers.md: a sentence and a table for every question, the rule and its check."""
    lines = [f"# {safe(sweep.folder.name)}", ""]
    found = answers(sweep) if found is None else found
    if not found:
        text = sweep.best_point or "A search without a finished trial has no best point yet."
        return "\n".join([*lines, safe(text) if sweep.plan.get("search") else "No arms yet.", ""])
    lines += [
        f"- **{safe(answer.question)}** {safe(answer.summary)}. Baseline: {safe(answer.baseline)}."
        for answer in found
    ]
    if not sweep.answerable:
        lines += ["", f"{UNANSWERABLE} Next: `{sweep.next_command.replace('`', '')}`"]
    if sweep.omission:
        lines += ["", f"{safe(sweep.omission)}."]
    lines += ["", RULE, ""]
    for check in dict.fromkeys(text for answer in found for text in answer.check):
        lines += [safe(check), ""]
    for answer in found:
        lines += [f"## {safe(answer.question)}", "", safe(answer.text), ""]
        lines += [f"| {' | '.join(_HEAD)} |", "|---|---|---|---|---|---|---|--:|--:|---|"]
        lines += [_line(row, reported=answer.reported) for row in answer.rows()]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row, *, reported: bool) -> str:
    values = row.arm.group.grid("score", REPORT_SEEDS if reported else SELECT_SEEDS).values
    iqm = comparisons.interquartile_mean(values) if values.size else None
    cells = [safe(row.arm.title), number(row.score), number(iqm), percent(row.success)]
    if row.verdict is None:
        cells += ["", "", "", str(row.seeds), str(row.n), ""]
    else:
        cells += [difference(row.verdict.score), difference(row.verdict.success, 2)]
        cells += [percent(row.verdict.pair.better), str(row.seeds), str(row.n), row.verdict.text]
    return f"| {' | '.join(cells)} |"


def safe(text: str) -> str:
    """Return any text as one line that Markdown and HTML show as it is."""
    return one_line(text).translate(_ESCAPED)


def write(folder: Path) -> Path:
    """Write answers.md into a sweep's folder, atomically, and return its path."""
    path = folder / "answers.md"
    with files.atomic(path) as file:
        file.write(markdown(Sweep(folder)).encode())
    return path

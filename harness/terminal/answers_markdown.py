"""The answers of a sweep as Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path

from harness.analysis.sweep_results import Arm, Group, Sweep
from harness.analysis.verdicts import RULE, Answer, Verdict, answers
from harness.core import files
from harness.core import seeds as store
from harness.core.text import one_line
from harness.stats import comparisons
from harness.stats.intervals import Estimate
from harness.terminal.formatting import number, percent

_ESCAPED = {ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_[]<>|#"}


def markdown(sweep: Sweep, found: Sequence[Answer] | None = None) -> str:
    """Return answers.md: a sentence and a table for every question, and the rule behind them."""
    lines = [f"# {safe(sweep.folder.name)}", ""]
    found = answers(sweep) if found is None else found
    if not found:
        return "\n".join([*lines, "A search asks no question; see its best trials.", ""])
    lines += [f"- **{safe(answer.question)}** {safe(answer.summary)}" for answer in found]
    lines += ["", RULE, ""]
    for answer in found:
        lines += [f"## {safe(answer.question)}", "", safe(answer.text), ""]
        lines += [f"| {' | '.join(_HEAD)} |", "|---|---|---|---|---|---|---|--:|--:|---|"]
        by_arm = {verdict.arm: verdict for verdict in answer.verdicts}
        for arm in answer.arms:
            lines.append(_row(arm, by_arm.get(arm.arm), reported=answer.reported))
        lines.append("")
    return "\n".join(lines)


_HEAD = (
    "arm",
    "score",
    "middle half",
    "success",
    "against the first",
    "success",
    "better",
    "seeds",
    "starts",
    "verdict",
)


def _row(arm: Arm, verdict: Verdict | None, *, reported: bool) -> str:
    group: Group = arm.group
    score, success = (arm.report, arm.report_success) if reported else (arm.select, arm.success)
    seeds = store.REPORT_SEEDS if reported else store.SELECT_SEEDS
    grid = group.grid("score", seeds)
    middle = comparisons.interquartile_mean(grid.values) if grid.values.size else None
    cells = [safe(arm.arm), number(score), number(middle), percent(success)]
    trained = str(len(grid.train_seeds))
    if verdict is None:
        cells += ["", "", "", trained, str(score.n), ""]
    else:
        cells += [_signed(verdict.score, 3), _signed(verdict.success, 2)]
        cells += [percent(verdict.pair.better), trained, str(verdict.n), verdict.text]
    return f"| {' | '.join(cells)} |"


def _signed(estimate: Estimate, digits: int) -> str:
    if math.isnan(estimate.value):
        return ""
    if math.isnan(estimate.low):
        return f"{estimate.value:+.{digits}f}"
    return f"{estimate.value:+.{digits}f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def safe(text: str) -> str:
    """Return foreign text as one line that Markdown and HTML take for text."""
    return one_line(text).translate(_ESCAPED)


def write(folder: Path) -> Path:
    """Write answers.md into a sweep's folder, atomically, and return its path."""
    path = folder / "answers.md"
    with files.atomic(path) as file:
        file.write(markdown(Sweep(folder)).encode())
    return path

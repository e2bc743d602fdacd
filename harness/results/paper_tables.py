"""A table of a sweep's arms that goes into a paper as it is: LaTeX (booktabs) or Markdown."""

import math
from collections.abc import Sequence

from harness.analysis.sweep_results import Arm, Sweep
from harness.analysis.verdicts import Answer, Verdict
from harness.core.text import one_line
from harness.stats.intervals import Estimate
from harness.terminal import answers_markdown
from harness.terminal.formatting import number, percent

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "“": "``",
    "”": "''",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}
_HEAD = ("arm", "score", "success rate", "difference", "seeds", "starts")


def latex(sweep: Sweep, answers: Sequence[Answer]) -> str:
    """Return a booktabs table of every question's arms; it needs \\usepackage{booktabs,textcomp}.

    A search has no questions: its points stand there by score.
    """
    lines = [
        r"% needs \usepackage{booktabs,textcomp}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escaped(caption(sweep, answers))}}}",
        r"  \begin{tabular}{llllrr}",
        r"    \toprule",
        "    " + " & ".join(_HEAD) + r" \\",
    ]
    for title, rows in _questions(sweep, answers):
        lines += [
            r"    \midrule",
            rf"    \multicolumn{{6}}{{l}}{{\emph{{{escaped(title)}}}}} \\",
        ]
        lines += ["    " + " & ".join(_tex(row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""])


def markdown(sweep: Sweep, answers: Sequence[Answer]) -> str:
    """Return the same table in Markdown."""
    lines = [answers_markdown.safe(caption(sweep, answers)), ""]
    for title, rows in _questions(sweep, answers):
        lines += [f"**{answers_markdown.safe(title)}**", "", f"| {' | '.join(_HEAD)} |"]
        lines += ["|---|---|---|---|--:|--:|"]
        lines += [f"| {' | '.join(answers_markdown.safe(cell) for cell in row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def caption(sweep: Sweep, answers: Sequence[Answer]) -> str:
    """Return how the numbers were made."""
    reported = [answer.reported for answer in answers]
    starts = "the starts that checkpoints were chosen on"
    if reported and all(reported):
        starts = "starts that nothing was chosen on"
    elif any(reported):
        starts += ", or others where all arms have them"
    text = (
        f"Sweep {sweep.folder.name}: mean over training seeds and {starts}, with 95 % intervals "
        "for other training seeds and other starts; with one training seed they are for other "
        "starts only. Score is the best coverage over 0.95, at most 1; success is a coverage "
        "above 0.95."
    )
    if answers:
        text += (
            " Differences are in score, to the first arm of each question, paired by start; the "
            "intervals of a question's differences hold together (Bonferroni)."
        )
    return text


def _questions(sweep: Sweep, answers: Sequence[Answer]) -> list[tuple[str, list[tuple[str, ...]]]]:
    found = []
    for answer in answers:
        by_arm = {verdict.arm: verdict for verdict in answer.verdicts}
        rows = [_row(arm, by_arm.get(arm.arm), answer.reported) for arm in answer.arms]
        title = f"{answer.question}: {answer.text}" if answer.text else answer.question
        found.append((title, rows))
    if not found:
        points = [_row(arm, None, reported=False) for arm in sweep.arms()]
        found.append(("points of the search", points))
    return found


def _row(arm: Arm, verdict: Verdict | None, reported: bool) -> tuple[str, ...]:
    score, success = (arm.report, arm.report_success) if reported else (arm.select, arm.success)
    n = score.n if verdict is None else verdict.n
    seeds = arm.group.finished
    return (
        one_line(arm.arm),
        number(score),
        percent(success),
        "" if verdict is None else _signed(verdict.score),
        str(seeds),
        str(n),
    )


def _signed(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return ""
    if math.isnan(estimate.low):
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _tex(row: Sequence[str]) -> list[str]:
    name, *numbers = (escaped(cell) for cell in row)
    return [name, *(cell.replace("-", "$-$") for cell in numbers)]  # a hyphen is no minus sign


def escaped(text: str) -> str:
    """Return text from anywhere as LaTeX that prints it and does nothing else.

    What pdfTeX's usual fonts lack stands there as its code point.
    """
    return "".join(_escaped(sign) for sign in one_line(text))


def _escaped(sign: str) -> str:
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if sign.isascii() or (sign.isalpha() and ord(sign) < 0x180):
        return sign
    return f"U+{ord(sign):04X}"

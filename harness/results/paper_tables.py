"""A table of a sweep's arms for a paper: LaTeX (booktabs) or Markdown."""

from collections.abc import Sequence

from harness.analysis.sweep_results import Sweep
from harness.analysis.verdicts import Answer, Row
from harness.core.text import one_line
from harness.terminal.answers_markdown import safe
from harness.terminal.formatting import difference, number, percent

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

    A search has no questions: its trials are listed by score.
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
    lines = [safe(caption(sweep, answers)), ""]
    for title, rows in _questions(sweep, answers):
        lines += [f"**{safe(title)}**", "", f"| {' | '.join(_HEAD)} |"]
        lines += ["|---|---|---|---|--:|--:|"]
        lines += [f"| {' | '.join(safe(cell) for cell in row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def caption(sweep: Sweep, answers: Sequence[Answer]) -> str:
    """Return how the numbers were computed."""
    reported = [answer.reported for answer in answers]
    starts = "the starts that checkpoints were selected on"
    if reported and all(reported):
        starts = "held-out starts"
    elif any(reported):
        starts += ", or held-out starts where all arms were evaluated on them"
    text = (
        f"Sweep {sweep.folder.name}: mean over training seeds and {starts}, with 95 % intervals "
        "over training seeds and starts; with one training seed over starts only. Score is the "
        "maximum coverage divided by 0.95, at most 1; success is a coverage above 0.95."
    )
    if answers:
        text += (
            " Differences are in score, to the first arm of each question, paired by start; their "
            "intervals are corrected for multiple comparisons within a question (Bonferroni)."
        )
    if any(verdict.paired.seeds for answer in answers for verdict in answer.verdicts):
        text += (
            " The variance between an arm's training seeds is moderated by that of the other arms "
            "(Smyth 2004)."
        )
    return text


def _questions(sweep: Sweep, answers: Sequence[Answer]) -> list[tuple[str, list[tuple[str, ...]]]]:
    if not answers:
        searched = Answer("", "", tuple(sweep.arms()), ())
        return [("trials of the search", [_cells(row) for row in searched.rows()])]
    return [
        (
            f"{answer.question}: {answer.text}" if answer.text else answer.question,
            [_cells(row) for row in answer.rows()],
        )
        for answer in answers
    ]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        one_line(row.arm.arm),
        number(row.score),
        percent(row.success),
        difference(row.verdict.score, ends=3) if row.verdict else "",
        str(row.seeds),
        str(row.n),
    )


def _tex(row: Sequence[str]) -> list[str]:
    name, *numbers = (escaped(cell) for cell in row)
    if name.startswith(("[", "*")):
        name = f"{{}}{name}"  # \midrule and \\ would take it for their argument
    return [name, *(cell.replace("-", "$-$") for cell in numbers)]  # a hyphen is no minus sign


def escaped(text: str) -> str:
    """Return any text as LaTeX that prints it and runs no command.

    Characters that pdfTeX's usual fonts lack become "U+" and their code point.
    """
    found = ""
    for sign in one_line(text):
        printable = sign.isascii() or (sign.isalpha() and ord(sign) < 0x180)
        found += _SPECIAL.get(sign, sign if printable else f"U+{ord(sign):04X}")
    return found

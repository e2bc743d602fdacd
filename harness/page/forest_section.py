"""The first thing on the page: one forest plot of all arms against their questions' baselines."""

import math
from collections.abc import Sequence

from harness.analysis.sweep_results import Arm
from harness.analysis.verdicts import TITLES, Answer, Verdict
from harness.core.text import plural
from harness.page.elements import Element, Node, el, head, note, short
from harness.page.labels import VERDICTS
from harness.page.svg_plots import Axis, interval, ruler
from harness.stats.intervals import Estimate
from harness.terminal.formatting import parts, reach

MAX_ROWS = 200  # of a question
Question = tuple[str, Sequence[Arm], Answer]  # its anchor, arms and answer


def forest(questions: Sequence[Question]) -> Element:
    """Return a table: by question its line of verdicts, and its arms, the best first.

    All questions share one axis for the score and one for the success rate.
    """
    verdicts = [verdict for _, _, answer in questions for verdict in answer.ranked]
    axes = (
        difference_axis([verdict.score for verdict in verdicts]),
        difference_axis([verdict.success for verdict in verdicts]),
    )
    heads = [head("arm")]
    for title, axis in zip(("score", "success rate"), axes, strict=True):
        name = el("span", f"{title} vs baseline")
        heads += [el("th", name, ruler(axis), scope="col", class_="strip-head")]
        heads += [head("difference", "number")]
    made = el(
        "table",
        el("thead", el("tr", *heads, role="row"), role="rowgroup"),
        *(_group(*question, axes) for question in questions),
        class_="forest",
        role="table",
    )
    signs = ", ".join(f"{VERDICTS[word][1]} {TITLES[word]}" for word in VERDICTS if word in TITLES)
    text = (
        f"{signs}. Dots are paired differences, bars 95 % intervals over training seeds and "
        "starts, corrected for multiple comparisons; an arrow is a value beyond the axis."
    )
    return el("div", made, note(text), class_="card")


def difference_axis(found: Sequence[Estimate]) -> Axis:
    """Return an axis with 0 in its middle on which nearly all of these differences lie."""
    farthest = reach(found)
    ticks = (-farthest, -farthest / 2, 0.0, farthest / 2, farthest)
    return Axis("difference", -farthest, farthest, form="+.2g", given=ticks)


def _group(key: str, arms: Sequence[Arm], answer: Answer, axes: tuple[Axis, Axis]) -> Element:
    title: list[Node] = [el("a", short(answer.question, 80), href=f"#{key}")]
    if answer.text:
        title.append(el("span", short(answer.text, 200), class_="asked"))
    first, *_ = answer.rows()
    groups = {arm.config_hash: arm.group for arm in arms}.values()
    finished = sum(group.finished for group in groups)
    planned = sum(len(group.trials) for group in groups)
    kind = "test" if answer.reported else "validation"
    facts = f"Baseline: {short(answer.baseline, 160)} · {plural(first.seeds, 'training seed')} on "
    facts += f"{first.n:,} {kind} starts"
    if finished < planned:
        facts += f" · {finished} of {plural(planned, 'trial')} finished"
    asks = el(
        "th",
        el("div", *title),
        el("p", short(answer.summary, 1000), class_="line"),
        el("small", facts),
        colspan=5,
        scope="rowgroup",
    )
    rows = [_row(verdict, axes) for verdict in answer.ranked[:MAX_ROWS]]
    return el("tbody", el("tr", asks, role="row", class_="asks"), *rows, role="rowgroup")


def _row(verdict: Verdict, axes: tuple[Axis, Axis]) -> Element:
    kind, sign = VERDICTS[verdict.word]
    name = el("th", el("span", sign, class_=f"sign {kind}"), f" {short(verdict.arm)}", scope="row")
    cells = [name]
    for found, word, axis, label in (
        (verdict.score, verdict.word, axes[0], "score"),
        (verdict.success, verdict.success_word, axes[1], "success"),
    ):
        strip = interval(axis, [(found, VERDICTS[word][0])], zero=True)
        value, ends = parts(found, sign="+")
        number = el("span", value, title=f"{TITLES[word]}, n = {found.n:,}")
        shown = [] if math.isnan(found.value) else [number, el("small", ends or "no interval")]
        cells.append(el("td", strip, class_=f"strip-cell {label}", role="cell"))
        cells.append(el("td", *shown, class_=f"number {label}", role="cell"))
    return el("tr", *cells, role="row", title=verdict.text)

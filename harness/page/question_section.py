"""A question's part of the page: every arm's interval, then the figures behind it."""

import math
from collections.abc import Sequence

from harness.analysis.sweep_results import Arm
from harness.analysis.verdicts import Answer, Verdict
from harness.core import seeds as store
from harness.page import failure_figures, learning_figures
from harness.page.elements import Element, Node, el, short
from harness.page.labels import VERDICTS, chip, estimate, plural
from harness.page.page_data import Material
from harness.page.svg_plots import STYLES, Axis, interval, ruler
from harness.stats import comparisons

SCORE = Axis("score", 0.0, 1.0, given=(0.0, 0.25, 0.5, 0.75, 1.0))
MOST_ROWS = 200


def section(material: Material, arms: Sequence[Arm], answer: Answer | None, key: str) -> Element:
    """Return a question's section; without an answer (a search's points) no arm is compared."""
    first = arms[0]
    styles = chosen(arms, compared=answer is not None)
    name = answer.question if answer else first.question
    text = first.text or ""
    body: list[Node] = [
        el("h2", short(name, 120), title=name if len(name) > 120 else None),
        *([el("p", text, class_="asked")] if text else []),
        *([el("p", answer.summary, class_="answer")] if answer else []),
        table(material, arms, answer, styles),
        *learning_figures.training(material, arms, styles),
        *learning_figures.success(arms, styles),
        *failure_figures.where(arms, styles),
        *failure_figures.wins(arms, styles),
    ]
    return el("section", *body, id=key, class_="question")


def chosen(arms: Sequence[Arm], *, compared: bool) -> dict[int, int]:
    """Return which arms (by index) the figures draw and in which style: at most six.

    The baseline, then the highest scores; without any score those that come first.
    """

    def rank(index: int) -> tuple[bool, float, int]:
        score = arms[index].select.value
        return math.isnan(score), -score if math.isfinite(score) else 0.0, index

    seen: set[str] = set()
    order = []
    for index in sorted(range(len(arms)), key=lambda i: (compared and i != 0, *rank(i))):
        if arms[index].config_hash not in seen:  # the same config under two names is one curve
            seen.add(arms[index].config_hash)
            order.append(index)
    return {index: style for style, index in enumerate(order[:STYLES])}


def table(
    material: Material, arms: Sequence[Arm], answer: Answer | None, styles: dict[int, int]
) -> Element:
    """Return a row for each arm: score and difference as intervals on common axes and in words."""
    by_arm = {verdict.arm: verdict for verdict in answer.verdicts} if answer else {}
    reported = any(not math.isnan(arm.report.value) for arm in arms)
    differences = _axis(list(by_arm.values()))
    heads: list[Node] = [el("th", "arm", scope="col"), _head("score", SCORE)]
    heads.append(el("th", "mean score", scope="col", class_="number"))
    if answer:
        heads += [_head(f"difference to “{short(arms[0].arm, 24)}”", differences)]
        heads += [el("th", "paired difference", scope="col", class_="number")]
    heads.append(el("th", "success", scope="col", class_="number"))
    shown = arms[:MOST_ROWS]
    grids = [arm.group.grid("score", _seeds(arm)).values for arm in shown]
    middles = material.afford(sum(grid.size for grid in grids))
    if middles:
        heads.append(el("th", "middle half", scope="col", class_="number"))
    rows = [
        _row(arm, by_arm.get(arm.arm), answer, differences, f"s{styles.get(index, 'x')}", middles)
        for index, arm in enumerate(shown)
    ]
    notes = [_legend(answer, reported=reported, middles=middles)]
    if len(arms) > MOST_ROWS:
        notes.append(f"{len(arms) - MOST_ROWS:,} more arms are left out here.")
    grid = el(
        "table",
        el("thead", el("tr", *heads, role="row"), role="rowgroup"),
        el("tbody", *rows, role="rowgroup"),
        class_="intervals" + ("" if answer else " alone"),
        role="table",
    )
    return el("div", grid, el("p", " ".join(notes), class_="note"), class_="card")


def _head(text: str, axis: Axis) -> Element:
    return el("th", el("span", text), ruler(axis), scope="col", class_="strip-head")


def _axis(found: Sequence[Verdict]) -> Axis:
    ends = [abs(v) for verdict in found for v in (verdict.score.low, verdict.score.high)]
    ends += [abs(verdict.score.value) for verdict in found]
    largest = max((end for end in ends if math.isfinite(end)), default=0.1)
    reach = next((r for r in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if largest <= r), 1.0)
    ticks = (-reach, -reach / 2, 0.0, reach / 2, reach)
    return Axis("difference", -reach, reach, form="+.2g", given=ticks)


def _seeds(arm: Arm) -> range:
    return store.SELECT_SEEDS if math.isnan(arm.report.value) else store.REPORT_SEEDS


def _row(
    arm: Arm,
    verdict: Verdict | None,
    answer: Answer | None,
    differences: Axis,
    swatch: str,
    middles: bool,
) -> Element:
    known = not math.isnan(arm.report.value)
    marks = [(arm.select.value, arm.select.low, arm.select.high, "select" if known else "main")]
    numbers = [el("div", *estimate(arm.select), class_="second" if known else None)]
    if known:
        marks.insert(0, (arm.report.value, arm.report.low, arm.report.high, "main"))
        numbers.insert(0, el("div", *estimate(arm.report)))
    cells = [
        el("th", *_name(arm, swatch, known=known), scope="row", role="rowheader", class_="arm"),
        el("td", interval(SCORE, marks), class_="strip-cell", role="cell"),
        _cell("score", numbers),
    ]
    if answer:
        cells += _difference(arm, verdict, answer, differences)
    success = arm.report_success if known else arm.success
    cells.append(_cell("success", estimate(success, percent=True)))
    if middles:
        grid = arm.group.grid("score", _seeds(arm)).values
        middle = comparisons.interquartile_mean(grid) if grid.size else None
        cells.append(_cell("middle half", estimate(middle)))
    first = answer is not None and arm is answer.arms[0]
    return el("tr", *cells, role="row", class_="first" if first else None)


def _cell(label: str, content: Sequence[Node]) -> Element:
    return el("td", *content, class_="number", role="cell", data_label=label)


def _name(arm: Arm, swatch: str, *, known: bool) -> list[Node]:
    group = arm.group
    seeds = f"{group.finished} of {plural(len(group.trials), 'training seed')}"
    starts = f"{arm.select.n} starts" + (f", {arm.report.n:,} on report" if known else "")
    illness = str(arm.as_row()["health"])
    failed = sum(trial["status"] == "failed" for trial in group.trials)
    name: list[Node] = [
        el("span", "", class_=f"swatch {swatch}"),
        el("span", short(arm.arm), title=arm.arm if len(arm.arm) > 60 else None),
        el("small", f"{seeds}; {starts}" if arm.select.n else seeds),
    ]
    if illness not in ("", "ok"):
        name.append(el("small", f"⚠ {illness}", class_="ill"))
    if failed:
        name.append(el("small", f"✕ {failed} failed", class_="failed"))
    return name


def _difference(arm: Arm, verdict: Verdict | None, answer: Answer, axis: Axis) -> list[Element]:
    empty = el("td", "", class_="strip-cell empty", role="cell")
    first = answer.arms[0]
    if verdict is None:
        same = "baseline" if arm is first else f"the same as “{short(first.arm, 24)}”"
        return [empty, _cell("difference", [el("small", same)])]
    kind = VERDICTS.get(verdict.word, ("nothing", ""))[0]
    score = verdict.score
    strip = interval(axis, [(score.value, score.low, score.high, kind)], zero=True)
    words: list[Node] = [chip(verdict.word, verdict.text)]
    if not math.isnan(score.value):
        words = [el("div", *estimate(score, sign=True)), *words]
        words.append(el("small", f"n = {verdict.n:,}, {plural(verdict.train_seeds, 'seed')}"))
    return [
        el("td", strip, class_="strip-cell", role="cell"),
        _cell("difference", words),
    ]


def _legend(answer: Answer | None, *, reported: bool, middles: bool) -> str:
    text = "Dots are means, bars 95 % intervals over training seeds and starts. "
    if reported:
        text += "Filled: report starts, on which nothing was chosen; hollow: selection starts. "
    if answer:
        where = "report" if answer.reported else "selection"
        text += (
            f"Differences are paired by start, on the {where} starts, and their intervals hold "
            "together. "
        )
    if middles:
        text += "“Middle half” is the interquartile mean, which a few lost episodes do not move."
    else:
        text += "Interquartile means are left out here: resampling so many episodes takes long."
    return text

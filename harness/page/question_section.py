"""A question's part of the page: every arm's interval, then the figures behind it."""

import math
from collections.abc import Sequence

from harness.analysis.sweep_results import Arm, health
from harness.analysis.verdicts import Answer, Verdict
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.core.text import plural
from harness.page import failure_figures, learning_figures
from harness.page.elements import Element, Node, el, head, note, short
from harness.page.forest_section import difference_axis
from harness.page.labels import VERDICTS, chip, estimate
from harness.page.page_data import PageData
from harness.page.svg_plots import SHARE, STYLES, Axis, interval, ruler
from harness.stats import comparisons

SCORE = Axis("score", 0.0, 1.0, given=SHARE)
MAX_ROWS = 200
MAX_SCORES = 25_000  # of which interquartile means are computed: of more they would take minutes


def section(
    data: PageData, arms: Sequence[Arm], answer: Answer | None, key: str, *, folded: bool
) -> Element:
    """Return a question's section; without an answer no arm is compared.

    folded: whether its figures are shown only on demand.
    """
    styles = drawn_arms(arms, compared=answer is not None)
    name, text = arms[0].question, arms[0].text
    return el(
        "section",
        el("h2", short(name, 120), title=name if len(name) > 120 else None),
        el("p", text, class_="asked") if text else None,
        el("p", answer.summary, class_="answer") if answer else None,
        note(f"Baseline: {answer.baseline}.") if answer else None,
        table(arms, answer, styles),
        el(
            "details",
            el("summary", "Figures: training, scores, failures, improvement"),
            *learning_figures.training(data, arms, styles),
            *learning_figures.success(arms, styles),
            *failure_figures.failures(arms, styles),
            *failure_figures.improvement(arms, styles),
            open=not folded,
        ),
        id=key,
        class_="question",
    )


def drawn_arms(arms: Sequence[Arm], *, compared: bool) -> dict[int, int]:
    """Return the arms (by index) that figures draw and their styles: at most `STYLES`.

    The baseline, then the highest scores; without scores the first ones.
    """

    def rank(index: int) -> tuple[bool, float]:
        score = arms[index].select.value
        return compared and index != 0, math.inf if math.isnan(score) else -score

    order: dict[str, int] = {}  # the same config under two names is one curve
    for index in sorted(range(len(arms)), key=rank):
        order.setdefault(arms[index].config_hash, index)
    return {index: style for style, index in enumerate(list(order.values())[:STYLES])}


def table(arms: Sequence[Arm], answer: Answer | None, styles: dict[int, int]) -> Element:
    """Return a row for each arm: score and difference as intervals and as numbers."""
    verdicts = {verdict.arm: verdict for verdict in answer.verdicts} if answer else {}
    differences = difference_axis([verdict.score for verdict in verdicts.values()])
    shown = arms[:MAX_ROWS]
    scores = [
        arm.group.grid("score", REPORT_SEEDS if arm.tested else SELECT_SEEDS).values
        for arm in shown
    ]
    iqm = sum(grid.size for grid in scores) <= MAX_SCORES
    heads = [head("arm"), _plot_head("score", SCORE), head("mean score", "number")]
    if answer:
        heads.append(_plot_head(f"vs “{short(arms[0].arm, 24)}”", differences))
        heads.append(head("paired difference", "number"))
    heads += [head(name, "number") for name in ("success", *(["IQM"] if iqm else []))]
    rows = []
    for index, (arm, grid) in enumerate(zip(shown, scores, strict=True)):
        cells = _score_cells(arm, f"s{styles.get(index, 'x')}")
        if answer:
            cells += _difference_cells(arm, verdicts.get(arm.arm), arms[0], differences)
        cells.append(_cell("success", estimate(arm.scores(reported=arm.tested)[1], percent=True)))
        if iqm:
            found = comparisons.interquartile_mean(grid) if grid.size else None
            cells.append(_cell("IQM", estimate(found)))
        first = answer is not None and index == 0
        rows.append(el("tr", *cells, role="row", class_="first" if first else None))
    grid_table = el(
        "table",
        el("thead", el("tr", *heads, role="row"), role="rowgroup"),
        el("tbody", *rows, role="rowgroup"),
        class_="intervals" + ("" if answer else " alone"),
        role="table",
    )
    text = _legend(answer, tested=any(arm.tested for arm in arms), iqm=iqm)
    if len(arms) > MAX_ROWS:
        text += f" {len(arms) - MAX_ROWS:,} more arms are not shown."
    return el("div", grid_table, note(text), class_="card")


def _plot_head(text: str, axis: Axis) -> Element:
    return el("th", el("span", text), ruler(axis), scope="col", class_="strip-head")


def _score_cells(arm: Arm, swatch: str) -> list[Element]:
    kind = "select" if arm.tested else "main"
    marks = [(arm.select, kind)]
    numbers = [el("div", *estimate(arm.select), class_="second" if arm.tested else None)]
    if arm.tested:
        marks.insert(0, (arm.report, "main"))
        numbers.insert(0, el("div", *estimate(arm.report)))
    return [
        el("th", *_name(arm, swatch), scope="row", role="rowheader", class_="arm"),
        el("td", interval(SCORE, marks), class_="strip-cell", role="cell"),
        _cell("score", numbers),
    ]


def _cell(label: str, content: Sequence[Node]) -> Element:
    return el("td", *content, class_="number", role="cell", data_label=label)


def _name(arm: Arm, swatch: str) -> list[Node]:
    group = arm.group
    text = f"{group.finished} of {plural(len(group.trials), 'training seed')}"
    if arm.select.n:
        text += f"; {arm.select.n} validation starts"
        text += f", {arm.report.n:,} test starts" if arm.tested else ""
    issues = health(group.trials)
    failed = sum(trial["status"] == "failed" for trial in group.trials)
    name: list[Node] = [
        el("span", "", class_=f"swatch {swatch}"),
        el("span", short(arm.arm), title=arm.arm if len(arm.arm) > 60 else None),
        *([el("small", short(arm.parameters, 200))] if arm.parameters else []),
        el("small", text),
    ]
    if issues not in ("", "ok"):
        name.append(el("small", f"⚠ {issues}", class_="issue"))
    if failed:
        name.append(el("small", f"✕ {failed} failed", class_="failed"))
    return name


def _difference_cells(arm: Arm, verdict: Verdict | None, first: Arm, axis: Axis) -> list[Element]:
    if verdict is None:
        text = "baseline" if arm is first else f"same as “{short(first.arm, 24)}”"
        empty = el("td", "", class_="strip-cell empty", role="cell")
        return [empty, _cell("difference", [el("small", text)])]
    strip = interval(axis, [(verdict.score, VERDICTS[verdict.word][0])], zero=True)
    content: list[Node] = [chip(verdict.word, title=verdict.text)]
    if not math.isnan(verdict.score.value):
        content.insert(0, el("div", *estimate(verdict.score, sign="+")))
        content.append(el("small", f"n = {verdict.n:,}, {plural(verdict.train_seeds, 'seed')}"))
    return [el("td", strip, class_="strip-cell", role="cell"), _cell("difference", content)]


def _legend(answer: Answer | None, *, tested: bool, iqm: bool) -> str:
    text = "Dots are means, bars 95 % intervals over training seeds and starts. "
    if tested:
        text += "Filled: test score (held-out report seeds); hollow: validation score. "
    if answer:
        kind = "test" if answer.reported else "validation"
        text += (
            f"Differences in {kind} score are paired by start; their intervals are corrected for "
            "multiple comparisons. "
        )
    if iqm:
        return text + "IQM: interquartile mean, robust to outlier episodes."
    return text + "The interquartile mean is not shown: with so many episodes it takes minutes."

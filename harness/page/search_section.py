"""A search's part of the page: its best points, which settings mattered, score by setting."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.analysis.sweep_results import Arm
from harness.page import question_section
from harness.page.elements import Element, Node, el, short
from harness.page.labels import inline, plural
from harness.page.learning_figures import SHARE
from harness.page.page_data import Material
from harness.page.svg_plots import Axis, figure, fitted, interval, scatter
from harness.page.trials_section import differing
from harness.stats.intervals import Estimate

MOST_POINTS = 400
MOST_SETTINGS = 12
BEST = 15


def section(material: Material, arms: Sequence[Arm], key: str) -> Element:
    """Return the best points of a search as intervals, and score by setting over all of them."""
    known = [arm for arm in arms if math.isfinite(arm.select.value)]
    best = sorted(known, key=lambda arm: -arm.select.value)[:BEST] or list(arms[:BEST])
    body: list[Node] = [
        el("h2", short(arms[0].question, 120)),
        el(
            "p",
            f"{plural(len(known), 'point')} of {len(arms):,} have a score; the highest are below. "
            "The score of the best of many is too high: what was chosen by it has to be measured "
            "again on fresh training seeds and starts.",
            class_="answer",
        ),
        question_section.table(material, best, None, {}),
        *_importances(material),
        *_settings(known),
    ]
    return el("section", *body, id=key, class_="question")


def _importances(material: Material) -> list[Node]:
    if not isinstance(material.search.get("axes"), Mapping):
        return []  # a plan from before axes were written down
    # Optuna takes a second to import, and only a search needs it.
    from harness.analysis.importance import importances

    found = importances(material.folder)
    note = el("p", found.note, class_="note")
    if not found.rows:
        return [el("h3", "Importance"), note] if found.note else []
    axis = Axis("share of the importance", 0.0, 1.0, form=".0%", given=SHARE)
    rows = [
        el(
            "tr",
            el("th", short(row.key), scope="row"),
            el("td", interval(axis, [(row.value, row.low, row.high, "main")]), class_="strip-cell"),
            el("td", inline(Estimate(row.value, row.low, row.high, row.n), percent=True)),
        )
        for row in found.rows[:MOST_SETTINGS]
    ]
    table = el("table", el("tbody", *rows), class_="importance")
    return [el("h3", "Importance"), el("div", table, class_="card"), note]


def _settings(arms: Sequence[Arm]) -> list[Node]:
    """Return a picture for each number that differs between points: the score by it."""
    firsts = [arm.group.trials[0] for arm in arms if arm.group.trials]
    pictures: list[Node] = []
    y = Axis("score", 0.0, 1.0, given=SHARE)
    for name in differing(firsts)[:MOST_SETTINGS]:
        values = [(arm, arm.group.trials[0].get(name)) for arm in arms if arm.group.trials]
        numbers = [
            (float(value), arm)
            for arm, value in values
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        title = name.removeprefix("policy.")
        if len(numbers) == len(values):
            places = np.array([value for value, _ in numbers])
            spread = places.min() > 0 and places.max() / places.min() > 20
            x = fitted(short(title, 40), places, log=bool(spread))
        else:
            texts = sorted({str(value) for _, value in values})[:8]
            numbers = [(float(texts.index(str(v))), a) for a, v in values if str(v) in texts]
            x = _named(short(title, 40), texts)
        points = [
            (
                value,
                arm.select.value,
                arm.select.low,
                arm.select.high,
                f"{short(arm.arm, 40)}: {inline(arm.select)}",
            )
            for value, arm in numbers[:MOST_POINTS]
        ]
        described = f"Selection score of {len(points)} points by {title}, 95 % intervals"
        pictures.append(figure(title, scatter(title, described, x, y, points), "score by setting"))
    if not pictures:
        return []
    note = f"Every point of the search{_cut(len(arms))}; bars are 95 % intervals of its score."
    return [
        el("h3", "Score by setting"),
        el("div", *pictures, class_="figures"),
        el("p", note, class_="note"),
    ]


def _cut(n: int) -> str:
    return f", the first {MOST_POINTS} of {n:,}" if n > MOST_POINTS else ""


def _named(title: str, texts: Sequence[str]) -> Axis:
    ticks = tuple(float(k) for k in range(len(texts)))
    names = tuple(short(text, 12) for text in texts)
    return Axis(title, -0.5, len(texts) - 0.5, given=ticks, names=names)

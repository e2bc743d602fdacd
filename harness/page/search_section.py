"""A search's part of the page: its best trials, importance of settings, score by setting."""

import math
from collections.abc import Sequence

import numpy as np

from harness.analysis.importance import importances
from harness.analysis.sweep_results import Arm
from harness.core.text import plural
from harness.page import question_section
from harness.page.elements import Element, Node, el, note, short
from harness.page.labels import inline
from harness.page.page_data import PageData
from harness.page.svg_plots import SHARE, Axis, figure, fitted, group, interval, scatter
from harness.page.trials_section import differing

MAX_POINTS = 400
MAX_SETTINGS = 12
BEST = 15


def section(data: PageData, arms: Sequence[Arm], key: str) -> Element:
    """Return the best trials of a search as intervals, and score by setting over all of them."""
    known = [arm for arm in arms if math.isfinite(arm.select.value)]
    best = sorted(known, key=lambda arm: -arm.select.value)[:BEST] or list(arms[:BEST])
    text = (
        f"{plural(len(known), 'trial')} of {len(arms):,} have a score; the highest are below. The "
        "best of many scores is biased upwards: evaluate what was selected by it again, with new "
        "training seeds and starts."
    )
    return el(
        "section",
        el("h2", short(arms[0].question, 120)),
        el("p", text, class_="answer"),
        question_section.table(best, None, {}),
        *_importances(data),
        *_settings(known),
        id=key,
        class_="question",
    )


def _importances(data: PageData) -> list[Node]:
    found, text = importances(data.folder)
    if not text:
        return []
    axis = Axis("importance", 0.0, 1.0, form=".0%", given=SHARE)
    rows = [
        el(
            "tr",
            el("th", short(key), scope="row"),
            el("td", interval(axis, [(share, "main")]), class_="strip-cell"),
            el("td", inline(share, percent=True)),
        )
        for key, share in list(found.items())[:MAX_SETTINGS]
    ]
    table = el("table", el("tbody", *rows), class_="importance")
    card = [el("div", table, class_="card")] if rows else []
    return [el("h3", "Importance of settings"), *card, note(text)]


def _settings(arms: Sequence[Arm]) -> list[Node]:
    """Return a figure for each setting that differs between trials: the score by its value."""
    arms = [arm for arm in arms if arm.group.trials]
    figures: list[Node] = []
    y = Axis("score", 0.0, 1.0, given=SHARE)
    for name in differing([arm.group.trials[0] for arm in arms])[:MAX_SETTINGS]:
        title = name.removeprefix("policy.")
        x, placed = _placed(short(title, 40), name, arms)
        points = [
            (value, arm.select, f"{short(arm.title, 120)}: {inline(arm.select)}")
            for value, arm in placed[:MAX_POINTS]
        ]
        described = f"Validation score of {len(points)} trials by {title}, 95 % intervals"
        figures.append(figure(title, scatter(title, described, x, y, points), "score by setting"))
    if not figures:
        return []
    n = len(arms)
    shown = f"The first {MAX_POINTS} of {n:,} trials" if n > MAX_POINTS else "All trials"
    text = f"{shown}; bars are 95 % intervals of the score."
    return group("Score by setting", figures, text)


def _placed(title: str, name: str, arms: Sequence[Arm]) -> tuple[Axis, list[tuple[float, Arm]]]:
    """Return an axis for a setting and each arm's place on it; texts lie at whole numbers."""
    values = [arm.group.trials[0].get(name) for arm in arms]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, np.float64)
        log = bool(numbers.min() > 0 and numbers.max() / numbers.min() > 20)
        return fitted(title, numbers, log=log), list(zip(numbers.tolist(), arms, strict=True))
    texts = sorted({str(value) for value in values})[:8]
    axis = Axis(
        title,
        -0.5,
        len(texts) - 0.5,
        given=tuple(float(k) for k in range(len(texts))),
        names=tuple(short(text, 12) for text in texts),
    )
    known = [(str(value), arm) for value, arm in zip(values, arms, strict=True)]
    return axis, [(float(texts.index(text)), arm) for text, arm in known if text in texts]

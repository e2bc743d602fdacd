"""The figures behind a question: training, success, where policies fail, who beats whom."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from harness.analysis.sweep_results import Arm
from harness.core import seeds as store
from harness.page.elements import Element, Node, el, short
from harness.page.labels import plural
from harness.page.page_data import Material
from harness.page.svg_plots import Axis, Line, figure, fitted, lines
from harness.stats import comparisons, intervals

SHARE = (0.0, 0.25, 0.5, 0.75, 1.0)
TAUS = np.arange(0.0, 1.0, 0.025)
THRESHOLDS = np.round(np.arange(0.80, 0.9501, 0.01), 2)
Styles = dict[int, int]


def legend(arms: Sequence[Arm], styles: Styles) -> Element:
    """Return the names of the arms that the figures draw."""
    items = [
        el("li", el("span", "", class_=f"swatch s{style}"), short(arms[index].arm, 40))
        for index, style in sorted(styles.items(), key=lambda pair: pair[1])
    ]
    rest = len({arm.config_hash for arm in arms}) - len(styles)
    if rest > 0:
        items.append(el("li", f"and {plural(rest, 'more arm')} in the table", class_="dim"))
    return el("ul", *items, class_="legend")


def group(title: str, pictures: Sequence[Node], *more: Node, note: str = "") -> list[Node]:
    """Return figures under a title; nothing where there are none."""
    if not pictures:
        return []
    words = [el("p", note, class_="note")] if note else []
    return [el("h3", title), *more, el("div", *pictures, class_="figures"), *words]


def training(material: Material, arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return the learning curves of the drawn arms, with the training seeds' extremes as a band."""
    found: list[Node] = []
    for title, names, log in (
        ("Training loss", ("train_loss_ratio", "train_loss"), True),
        ("Validation loss", ("val_loss_ratio", "val_loss"), True),
        ("Action error in validation", ("val_action_error_px",), False),
    ):
        for name in names:
            drawn = _curves(material, arms, styles, name)
            if drawn:
                unit = {"_ratio": "share of chance", "or_px": "px"}
                y_title = next((u for end, u in unit.items() if name.endswith(end)), "loss")
                found.append(_steps(title, y_title, drawn, log=log))
                break
    drawn = _selections(material, arms, styles)
    if drawn:
        y = Axis("score", 0.0, 1.0, given=SHARE)
        x = fitted("optimiser steps", _all(line.x for line in drawn))
        description = "Mean selection score by step, with the extremes of the training seeds"
        picture = lines("Selection score by step", description, x, y, drawn)
        found.append(figure("Selection score", picture, "by step; band: the seeds' extremes"))
    note = "Lines are means over training seeds, bands their extremes; one seed has no band."
    return group("Training", found, legend(arms, styles), note=note)


def _curves(material: Material, arms: Sequence[Arm], styles: Styles, name: str) -> list[Line]:
    drawn = []
    for index, style in styles.items():
        band = material.curve(arms[index].config_hash, name)
        if band is not None:
            label = f"{arms[index].arm}, {plural(band.seeds, 'seed')}"
            drawn.append(Line(label, style, band.steps, band.mean, band.low, band.high))
    return drawn


def _steps(title: str, unit: str, drawn: Sequence[Line], *, log: bool) -> Element:
    values = _all(line.y for line in drawn)
    bands = [b for line in drawn for b in (line.low, line.high) if b is not None]
    values = np.concatenate([values, *bands])
    log = log and bool((values[np.isfinite(values)] > 0).all())
    y = fitted(unit, values, log=log)
    x = fitted("optimiser steps", _all(line.x for line in drawn))
    scale = ", logarithmic" if y.log else ""
    return figure(title, lines(title, f"{title} by optimiser step", x, y, drawn), f"{unit}{scale}")


def _all(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def _selections(material: Material, arms: Sequence[Arm], styles: Styles) -> list[Line]:
    drawn = []
    for index, style in styles.items():
        found = material.selections(arms[index].config_hash)
        if len(found) < 2:
            continue
        values = list(found.values())
        mean, low, high = (np.array([f(v) for v in values]) for f in (np.mean, np.min, np.max))
        steps = np.array(list(found), np.float64)
        drawn.append(Line(arms[index].arm, style, steps, mean, low, high, marks=True))
    return drawn


def success(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return success by threshold and the scores' distribution, with 95 % bands."""
    by_threshold: list[Line] = []
    profiles: list[Line] = []
    counts = []
    seeds, name = common_starts(arms, styles)
    for index, style in styles.items():
        arm = arms[index]
        coverage = arm.group.grid("max_coverage", seeds)
        if not coverage.values.size:
            continue
        counts.append(coverage.values.size)
        rates = [intervals.share_interval((coverage.values > t) * 1.0) for t in THRESHOLDS]
        y, low, high = (np.array([getattr(r, n) for r in rates]) for n in ("value", "low", "high"))
        by_threshold.append(Line(arm.arm, style, THRESHOLDS, y, low, high))
        found = comparisons.score_distribution(
            arm.group.grid("score", seeds).values, thresholds=TAUS
        )
        profiles.append(Line(arm.arm, style, found.thresholds, found.share, found.low, found.high))
    if not by_threshold:
        return []
    rate = Axis("success rate", 0.0, 1.0, form=".0%", given=SHARE)
    covered = Axis("coverage that counts as success", 0.80, 0.95, given=(0.80, 0.85, 0.90, 0.95))
    tau = Axis("score τ", 0.0, 1.0, given=SHARE)
    pictures: list[Node] = [
        figure(
            "Success by threshold",
            lines("Success by threshold", "Success rate by threshold", covered, rate, by_threshold),
            "success rate; an episode counts when its best coverage is above the threshold",
        ),
        figure(
            "Distribution of scores",
            lines("Share of episodes above a score", "Performance profile", tau, rate, profiles),
            "share of episodes with a score above τ; higher is better",
        ),
    ]
    least, most = min(counts), max(counts)
    n = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    note = f"Bands are pointwise 95 % intervals; n = {n} episodes an arm, {name} starts."
    return group("Success and scores", pictures, legend(arms, styles), note=note)


def common_starts(arms: Sequence[Arm], styles: Styles) -> tuple[range, str]:
    """Return the report starts where every drawn arm with episodes has some, else the selection's.

    Their name comes along. A picture never holds one arm on these and another on those.
    """
    known = [arms[index] for index in styles if arms[index].group.episodes.num_rows]
    if known and not any(math.isnan(arm.report.value) for arm in known):
        return store.REPORT_SEEDS, "report"
    return store.SELECT_SEEDS, "selection"

"""The figures behind a question: training, success, where policies fail, who beats whom."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from harness import evidence, stats, store
from harness.page import starts
from harness.page.axes import Axis, fitted
from harness.page.markup import Element, Node, el, short
from harness.page.material import Material
from harness.page.plots import Line, figure, lines
from harness.page.words import plural
from harness.stats import Crossed
from harness.summary import Arm

SHARE = (0.0, 0.25, 0.5, 0.75, 1.0)
THRESHOLDS = np.round(np.arange(0.80, 0.9501, 0.01), 2)
BOARDS = 3
MOST_PAIRED = 200  # starts that a probability of improvement is computed on

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
    for index, style in styles.items():
        arm = arms[index]
        coverage = arm.group.grid("max_coverage", starts_of(arm))
        if not coverage.values.size:
            continue
        counts.append(coverage.values.size)
        rates = [stats.share_interval((coverage.values > t) * 1.0) for t in THRESHOLDS]
        y, low, high = (np.array([getattr(r, n) for r in rates]) for n in ("value", "low", "high"))
        by_threshold.append(Line(arm.arm, style, THRESHOLDS, y, low, high))
        found = evidence.score_distribution(arm.group.grid("score", starts_of(arm)).values)
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
    note = f"Bands are pointwise 95 % intervals; n = {n} episodes an arm."
    return group("Success and scores", pictures, legend(arms, styles), note=note)


def starts_of(arm: Arm) -> range:
    """Return the report starts where an arm has some, else the selection's."""
    return store.SELECT_SEEDS if math.isnan(arm.report.value) else store.REPORT_SEEDS


def where(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return boards with every start coloured by its score, and success by pose."""
    shown = []
    for index, style in styles.items():
        seeds = starts_of(arms[index])
        scores = starts.cut(arms[index].group.grid("score", seeds))
        if scores.values.size:
            success = starts.cut(arms[index].group.grid("success", seeds))
            shown.append((arms[index].arm, style, scores, success))
    if not shown:
        return []
    boards: list[Node] = [
        figure(short(name, 40), starts.board(name, scores), _count(scores))
        for name, _, scores, _ in shown[:BOARDS]
    ]
    by_turn, by_distance = [], []
    for name, style, _, success in shown:
        found = starts.poses(success.env_seeds.tolist())
        by_turn.append((name, style, success, found.turn))
        by_distance.append((name, style, success, found.distance))
    turn = Axis(
        "turn to the goal's angle (degrees)", 0.0, 180.0, given=(0, 30, 60, 90, 120, 150, 180)
    )
    distance = Axis("distance to the goal (px)", 0.0, 260.0, given=(0, 60, 100, 140, 180, 240))
    pictures: list[Node] = [
        figure(
            "Success by turn",
            starts.success_by("Success by turn", turn, starts.TURNS, by_turn),
            "success rate by how far the block has to be turned",
        ),
        figure(
            "Success by distance",
            starts.success_by("Success by distance", distance, starts.DISTANCES, by_distance),
            "success rate by how far the block has to be moved",
        ),
    ]
    key = el(
        "ul",
        el("li", "score of a start:"),
        *(
            el(
                "li",
                el("span", "", class_=f"swatch q{level}"),
                f"{level / 5:.1f} to {level / 5 + 0.2:.1f}",
            )
            for level in range(starts.LEVELS)
        ),
        class_="legend",
    )
    note = (
        "A pin stands where the block's centre of gravity is at the start and points as its stem "
        "does; outlined: the goal. Bars and bands are 95 % intervals by bin."
    )
    return [
        *group("Where the starts are that fail", boards, key),
        el("div", *pictures, class_="figures"),
        el("p", note, class_="note"),
    ]


def _count(grid: Crossed) -> str:
    seeds, n = grid.values.shape
    failed = int((grid.values.mean(0) < 0.5).sum())
    return f"{failed} of {plural(n, 'start')} below 0.5, mean of {plural(seeds, 'seed')}"


def wins(material: Material, arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return how often the row's policy scores higher than the column's on a start, as a heat."""
    shown = [arms[i] for i in styles if arms[i].group.episodes.num_rows]
    grids = [starts.cut(arm.group.grid("score", starts_of(arm)), MOST_PAIRED) for arm in shown]
    if len({starts_of(arm) for arm in shown}) > 1:
        grids = [
            starts.cut(arm.group.grid("score", store.SELECT_SEEDS), MOST_PAIRED) for arm in shown
        ]
    pairs = [(i, j) for i in range(len(shown)) for j in range(i + 1, len(shown))]
    cost = sum(grids[i].values.size for i, _ in pairs)
    if not pairs or not material.afford(cost):
        return []
    found = {}
    for i, j in pairs:
        a, b = stats.common(grids[i], grids[j])
        won = evidence.probability_of_improvement(a.values, b.values)
        found[i, j] = won
        found[j, i] = stats.Estimate(1 - won.value, 1 - won.high, 1 - won.low, won.n)
    head = el(
        "tr",
        el("th", "beats", scope="col"),
        *(el("th", short(a.arm, 24), scope="col") for a in shown),
    )
    rows = [
        el(
            "tr",
            el("th", short(arm.arm, 32), scope="row"),
            *(_win(found.get((i, j))) for j in range(len(shown))),
        )
        for i, arm in enumerate(shown)
    ]
    table = el("table", el("thead", head), el("tbody", *rows), class_="heat")
    n = sorted({won.n for won in found.values()})
    count = f"{n[0]:,}" if len(n) == 1 else f"{n[0]:,} to {n[-1]:,}"
    note = (
        "How often a training run of the row scores higher than one of the column on the same "
        f"start, ties half, with 95 % intervals; n = {count} starts."
    )
    return [
        el("h3", "Paired wins"),
        el("div", table, class_="scroll", tabindex=0, role="region", aria_label="Paired wins"),
        el("p", note, class_="note"),
    ]


def _win(won: stats.Estimate | None) -> Element:
    if won is None or math.isnan(won.value):
        return el("td", "", class_="none")
    level = min(4, int(won.value * 5))
    ends = "no interval" if math.isnan(won.low) else f"{won.low * 100:.0f}–{won.high * 100:.0f}"
    return el("td", f"{won.value * 100:.0f} %", el("small", ends), class_=f"w{level}")

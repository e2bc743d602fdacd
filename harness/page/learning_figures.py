"""A question's figures of training and success: learning curves, score distributions."""

from collections.abc import Sequence

import numpy as np

from harness.analysis.sweep_results import Arm
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.core.text import plural
from harness.page.elements import Element, Node, el, short
from harness.page.page_data import VALIDATION, PageData
from harness.page.svg_plots import SHARE, Axis, Line, figure, fitted, group, lines
from harness.stats import intervals
from harness.stats.intervals import Estimate

SCORES = np.arange(0.0, 1.0, 0.025)
COVERAGES = np.round(np.arange(0.80, 0.9501, 0.01), 2)
Styles = dict[int, int]  # the style of each drawn arm, by its index
# Title, columns with units (the first that was logged is drawn), logarithmic.
_LOSSES = (
    ("Training loss", (("train_loss_ratio", "loss / ln(N+1)"), ("train_loss", "loss")), True),
    ("Validation loss", (("val_loss_ratio", "loss / ln(N+1)"), ("val_loss", "loss")), True),
    ("Validation action error", (("val_action_error_px", "px"),), False),
    ("Validation score", ((VALIDATION, "score"),), False),
)


def legend(arms: Sequence[Arm], styles: Styles) -> Element:
    """Return the names of the drawn arms with their colours."""
    items = [
        el("li", el("span", "", class_=f"swatch s{style}"), short(arms[index].arm, 40))
        for index, style in styles.items()
    ]
    rest = len({arm.config_hash for arm in arms}) - len(styles)
    if rest > 0:
        items.append(el("li", f"and {plural(rest, 'more arm')} in the table", class_="dim"))
    return el("ul", *items, class_="legend")


def training(data: PageData, arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return the learning curves of the drawn arms, bands from min to max over training seeds."""
    found: list[Node] = []
    for title, columns, log in _LOSSES:
        for name, unit in columns:
            drawn = _curves(data, arms, styles, name)
            if drawn:
                found.append(_by_step(title, unit, drawn, log=log))
                break
    if not found:
        return []
    text = "Lines are means over training seeds, bands their minimum and maximum."
    return group("Training", found, text, legend(arms, styles))


def _share_axis(title: str, form: str = "g") -> Axis:
    return Axis(title, 0.0, 1.0, form=form, given=SHARE)


def _curves(data: PageData, arms: Sequence[Arm], styles: Styles, column: str) -> list[Line]:
    drawn, scores = [], column == VALIDATION
    for index, style in styles.items():
        band = data.curve(arms[index].config_hash, column)
        if band is None or (scores and len(band.steps) < 2):
            continue
        seeds, values = len(band.values), band.values
        low, high = (values.min(0), values.max(0)) if seeds > 1 else (None, None)
        label = f"{arms[index].arm}, {plural(seeds, 'seed')}"
        drawn.append(Line(label, style, band.steps, values.mean(0), low, high, scores))
    return drawn


def _by_step(title: str, unit: str, drawn: Sequence[Line], *, log: bool) -> Element:
    values = np.concatenate(
        [part for line in drawn for part in (line.y, line.low, line.high) if part is not None]
    )
    y = _share_axis(unit) if unit == "score" else fitted(unit, values, log=log)
    x = fitted("optimizer steps", np.concatenate([line.x for line in drawn]))
    text = "by step" if unit == "score" else f"{unit}, logarithmic" if y.log else unit
    return figure(title, lines(title, f"{title} by optimizer step", x, y, drawn), text)


def success(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return success by threshold and the scores' distribution, with 95 % bands."""
    by_threshold: list[Line] = []
    profiles: list[Line] = []
    counts = []
    seeds, name = common_starts(arms, styles)
    for index, style in styles.items():
        arm = arms[index]
        for column, limits, drawn in (
            ("max_coverage", COVERAGES, by_threshold),
            ("score", SCORES, profiles),
        ):
            values = arm.group.grid(column, seeds).values
            if values.size:
                shares = [intervals.share_interval((values > t) * 1.0) for t in limits]
                drawn.append(Line(arm.arm, style, limits, *arrays(shares)))
                counts.append(values.size)
    if not by_threshold:
        return []
    rate = _share_axis("success rate", ".0%")
    covered = Axis("coverage that counts as success", 0.80, 0.95, given=(0.80, 0.85, 0.90, 0.95))
    title = "Success by threshold"
    success = lines(title, "Success rate by threshold", covered, rate, by_threshold)
    text = "success rate: share of episodes whose maximum coverage exceeds the threshold"
    pictures = [figure(title, success, text)]
    title, score = "Share of episodes above a score", _share_axis("score τ")
    distribution = lines(title, "Performance profile", score, rate, profiles)
    text = "share of episodes with a score above τ; higher is better"
    pictures.append(figure("Distribution of scores", distribution, text))
    n = count_range(counts)
    text = f"Bands are pointwise 95 % intervals; n = {n} episodes per arm, {name} starts."
    return group("Success and scores", pictures, text, legend(arms, styles))


def arrays(found: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the values, low and high ends of n estimates, each (n,)."""
    value, low, high = np.array([(each.value, each.low, each.high) for each in found]).T
    return value, low, high


def count_range(counts: Sequence[int]) -> str:
    """Return "30" or "25 to 30"."""
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def common_starts(arms: Sequence[Arm], styles: Styles) -> tuple[range, str]:
    """Return the report seeds ("test") if every drawn arm has episodes there, else selection seeds.

    All arms of a figure are shown on the same starts.
    """
    known = [arms[index] for index in styles if arms[index].group.episodes.num_rows]
    if known and all(arm.tested for arm in known):
        return REPORT_SEEDS, "test"
    return SELECT_SEEDS, "validation"

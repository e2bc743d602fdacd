"""SVG plots: axes, curves with bands, intervals, scatter plots.

Every plot has a title and a description for screen readers, axes with units, and about the size
at which it is shown, so that its text is as large as the page's small print.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.page.elements import Element, Node, el, note, short
from harness.stats.intervals import Estimate

MAX_POINTS = 160  # of a curve
SHARE = (0.0, 0.25, 0.5, 0.75, 1.0)  # ticks from 0 to 1
WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 40
STYLES = 5  # lines told apart by colour and dash; page.css defines as many
STRIP = 24  # height of an interval in a table's cell, that of a line of text


@dataclass(frozen=True)
class Axis:
    """One axis from `low` to `high`; the title includes the unit; log: logarithmic.

    form: the format of tick labels; given: the ticks, else round numbers; names: their labels,
    else the numbers.
    """

    title: str
    low: float
    high: float
    log: bool = False
    form: str = "g"
    given: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    def share(self, value: float) -> float:
        """Return a value's position: 0 at `low`, 1 at `high`, clipped to [0, 1]."""
        if self.log:
            found = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            found = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, found))

    @property
    def ticks(self) -> list[float]:
        """The ticks' values."""
        if self.given:
            return list(self.given)
        return _powers(self.low, self.high) if self.log else _steps(self.low, self.high)

    def label(self, value: float) -> str:
        """Return a tick's label."""
        if self.names:
            return self.names[self.given.index(value)]
        return compact(value) if self.form == "g" or value == 0 else format(value, self.form)


def compact(value: float) -> str:
    """Return a number in few characters: 0.25, 8,000 as 8k, 3e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.4g}k"
    return f"{value:.4g}"


def _steps(low: float, high: float, most: int = 6) -> list[float]:
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    if high / low < 8.0:
        return [tick for tick in _steps(low, high) if tick > 0]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(found) <= 7:
            break
    return found[:: max(1, -(-len(found) // 7))] or [low, high]


def fitted(title: str, values: NDArray[np.float64], *, log: bool = False) -> Axis:
    """Return an axis that covers all finite values with a margin; log needs them > 0."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Axis(title, 0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if log and low > 0 and high / low > 1.001:
        margin = (high / low) ** 0.04
        return Axis(title, low / margin, high * margin, log=True)
    if high - low <= 1e-12 * max(1.0, abs(high)):
        margin = 0.5 * abs(low) or 0.5
        return Axis(title, low - margin, high + margin)
    margin = 0.04 * (high - low)
    floor = 0.0 if low >= 0 and low < 0.3 * high else low - margin
    return Axis(title, floor, high + margin)


def subsample(n: int) -> NDArray[np.int64]:
    """Return the indices of at most MAX_POINTS of n points, evenly spaced, both ends included."""
    if n <= MAX_POINTS:
        return np.arange(n, dtype=np.int64)
    return np.unique(np.linspace(0, n - 1, MAX_POINTS).round().astype(np.int64))


@dataclass(frozen=True)
class Line:
    """A curve through (x, y), with a band from low to high where given; arrays (n,).

    style: 0 is the baseline's; marks: draw a dot at each point.
    """

    name: str
    style: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    marks: bool = False


def place(x: Axis, y: Axis, at_x: float, at_y: float) -> tuple[float, float]:
    """Return the SVG coordinates of a point."""
    return (
        LEFT + x.share(at_x) * (WIDTH - LEFT - RIGHT),
        TOP + (1.0 - y.share(at_y)) * (HEIGHT - TOP - BOTTOM),
    )


def chart(title: str, description: str, x: Axis, y: Axis, marks: Sequence[Node]) -> Element:
    """Return a plot with axes around marks that were positioned by `place`."""
    body: list[Node] = [el("title", title), el("desc", description)]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in y.ticks:
        at = place(x, y, x.low, tick)[1]
        body.append(el("line", class_="grid", x1=LEFT, x2=right, y1=_r(at), y2=_r(at)))
        body.append(_text(LEFT - 6, at + 4, y.label(tick), "end"))
    for tick in x.ticks:
        at = place(x, y, tick, y.low)[0]
        body.append(el("line", class_="tick", x1=_r(at), x2=_r(at), y1=bottom, y2=bottom + 4))
        body.append(_text(at, bottom + 16, x.label(tick), "middle"))
    body.append(el("line", class_="axis", x1=LEFT, x2=right, y1=bottom, y2=bottom))
    body.append(_text((LEFT + right) / 2, HEIGHT - 6, x.title, "middle", "title"))
    body.append(el("g", *marks))
    return el(
        "svg", *body, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title, class_="plot"
    )


def lines(title: str, description: str, x: Axis, y: Axis, curves: Sequence[Line]) -> Element:
    """Return a plot of curves: bands behind, lines in front."""
    behind: list[Node] = []
    front: list[Node] = []
    for curve in curves:
        keep = subsample(len(curve.x))
        xs, ys = curve.x[keep], curve.y[keep]
        hint = el("title", short(curve.name))
        if curve.low is not None and curve.high is not None:
            upper = _points(x, y, xs, curve.high[keep])
            lower = _points(x, y, xs, curve.low[keep])[::-1]
            if upper:
                drawn = f"M{' L'.join(upper + lower)}Z"
                behind.append(el("path", class_=f"band c{curve.style}", d=drawn))
        points = _points(x, y, xs, ys)
        if points:
            path = f"M{' L'.join(points)}"
            front.append(el("path", hint, class_=f"line c{curve.style}", d=path))
        if curve.marks or len(points) == 1:
            for point in points:
                cx, cy = point.split(",")
                front.append(el("circle", class_=f"dot c{curve.style}", cx=cx, cy=cy, r=3))
    return chart(title, description, x, y, [*behind, *front])


def _points(x: Axis, y: Axis, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> list[str]:
    finite = np.isfinite(xs) & np.isfinite(ys)
    spots = (place(x, y, a, b) for a, b in zip(xs[finite], ys[finite], strict=True))
    return [f"{_r(a)},{_r(b)}" for a, b in spots]


def scatter(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    points: Sequence[tuple[float, Estimate, str]],
) -> Element:
    """Return a plot of points (x, y, tooltip) with y's intervals where there are some."""
    marks: list[Node] = []
    for at_x, at_y, hint in points:
        cx, cy = place(x, y, at_x, at_y.value)
        if not math.isnan(at_y.low):
            y1, y2 = (_r(place(x, y, at_x, end)[1]) for end in (at_y.low, at_y.high))
            marks.append(el("line", class_="whisker", x1=_r(cx), x2=_r(cx), y1=y1, y2=y2))
        marks.append(el("circle", el("title", hint), class_="point", cx=_r(cx), cy=_r(cy), r=3.5))
    return chart(title, description, x, y, marks)


def interval(axis: Axis, marks: Sequence[tuple[Estimate, str]], zero: bool = False) -> Element:
    """Return estimates, each with its CSS class, below each other, as wide as their table cell.

    Positions are percentages, so the plot grows with the cell and dots stay round. Hidden from
    screen readers: the numbers are in the next cell as text.
    """
    height = STRIP * len(marks)
    body: list[Node] = [
        el("line", class_="grid", x1=at, x2=at, y1=0, y2="100%")
        for at in (_percent(axis, tick) for tick in axis.ticks)
    ]
    if zero:
        at = _percent(axis, 0.0)
        body.append(el("line", class_="zero", x1=at, x2=at, y1=0, y2="100%"))
    for number, (found, kind) in enumerate(marks):
        if math.isnan(found.value):
            continue
        y = STRIP // 2 + STRIP * number
        if not math.isnan(found.low):
            x1, x2 = _percent(axis, found.low), _percent(axis, found.high)
            body.append(el("line", class_=f"whisker {kind}", x1=x1, x2=x2, y1=y, y2=y))
        body.append(_mark(axis, found.value, y, kind))
    return el("svg", *body, class_="strip", width="100%", height=height, aria_hidden="true")


# Shapes around (0, 0), so that a verdict does not depend on colour alone.
_SHAPES = {
    "helps": "0,-6 5.5,4 -5.5,4",
    "hurts": "0,6 5.5,-4 -5.5,-4",
    "same": "-4.5,-4.5 4.5,-4.5 4.5,4.5 -4.5,4.5",
}
_BELOW, _ABOVE = "-6,0 4,-5.5 4,5.5", "6,0 -4,-5.5 -4,5.5"


def _mark(axis: Axis, value: float, y: int, kind: str) -> Element:
    """Return a value's mark: the shape of its kind, else a dot; an arrow beyond the axis."""
    points = _BELOW if value < axis.low else _ABOVE if value > axis.high else _SHAPES.get(kind)
    x = _percent(axis, value)
    if points is None:
        return el("circle", class_=f"point {kind}", cx=x, cy=y, r=4.5)
    # Only a nested svg can be placed by a percentage.
    shape = el("polygon", class_=f"point {kind}", points=points)
    return el("svg", shape, x=x, y=y, width=1, height=1, overflow="visible")


def ruler(axis: Axis) -> Element:
    """Return an axis's tick labels for the head of a column of `interval` plots."""
    ticks = axis.ticks
    if len(ticks) > 3 and len(ticks) % 2:
        ticks = ticks[::2]  # both ends and the middle included
    body: list[Node] = []
    for tick in ticks:
        at = axis.share(tick)
        anchor = "start" if at < 0.02 else "end" if at > 0.98 else "middle"
        text, x = axis.label(tick), _percent(axis, tick)
        body.append(el("text", text, class_="small", x=x, y=11, text_anchor=anchor))
    return el("svg", *body, class_="strip", width="100%", height=14, aria_hidden="true")


def _percent(axis: Axis, value: float) -> str:
    return f"{axis.share(value) * 100:.2f}%"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "small") -> Element:
    return el("text", text, class_=kind, x=_r(x), y=_r(y), text_anchor=anchor)


def _r(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def figure(title: str, picture: Node, text: str) -> Element:
    """Return a picture with its title and how to read it."""
    return el("figure", el("figcaption", el("strong", title), el("span", text)), picture)


def group(title: str, figures: Sequence[Node], text: str, *keys: Node) -> list[Node]:
    """Return figures under a title, with their keys above and a remark below."""
    return [el("h3", title), *keys, el("div", *figures, class_="figures"), note(text)]

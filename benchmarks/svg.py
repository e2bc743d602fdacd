"""Curves with intervals as SVG: logarithmic x, y from 0 to 1, one panel for each title."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f4e9c", "#c2571a", "#3d7d3a", "#8a3a86", "#555555")
WIDTH, HEIGHT, LEFT, TOP = 340, 260, 46, 34


@dataclass(frozen=True)
class Curve:
    """Points (x, y, low, high)."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two positive numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [x for x in every if low <= x <= high]


def panels(curves: Mapping[str, Sequence[Curve]], x_title: str) -> str:
    """Panels side by side with one legend below."""
    all_x = [point[0] for group in curves.values() for curve in group for point in curve.points]
    low, high = min(all_x), max(all_x)
    span = math.log(high / low) or 1.0
    body = []
    for number, (title, group) in enumerate(curves.items()):
        left = LEFT + number * (WIDTH + 2 * LEFT)

        def at(x: float, y: float, left: float = left) -> str:
            across = left + math.log(x / low) / span * WIDTH
            return f"{across:.1f},{TOP + (1 - y) * HEIGHT:.1f}"

        body.append(_text(left + WIDTH / 2, TOP - 12, title, "middle", 14))
        body.append(_text(left + WIDTH / 2, TOP + HEIGHT + 36, x_title, "middle"))
        for y in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            body.append(f'<path d="M{at(low, y)} L{at(high, y)}" stroke="#ddd"/>')
            body.append(_text(left - 6, TOP + (1 - y) * HEIGHT + 4, f"{y:.1f}", "end"))
        for x in ticks(low, high):
            place = float(at(x, 0.0).split(",")[0])
            body.append(_text(place, TOP + HEIGHT + 18, f"{x:.3g}", "middle"))
        for colour, curve in zip(COLOURS, group, strict=False):
            upper = [at(x, top) for x, _, _, top in curve.points]
            lower = [at(x, bottom) for x, _, bottom, _ in curve.points][::-1]
            area = " ".join(upper + lower)
            body.append(f'<polygon points="{area}" fill="{colour}" opacity="0.15"/>')
            line = " ".join(at(x, y) for x, y, _, _ in curve.points)
            body.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
            for x, y, _, _ in curve.points:
                cx, cy = at(x, y).split(",")
                body.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>')
    for i, curve in enumerate(next(iter(curves.values()))):
        x, y, colour = LEFT + 110 * i, TOP + HEIGHT + 60, COLOURS[i % len(COLOURS)]
        body.append(f'<rect x="{x}" y="{y - 9}" width="18" height="9" fill="{colour}"/>')
        body.append(_text(x + 24, y, curve.name, "start"))
    width = len(curves) * (WIDTH + 2 * LEFT)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + 76}" '
        f'width="{width}" font-family="sans-serif">\n<rect width="100%" height="100%" '
        'fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str, size: int = 11) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"

"""A question's forest plot as an SVG file of its own, for documents."""

import math

from harness.analysis.verdicts import TITLES, Answer, Verdict
from harness.page.elements import Element, el, render, short
from harness.page.svg_plots import Axis
from harness.terminal.formatting import difference

LEFT, PLOT, RIGHT, ROW, TOP, BOTTOM = 270, 320, 330, 26, 34, 40  # px
INK, FAINT, PAPER = "#1f2328", "#8b949e", "#ffffff"
COLOURS = {"helps": "#1a7f37", "hurts": "#b42318", "no difference": "#0550ae"}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def forest_file(answer: Answer) -> str:
    """Return the SVG: the paired differences in score of a question's arms, the largest first."""
    rows = answer.ranked
    ends = [abs(end) for v in rows for end in (v.score.low, v.score.value, v.score.high)]
    farthest = 1.03 * max([0.05, *(end for end in ends if not math.isnan(end))])
    axis = Axis("difference", -farthest, farthest)
    height = TOP + ROW * len(rows) + BOTTOM
    shapes = [el("rect", width=LEFT + PLOT + RIGHT, height=height, fill=PAPER)]
    shapes.append(_text(16, 22, f"{answer.question}: score against the baseline", weight=600))
    bottom = TOP + ROW * len(rows)
    for tick in axis.ticks:
        x = LEFT + PLOT * axis.share(tick)
        colour = INK if tick == 0 else "#d0d7de"
        shapes.append(el("line", x1=_px(x), x2=_px(x), y1=TOP, y2=bottom, stroke=colour))
        shapes.append(_text(x, bottom + 18, f"{tick:+.2g}" if tick else "0", "middle", FAINT))
    for index, verdict in enumerate(rows):
        shapes += _row(verdict, axis, TOP + ROW * (index + 0.5))
    what = "test" if answer.reported else "validation"
    words = f"mean difference in {what} score, paired by start, with 95 % intervals"
    shapes.append(_text(LEFT + PLOT / 2, bottom + 34, words, "middle", FAINT))
    made = el(
        "svg",
        el("title", f"{answer.question}: {answer.summary}"),
        *shapes,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {LEFT + PLOT + RIGHT} {height}",
        width=LEFT + PLOT + RIGHT,
        height=height,
        font_family=FONT,
        font_size=13,
        role="img",
    )
    return render(made) + "\n"


def _row(verdict: Verdict, axis: Axis, y: float) -> list[Element]:
    colour = COLOURS.get(verdict.word, FAINT)
    found = verdict.score
    x = LEFT + PLOT * axis.share(found.value)
    shapes = [_text(LEFT - 12, y + 4, short(verdict.arm, 40), "end")]
    if not math.isnan(found.low):
        ends = [LEFT + PLOT * axis.share(end) for end in (found.low, found.high)]
        low, high = (_px(end) for end in ends)
        shapes.append(
            el("line", x1=low, x2=high, y1=_px(y), y2=_px(y), stroke=colour, stroke_width=2)
        )
    shapes.append(el("circle", cx=_px(x), cy=_px(y), r=4, fill=colour))
    shapes.append(_text(LEFT + PLOT + 16, y + 4, difference(found, ends=3)))
    shapes.append(_text(LEFT + PLOT + 206, y + 4, TITLES[verdict.word], colour=colour))
    return shapes


def _text(
    x: float, y: float, text: str, anchor: str = "start", colour: str = INK, weight: int = 400
) -> Element:
    return el(
        "text",
        text,
        x=_px(x),
        y=_px(y),
        text_anchor=anchor,
        fill=colour,
        font_weight=None if weight == 400 else weight,
    )


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

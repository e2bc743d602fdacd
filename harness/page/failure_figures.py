"""Figures of where policies fail and of which policy beats which, start by start."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.physics.dynamics import BOARD, CENTRE_OF_GRAVITY, World
from envs.physics.geometry import GOAL_POSE, corners
from harness.analysis.sweep_results import Arm
from harness.page.elements import Element, Node, el, short
from harness.page.labels import plural
from harness.page.learning_figures import Styles, common_starts, group
from harness.page.svg_plots import Axis, Line, figure, lines
from harness.stats import comparisons, intervals
from harness.stats.intervals import Crossed, Estimate

BOARDS = 3
MOST_PINS = 100  # starts that a board can show one by one


def where(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return boards with every start coloured by its score, and success by pose."""
    shown = []
    seeds, _ = common_starts(arms, styles)
    for index, style in styles.items():
        scores = cut(arms[index].group.grid("score", seeds))
        if scores.values.size:
            success = cut(arms[index].group.grid("success", seeds))
            shown.append((arms[index].arm, style, scores, success))
    if not shown:
        return []
    boards: list[Node] = [
        figure(short(name, 40), board(name, cut(scores, MOST_PINS)), _count(scores))
        for name, _, scores, _ in shown[:BOARDS]
    ]
    by_turn, by_distance = [], []
    for name, style, _, success in shown:
        found = poses(success.env_seeds.tolist())
        by_turn.append((name, style, success, found.turn))
        by_distance.append((name, style, success, found.distance))
    turn = Axis(
        "turn to the goal's angle (degrees)", 0.0, 180.0, given=(0, 30, 60, 90, 120, 150, 180)
    )
    distance = Axis("distance to the goal (px)", 0.0, 280.0, given=(0, 60, 100, 140, 180, 280))
    pictures: list[Node] = [
        figure(
            "Success by turn",
            success_by("Success by turn", turn, TURNS, by_turn),
            "success rate by how far the block has to be turned",
        ),
        figure(
            "Success by distance",
            success_by("Success by distance", distance, DISTANCES, by_distance),
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
            for level in range(LEVELS)
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
    drawn = f"; the first {MOST_PINS} are drawn" if n > MOST_PINS else ""
    return f"{failed} of {plural(n, 'start')} below 0.5, mean of {plural(seeds, 'seed')}{drawn}"


def wins(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return how often the row's policy scores higher than the column's on a start, as a heat."""
    shown = [arms[i] for i in styles if arms[i].group.episodes.num_rows]
    seeds, kind = common_starts(arms, styles)
    grids = [arm.group.grid("score", seeds) for arm in shown]
    pairs = [(i, j) for i in range(len(shown)) for j in range(i + 1, len(shown))]
    if not pairs:
        return []
    found = {}
    for i, j in pairs:
        a, b = intervals.common(grids[i], grids[j])
        won = comparisons.probability_of_improvement(a.values, b.values)
        found[i, j] = won
        found[j, i] = intervals.Estimate(1 - won.value, 1 - won.high, 1 - won.low, won.n)
    head = el(
        "tr",
        el("th", "beats", scope="col"),
        *(el("th", short(a.arm, 40), scope="col") for a in shown),
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
        f"start, ties half, with 95 % intervals; n = {count} {kind} starts."
    )
    return [
        el("h3", "Paired wins"),
        el("div", table, class_="scroll", tabindex=0, role="region", aria_label="Paired wins"),
        el("p", note, class_="note"),
    ]


def _win(won: intervals.Estimate | None) -> Element:
    if won is None or math.isnan(won.value):
        return el("td", "", class_="none")
    level = min(4, int(won.value * 5))
    ends = "no interval" if math.isnan(won.low) else f"{won.low * 100:.0f}–{won.high * 100:.0f}"
    return el("td", f"{won.value * 100:.0f} %", el("small", ends), class_=f"w{level}")


MOST_STARTS = 300  # a reset takes its time
LEVELS = 5  # colours from a score of 0 to one of 1
TURNS = tuple(range(0, 181, 30))  # degrees
DISTANCES = (0.0, 60.0, 100.0, 140.0, 180.0, 400.0)  # px


@dataclass(frozen=True)
class Poses:
    """The block at the start: its centre of gravity x, y (px) and its angle (rad), each (E,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    angle: NDArray[np.float64]

    @property
    def turn(self) -> NDArray[np.float64]:
        """How far it has to be turned to lie as the goal does, in degrees from 0 to 180."""
        off = (self.angle - GOAL_POSE[2] + math.pi) % (2 * math.pi) - math.pi
        return np.asarray(np.degrees(np.abs(off)))

    @property
    def distance(self) -> NDArray[np.float64]:
        """How far its centre of gravity lies from the goal's, in px."""
        goal = _centre(*GOAL_POSE)
        return np.asarray(np.hypot(self.x - goal[0], self.y - goal[1]))


def poses(env_seeds: Sequence[int]) -> Poses:
    """Return the block's pose at the reset of each environment seed."""
    found = np.array([_pose(int(seed)) for seed in env_seeds], np.float64).reshape(-1, 3)
    return Poses(found[:, 0], found[:, 1], found[:, 2])


@cache
def _pose(seed: int) -> tuple[float, float, float]:
    world = World()
    world.reset(seed)
    x, y, angle = world.values[2:]
    return (*_centre(x, y, angle), angle)


def _centre(x: float, y: float, angle: float) -> tuple[float, float]:
    u, v = CENTRE_OF_GRAVITY
    cos, sin = math.cos(angle), math.sin(angle)
    return x + cos * u - sin * v, y + sin * u + cos * v


def cut(grid: Crossed, most: int = MOST_STARTS) -> Crossed:
    """Keep the first so many starts: enough to see, and few enough to draw."""
    return Crossed(grid.train_seeds, grid.env_seeds[:most], grid.values[:, :most], grid.dropped)


def board(name: str, grid: Crossed) -> Element:
    """Return the board from above, a pin for each start: its colour is the mean score.

    A pin's head is where the block's centre of gravity is, its point the way its stem shows.
    """
    found = poses(grid.env_seeds.tolist())
    means = grid.values.mean(0)
    goal = " ".join(f"{x:.0f},{y:.0f}" for x, y in corners(np.array(GOAL_POSE)))
    marks: list[Node] = []
    for k in np.argsort(-means, kind="stable").tolist():  # the failures on top
        x, y, angle = float(found.x[k]), float(found.y[k]), float(found.angle[k])
        level = min(LEVELS - 1, int(means[k] * LEVELS))
        tip = x - 26 * math.sin(angle), y + 26 * math.cos(angle)
        hint = f"start {grid.env_seeds[k]}: score {means[k]:.3f}"
        marks.append(
            el(
                "g",
                el("title", hint),
                el("line", x1=f"{x:.0f}", y1=f"{y:.0f}", x2=f"{tip[0]:.0f}", y2=f"{tip[1]:.0f}"),
                el("circle", cx=f"{x:.0f}", cy=f"{y:.0f}", r=9),
                class_=f"pin q{level}",
            )
        )
    failed = int((means < 0.5).sum())
    description = (
        f"{len(means)} starts on the board of 512 by 512 px; {failed} have a mean score below 0.5"
    )
    return el(
        "svg",
        el("title", f"Starts of {name}"),
        el("desc", description),
        el("rect", class_="board", x=1, y=1, width=BOARD - 2, height=BOARD - 2, rx=6),
        el("polygon", class_="goal", points=goal),
        *marks,
        viewBox=f"0 0 {BOARD:.0f} {BOARD:.0f}",
        role="img",
        aria_label=f"Where {name} fails",
        class_="plot square",
    )


def by_bins(grid: Crossed, where: NDArray[np.float64], edges: Sequence[float]) -> list[Estimate]:
    """Return the success rate of the starts between each edge and the next; NaN where are none."""
    found = []
    for low, high in itertools.pairwise(edges):
        last = high == edges[-1]
        values = grid.values[:, (where >= low) & ((where <= high) if last else (where < high))]
        found.append(intervals.share_interval(values))
    return found


def success_by(
    title: str,
    axis: Axis,
    edges: Sequence[float],
    curves: Sequence[tuple[str, int, Crossed, NDArray[np.float64]]],
) -> Element:
    """Return the success rate by a start's bin for curves (name, style, grid, places)."""
    middles = np.array([(a + b) / 2 for a, b in itertools.pairwise(edges)])
    middles[-1] = min(middles[-1], (edges[-2] + axis.high) / 2)
    drawn = []
    for name, style, grid, where in curves:
        rates = by_bins(grid, where, edges)
        value, low, high = (
            np.array([getattr(rate, part) for rate in rates]) for part in ("value", "low", "high")
        )
        known = np.isfinite(value)
        drawn.append(
            Line(name, style, middles[known], value[known], low[known], high[known], marks=True)
        )
    y = Axis("success rate", 0.0, 1.0, form=".0%", given=(0.0, 0.25, 0.5, 0.75, 1.0))
    return lines(title, f"Success rate by {axis.title}, with 95 % intervals", axis, y, drawn)

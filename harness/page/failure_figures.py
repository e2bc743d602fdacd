"""A question's figures of failures by start pose, and of which arm beats which."""

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
from harness.core.text import plural
from harness.page.elements import Element, Node, el, head, note, scrolling, short, table
from harness.page.learning_figures import Styles, arrays, common_starts, count_range
from harness.page.svg_plots import SHARE, Axis, Line, figure, group, lines
from harness.stats import comparisons, intervals
from harness.stats.intervals import Crossed, Estimate

MAX_BOARDS = 3
MAX_PINS = 100  # starts drawn on a board
MAX_STARTS = 300  # starts whose pose is computed: a reset takes a millisecond
LEVELS = 5  # colours from a score of 0 to 1
ROTATIONS = tuple(range(0, 181, 30))  # degrees
DISTANCES = (0.0, 60.0, 100.0, 140.0, 180.0, 400.0)  # px


@dataclass(frozen=True)
class Poses:
    """The T at the start: its centre of gravity x, y (px) and its angle (rad), each (E,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    angle: NDArray[np.float64]

    @property
    def rotation(self) -> NDArray[np.float64]:
        """The angle to the goal's orientation in degrees, 0 to 180."""
        off = (self.angle - GOAL_POSE[2] + math.pi) % (2 * math.pi) - math.pi
        return np.asarray(np.degrees(np.abs(off)))

    @property
    def distance(self) -> NDArray[np.float64]:
        """The distance of its centre of gravity to the goal's, in px."""
        goal = _centre(*GOAL_POSE)
        return np.asarray(np.hypot(self.x - goal[0], self.y - goal[1]))


def poses(env_seeds: Sequence[int]) -> Poses:
    """Return the T's pose after the reset of each environment seed."""
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


def failures(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return boards with every start coloured by its score, and success by start pose."""
    seeds, _ = common_starts(arms, styles)
    boards: list[Node] = []
    by_rotation: list[Line] = []
    by_distance: list[Line] = []
    for index, style in styles.items():
        name, grid = arms[index].arm, arms[index].group.grid
        scores = _first(grid("score", seeds), MAX_STARTS)
        if not scores.values.size:
            continue
        if len(boards) < MAX_BOARDS:
            picture = board(name, _first(scores, MAX_PINS))
            boards.append(figure(short(name, 40), picture, _failed(scores)))
        success = _first(grid("success", seeds), MAX_STARTS)
        found = poses(success.env_seeds.tolist())
        by_rotation.append(_by_pose(name, style, success, found.rotation, ROTATIONS))
        by_distance.append(_by_pose(name, style, success, found.distance, DISTANCES))
    if not boards:
        return []
    rotation = Axis("rotation to the goal (degrees)", 0.0, 180.0, given=ROTATIONS)
    distance = Axis("distance to the goal (px)", 0.0, 280.0, given=(*DISTANCES[:-1], 280.0))
    rate = Axis("success rate", 0.0, 1.0, form=".0%", given=SHARE)
    pictures = []
    for title, axis, curves in (
        ("Success by rotation", rotation, by_rotation),
        ("Success by distance", distance, by_distance),
    ):
        described = f"Success rate by {axis.title}, with 95 % intervals"
        drawn = lines(title, described, axis, rate, curves)
        pictures.append(figure(title, drawn, f"success rate by {axis.title}"))
    colours = []
    for level in range(LEVELS):
        ends = f"{level / LEVELS:.1f} to {(level + 1) / LEVELS:.1f}"
        colours.append(el("li", el("span", "", class_=f"swatch q{level}"), ends))
    text = (
        "Each pin marks the T's initial position (centre of gravity); its line shows the stem's "
        "direction. The outline is the goal. Bands are 95 % intervals by bin."
    )
    key = el("ul", el("li", "score of a start:"), *colours, class_="legend")
    return group(
        "Failures by start pose", pictures, text, key, el("div", *boards, class_="figures")
    )


def _first(grid: Crossed, most: int) -> Crossed:
    return Crossed(grid.train_seeds, grid.env_seeds[:most], grid.values[:, :most], grid.dropped)


def _failed(grid: Crossed) -> str:
    seeds, n = grid.values.shape
    failed = np.count_nonzero(grid.values.mean(0) < 0.5)
    drawn = f"; the first {MAX_PINS} are drawn" if n > MAX_PINS else ""
    return f"{failed} of {plural(n, 'start')} below 0.5, mean of {plural(seeds, 'seed')}{drawn}"


def board(name: str, grid: Crossed) -> Element:
    """Return the board from above with a pin for each start, coloured by its mean score."""
    found = poses(grid.env_seeds.tolist())
    means = grid.values.mean(0)
    goal = " ".join(f"{x:.0f},{y:.0f}" for x, y in corners(np.array(GOAL_POSE)))
    marks: list[Node] = []
    for k in np.argsort(-means, kind="stable").tolist():  # failures last, on top
        x, y, angle = float(found.x[k]), float(found.y[k]), float(found.angle[k])
        level = min(LEVELS - 1, int(means[k] * LEVELS))
        hint = el("title", f"start {grid.env_seeds[k]}: score {means[k]:.3f}")
        ends = (x, y, x - 26 * math.sin(angle), y + 26 * math.cos(angle))
        x1, y1, x2, y2 = (f"{end:.0f}" for end in ends)
        stem, dot = el("line", x1=x1, y1=y1, x2=x2, y2=y2), el("circle", cx=x1, cy=y1, r=9)
        marks.append(el("g", hint, stem, dot, class_=f"pin q{level}"))
    failed = np.count_nonzero(means < 0.5)
    text = (
        f"{len(means)} starts on the board of 512 by 512 px; {failed} have a mean score below 0.5"
    )
    return el(
        "svg",
        el("title", f"Starts of {name}"),
        el("desc", text),
        el("rect", class_="board", x=1, y=1, width=BOARD - 2, height=BOARD - 2, rx=6),
        el("polygon", class_="goal", points=goal),
        *marks,
        viewBox=f"0 0 {BOARD:.0f} {BOARD:.0f}",
        role="img",
        aria_label=f"Scores of {name} by start",
        class_="plot square",
    )


def by_bins(grid: Crossed, places: NDArray[np.float64], edges: Sequence[float]) -> list[Estimate]:
    """Return the success rate in each bin [edge, next edge) of places (E,); NaN where empty."""
    found = []
    for low, high in itertools.pairwise(edges):
        below = (places <= high) if high == edges[-1] else (places < high)
        found.append(intervals.share_interval(grid.values[:, (places >= low) & below]))
    return found


def _by_pose(
    name: str, style: int, grid: Crossed, places: NDArray[np.float64], edges: Sequence[float]
) -> Line:
    """Return an arm's success rate by bin, drawn in the bins' middles."""
    middles = np.array([(a + b) / 2 for a, b in itertools.pairwise(edges)])
    middles[-1] = min(middles[-1], (edges[-2] + 280.0) / 2)  # the last distances are off the axis
    value, low, high = arrays(by_bins(grid, places, edges))
    known = np.isfinite(value)
    return Line(name, style, middles[known], value[known], low[known], high[known], marks=True)


def improvement(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return a table of how often the row's arm scores higher than the column's on a start."""
    shown = [arms[i] for i in styles if arms[i].group.episodes.num_rows]
    if len(shown) < 2:
        return []
    seeds, kind = common_starts(arms, styles)
    grids = [arm.group.grid("score", seeds) for arm in shown]
    found = {}
    for i, j in itertools.combinations(range(len(shown)), 2):
        a, b = intervals.common(grids[i], grids[j])
        found[i, j] = p = comparisons.probability_of_improvement(a.values, b.values)
        found[j, i] = Estimate(1 - p.value, 1 - p.high, 1 - p.low, p.n)
    heads = [head("P(row > column)"), *(head(short(arm.arm, 40)) for arm in shown)]
    rows = []
    for i, arm in enumerate(shown):
        cells = (_probability(found.get((i, j))) for j in range(len(shown)))
        rows.append(el("tr", el("th", short(arm.arm, 32), scope="row"), *cells))
    n = count_range([p.n for p in found.values()])
    text = (
        "Probability that a training run of the row scores higher than one of the column on the "
        f"same start, ties count half, with 95 % intervals; n = {n} {kind} starts."
    )
    title = "Probability of improvement"
    return [el("h3", title), scrolling(table(heads, rows, class_="heat"), title), note(text)]


def _probability(found: Estimate | None) -> Element:
    if found is None or math.isnan(found.value):
        return el("td", "", class_="none")
    level = min(4, int(found.value * 5))
    ends = "no interval"
    if not math.isnan(found.low):
        ends = f"{found.low * 100:.0f}–{found.high * 100:.0f}"
    return el("td", f"{found.value * 100:.0f} %", el("small", ends), class_=f"w{level}")

"""The figures of where policies fail and of which policy beats which, start by start."""

import math
from collections.abc import Sequence

from harness import evidence, stats
from harness.page import starts
from harness.page.axes import Axis
from harness.page.figures import Styles, common_starts, group
from harness.page.markup import Element, Node, el, short
from harness.page.plots import figure
from harness.page.words import plural
from harness.stats import Crossed
from harness.summary import Arm

BOARDS = 3
MOST_PINS = 100  # starts that a board can show one by one


def where(arms: Sequence[Arm], styles: Styles) -> list[Node]:
    """Return boards with every start coloured by its score, and success by pose."""
    shown = []
    seeds, _ = common_starts(arms, styles)
    for index, style in styles.items():
        scores = starts.cut(arms[index].group.grid("score", seeds))
        if scores.values.size:
            success = starts.cut(arms[index].group.grid("success", seeds))
            shown.append((arms[index].arm, style, scores, success))
    if not shown:
        return []
    boards: list[Node] = [
        figure(short(name, 40), starts.board(name, starts.cut(scores, MOST_PINS)), _count(scores))
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
    distance = Axis("distance to the goal (px)", 0.0, 280.0, given=(0, 60, 100, 140, 180, 280))
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
        a, b = stats.common(grids[i], grids[j])
        won = evidence.probability_of_improvement(a.values, b.values)
        found[i, j] = won
        found[j, i] = stats.Estimate(1 - won.value, 1 - won.high, 1 - won.low, won.n)
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


def _win(won: stats.Estimate | None) -> Element:
    if won is None or math.isnan(won.value):
        return el("td", "", class_="none")
    level = min(4, int(won.value * 5))
    ends = "no interval" if math.isnan(won.low) else f"{won.low * 100:.0f}–{won.high * 100:.0f}"
    return el("td", f"{won.value * 100:.0f} %", el("small", ends), class_=f"w{level}")

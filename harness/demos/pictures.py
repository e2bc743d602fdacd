"""Pictures of a data set: its statistics in six panels, and its episodes as a contact sheet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pygame
from numpy.typing import NDArray

from envs.physics.dynamics import BOARD
from envs.physics.geometry import GOAL_POSE, corners
from harness.demos.statistics import Statistics
from ibc.data.demos import Demos

Colour = tuple[int, int, int]
Corner = tuple[int, int]  # left and top, in pixels
INK, FAINT, BARS, WHITE = (40, 44, 52), (205, 208, 214), (96, 140, 196), (255, 255, 255)
BLOCK, AGENT, GOAL, GOAL_EDGE = (188, 196, 205), (65, 105, 225), (144, 238, 144), (46, 139, 70)

# Statistics: three panels by two.
PANEL, MARGIN, TITLE, BINS = 420, 24, 34, 24

# The contact sheet: the T is drawn every few steps, from light to dark; the agent's path goes from
# orange to blue.
COLUMNS, ROWS = 6, 4
TILE, TILE_MARGIN, TILE_TITLE = 220, 12, 20
OVERSAMPLING = 2  # tiles are drawn larger and scaled down: smooth edges
FIRST, LAST, START = (214, 219, 226), (92, 108, 128), (245, 166, 66)
EVERY = 8  # steps from one drawn T to the next


def draw_statistics(demos: Demos, found: Statistics) -> pygame.Surface:
    """Draw start poses, last poses and four histograms."""
    canvas = _white(3 * PANEL + 4 * MARGIN, 2 * (PANEL + TITLE) + 3 * MARGIN)
    pygame.font.init()
    font = pygame.font.Font(None, 24)
    first = demos.state[demos.episode_starts].astype(np.float64)
    last = demos.state[demos.episode_ends - 1].astype(np.float64)
    panels: list[tuple[str, Callable[[Corner], None]]] = [
        ("start poses", lambda at: _board(canvas, at, first)),
        ("last poses", lambda at: _board(canvas, at, last)),
        ("episode length (steps)", lambda at: _histogram(canvas, font, at, found.lengths)),
        ("coverage reached by replay", lambda at: _histogram(canvas, font, at, found.coverage)),
        ("agent's speed (px/step)", lambda at: _histogram(canvas, font, at, found.speed)),
        ("target's distance (px)", lambda at: _histogram(canvas, font, at, found.reach)),
    ]
    for number, (title, panel) in enumerate(panels):
        row, column = divmod(number, 3)
        at = (MARGIN + column * (PANEL + MARGIN), MARGIN + row * (PANEL + TITLE + MARGIN))
        canvas.blit(font.render(title, True, INK), at)
        panel((at[0], at[1] + TITLE))
    return canvas


def draw_episodes(demos: Demos, found: Statistics) -> pygame.Surface:
    """Draw a tile for each of up to 24 episodes, evenly chosen."""
    return draw_sheet(
        [
            (
                f"{k}: {found.lengths[k]} steps, covers {found.coverage[k]:.2f}",
                demos.state[demos.episode_starts[k] : demos.episode_ends[k]],
            )
            for k in evenly(len(demos.episode_ends))
        ]
    )


def evenly(total: int) -> list[int]:
    """Return the places of so many episodes that a contact sheet shows, evenly chosen."""
    chosen = np.linspace(0, total - 1, min(total, COLUMNS * ROWS)).round().astype(int)
    return list(map(int, np.unique(chosen)))


def draw_sheet(episodes: Sequence[tuple[str, NDArray[np.floating[Any]]]]) -> pygame.Surface:
    """Draw a contact sheet of episodes, each a title and its states (n, 5)."""
    rows = -(-len(episodes) // COLUMNS)
    width, height = TILE + TILE_MARGIN, TILE + TILE_TITLE + TILE_MARGIN
    canvas = _white(TILE_MARGIN + COLUMNS * width, TILE_MARGIN + rows * height)
    pygame.font.init()
    font = pygame.font.Font(None, 19)
    for number, (title, states) in enumerate(episodes):
        row, column = divmod(number, COLUMNS)
        left, top = TILE_MARGIN + column * width, TILE_MARGIN + row * height
        canvas.blit(font.render(title, True, INK), (left, top))
        canvas.blit(_tile(states.astype(np.float64)), (left, top + TILE_TITLE))
        pygame.draw.rect(canvas, FIRST, (left, top + TILE_TITLE, TILE, TILE), 1)
    return canvas


def save(canvas: pygame.Surface, file: Path) -> None:
    """Write a PNG; OSError if the file cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        pygame.image.save(canvas, str(file))
    except pygame.error as error:
        raise OSError(str(error)) from error


def _white(width: int, height: int) -> pygame.Surface:
    surface = pygame.Surface((width, height))
    surface.fill(WHITE)
    return surface


def _outline(pose: Any, scale: float) -> list[list[float]]:
    outline: list[list[float]] = (corners(pose) * scale).tolist()
    return outline


def _board(canvas: pygame.Surface, at: Corner, states: NDArray[np.float64]) -> None:
    """Draw the goal, and the outlines of the blocks and the agents of states (n, 5)."""
    board, scale = _white(PANEL, PANEL), PANEL / BOARD
    pygame.draw.polygon(board, GOAL, _outline(GOAL_POSE, scale))
    for state in states:
        pygame.draw.aalines(board, BLOCK, True, _outline(state[2:], scale))
    pygame.draw.polygon(board, GOAL_EDGE, _outline(GOAL_POSE, scale), 2)
    for state in states:
        pygame.draw.circle(board, AGENT, (state[:2] * scale).tolist(), 4)
    canvas.blit(board, at)
    pygame.draw.rect(canvas, FAINT, (*at, PANEL, PANEL), 1)


def _histogram(
    canvas: pygame.Surface,
    font: pygame.font.Font,
    at: Corner,
    values: NDArray[np.float64] | NDArray[np.int64],
) -> None:
    """Draw a histogram up to the 99.5th percentile, its range and its median below."""
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    counts, _ = np.histogram(values, BINS, (low, high if high > low else low + 1))
    left, top = at
    height, width = PANEL - TITLE, PANEL / BINS
    for k, count in enumerate(counts):
        tall = round(count / counts.max() * (height - 8))
        pygame.draw.rect(canvas, BARS, (left + k * width + 1, top + height - tall, width - 2, tall))
    pygame.draw.line(canvas, INK, (left, top + height), (left + PANEL, top + height))
    highest = font.render(f"highest bar {counts.max()}", True, INK)
    canvas.blit(highest, (left + PANEL - highest.get_width(), top - TITLE))
    median = f"median {np.median(values):.3g}, largest {values.max():.3g}"
    texts = [font.render(text, True, INK) for text in (f"{low:.3g}", median, f"{high:.3g}")]
    for text, share in zip(texts, (0.0, 0.5, 1.0), strict=True):
        canvas.blit(text, (left + (PANEL - text.get_width()) * share, top + height + 8))


def _tile(states: NDArray[np.float64]) -> pygame.Surface:
    """Draw one episode's goal, its T every few steps and the agent's path."""
    edge = TILE * OVERSAMPLING
    tile, scale = _white(edge, edge), edge / BOARD
    pygame.draw.polygon(tile, GOAL, _outline(GOAL_POSE, scale))
    last = len(states) - 1
    for t in sorted({*range(0, last, EVERY), last}):
        colour = _between(FIRST, LAST, t / max(last, 1))
        pygame.draw.polygon(tile, colour, _outline(states[t, 2:], scale), 5 if t == last else 2)
    points = (states[:, :2] * scale).tolist()
    for t in range(last):
        pygame.draw.line(tile, _between(START, AGENT, t / last), points[t], points[t + 1], 4)
    pygame.draw.circle(tile, START, points[0], 7)
    pygame.draw.circle(tile, AGENT, points[-1], 12)
    return pygame.transform.smoothscale(tile, (TILE, TILE))


def _between(first: Colour, last: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, last, strict=True))
    return red, green, blue

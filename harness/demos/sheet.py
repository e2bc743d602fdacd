"""A contact sheet: a tile for each of some episodes, with the T's way and the agent's on it."""

import os
from pathlib import Path

import numpy as np
import pygame
from numpy.typing import NDArray

from envs.physics.geometry import GOAL_POSE, corners
from harness.demos.pictures import AGENT, GOAL, INK, save
from harness.demos.statistics import Statistics
from ibc.data.demos import Demos

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
COLUMNS, ROWS = 6, 4
TILE, MARGIN, TITLE = 220, 12, 20
OVERSAMPLED = 2  # drawn larger and made smaller: smooth edges
FIRST, LAST = (214, 219, 226), (92, 108, 128)  # of the T, from an episode's begin to its end
BEGIN = (245, 166, 66)  # of the agent's way; it ends in the agent's own blue
EVERY = 8  # steps from one drawn T to the next


def draw(demos: Demos, found: Statistics, file: Path) -> None:
    """Writes a PNG of up to 24 episodes, evenly chosen; UserError where that cannot be done."""
    total = len(demos.episode_ends)
    chosen = np.unique(np.linspace(0, total - 1, min(total, COLUMNS * ROWS)).round().astype(int))
    rows = -(-len(chosen) // COLUMNS)
    pygame.font.init()
    font = pygame.font.Font(None, 19)
    size = (MARGIN + COLUMNS * (TILE + MARGIN), MARGIN + rows * (TILE + TITLE + MARGIN))
    canvas = pygame.Surface(size)
    canvas.fill((255, 255, 255))
    for number, k in enumerate(chosen.tolist()):
        row, column = divmod(number, COLUMNS)
        left, top = MARGIN + column * (TILE + MARGIN), MARGIN + row * (TILE + TITLE + MARGIN)
        text = f"{k}: {found.lengths[k]} steps, covers {found.coverage[k]:.2f}"
        canvas.blit(font.render(text, True, INK), (left, top))
        steps = slice(demos.episode_starts[k], demos.episode_ends[k])
        tile = _tile(demos.state[steps].astype(np.float64))
        canvas.blit(tile, (left, top + TITLE))
        pygame.draw.rect(canvas, FIRST, (left, top + TITLE, TILE, TILE), 1)
    save(canvas, file, "--sheet")


def _tile(states: NDArray[np.float64]) -> pygame.Surface:
    """The goal, the T every few steps, darker and darker, and the agent's way, of one episode."""
    edge = TILE * OVERSAMPLED
    scale = edge / 512
    tile = pygame.Surface((edge, edge))
    tile.fill((255, 255, 255))
    pygame.draw.polygon(tile, GOAL, (corners(np.array(GOAL_POSE)) * scale).tolist())
    last = len(states) - 1
    for t in sorted({*range(0, last, EVERY), last}):
        outline = (corners(states[t, 2:]) * scale).tolist()
        share = t / max(last, 1)
        pygame.draw.polygon(tile, _between(FIRST, LAST, share), outline, 5 if t == last else 2)
    points = (states[:, :2] * scale).tolist()
    for t in range(last):
        colour = _between(BEGIN, AGENT, t / last)
        pygame.draw.line(tile, colour, points[t], points[t + 1], 4)
    pygame.draw.circle(tile, BEGIN, points[0], 7)
    pygame.draw.circle(tile, AGENT, points[-1], 12)
    return pygame.transform.smoothscale(tile, (TILE, TILE))


def _between(
    first: tuple[int, int, int], last: tuple[int, int, int], share: float
) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, last, strict=True))
    return red, green, blue

"""A data set on one picture: where episodes begin, how long they are, how far they get."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pygame
from numpy.typing import NDArray

from envs.physics.geometry import GOAL_POSE, corners
from harness.core.errors import UserError
from harness.demos.statistics import Statistics
from ibc.data.demos import Demos

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
PANEL, MARGIN, TITLE = 420, 24, 34
SIZE = (3 * PANEL + 4 * MARGIN, 2 * (PANEL + TITLE) + 3 * MARGIN)
INK, FAINT, BARS = (40, 44, 52), (205, 208, 214), (96, 140, 196)
BLOCK, AGENT, GOAL = (188, 196, 205), (65, 105, 225), (144, 238, 144)
GOAL_EDGE = (46, 139, 70)
BINS = 24
Corner = tuple[int, int]  # of a panel: left and top, in pixels


def draw(demos: Demos, found: Statistics, file: Path) -> None:
    """Writes a PNG with six panels; UserError if the file cannot be written or is no .png."""
    pygame.font.init()
    font = pygame.font.Font(None, 24)
    canvas = pygame.Surface(SIZE)
    canvas.fill((255, 255, 255))
    first = demos.state[demos.episode_starts].astype(np.float64)
    last = demos.state[demos.episode_ends - 1].astype(np.float64)
    panels: list[tuple[str, Callable[[Corner], None]]] = [
        ("start poses", lambda at: _board(canvas, at, first)),
        ("last poses", lambda at: _board(canvas, at, last)),
        ("episode length (steps)", lambda at: _bars(canvas, font, at, found.lengths)),
        ("coverage reached by replay", lambda at: _bars(canvas, font, at, found.coverage)),
        ("agent's speed (px a step)", lambda at: _bars(canvas, font, at, found.speed)),
        ("target's distance (px)", lambda at: _bars(canvas, font, at, found.reach)),
    ]
    for number, (title, panel) in enumerate(panels):
        row, column = divmod(number, 3)
        at = (MARGIN + column * (PANEL + MARGIN), MARGIN + row * (PANEL + TITLE + MARGIN))
        canvas.blit(font.render(title, True, INK), at)
        panel((at[0], at[1] + TITLE))
    save(canvas, file, "--picture")


def check(file: Path, option: str) -> None:
    """UserError unless the file may be a picture's; to be asked before the work."""
    if file.suffix.lower() != ".png":
        raise UserError(f"{option} must be a .png file, got {file.name!r}")


def save(canvas: pygame.Surface, file: Path, option: str) -> None:
    """Writes a PNG; UserError naming the option if the file cannot be written or is no .png."""
    check(file, option)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pygame.image.save(canvas, str(file))
    except (OSError, pygame.error) as error:
        raise UserError(f"{option} must be a file that can be written: {error}") from error


def _board(canvas: pygame.Surface, at: Corner, states: NDArray[np.float64]) -> None:
    """The goal, the blocks' outlines and the agents of the states (n, 5), seen from above."""
    board = pygame.Surface((PANEL, PANEL))
    board.fill((255, 255, 255))
    scale = PANEL / 512
    goal = (corners(np.array(GOAL_POSE)) * scale).tolist()
    pygame.draw.polygon(board, GOAL, goal)
    for state in states:
        pygame.draw.aalines(board, BLOCK, True, (corners(state[2:]) * scale).tolist())
    pygame.draw.polygon(board, GOAL_EDGE, goal, 2)
    for state in states:
        pygame.draw.circle(board, AGENT, (state[:2] * scale).tolist(), 4)
    canvas.blit(board, at)
    pygame.draw.rect(canvas, FAINT, (*at, PANEL, PANEL), 1)


def _bars(
    canvas: pygame.Surface,
    font: pygame.font.Font,
    at: Corner,
    values: NDArray[np.float64] | NDArray[np.int64],
) -> None:
    """A histogram up to the 99.5th percentile, with its ends and its median written below."""
    high = float(np.percentile(values, 99.5))
    low = float(values.min())
    counts, _ = np.histogram(values, BINS, (low, high if high > low else low + 1))
    left, top = at
    height = PANEL - TITLE
    width = PANEL / BINS
    for k, count in enumerate(counts):
        tall = round(count / counts.max() * (height - 8))
        pygame.draw.rect(canvas, BARS, (left + k * width + 1, top + height - tall, width - 2, tall))
    pygame.draw.line(canvas, INK, (left, top + height), (left + PANEL, top + height))
    most = font.render(f"tallest {counts.max()}", True, INK)
    canvas.blit(most, (left + PANEL - most.get_width(), top - TITLE))
    median = f"median {np.median(values):.3g}, largest {values.max():.3g}"
    texts = [font.render(text, True, INK) for text in (f"{low:.3g}", median, f"{high:.3g}")]
    for text, share in zip(texts, (0.0, 0.5, 1.0), strict=True):
        canvas.blit(text, (left + (PANEL - text.get_width()) * share, top + height + 8))

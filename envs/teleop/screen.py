"""The window of a person who demonstrates: the board, with status and keys below."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pygame

from envs.physics.dynamics import BOARD
from envs.physics.geometry import GOAL_POSE, SUCCESS_COVERAGE, corners
from envs.rendering.frames import video_frame
from envs.rendering.window import Window
from envs.teleop.attempt import NEAR, Attempt

KEYS = "R retry    N new start    S save unsolved    SPACE pause    Q quit"
INK, PAPER, FAINT = (40, 44, 52), (246, 247, 249), (205, 208, 214)
GOAL_EDGE, BAR, SOLVED, RING = (46, 139, 70), (96, 140, 196), (46, 139, 70), (220, 90, 40)
COLOURS = {"go": INK, "wait": (190, 80, 30), "good": SOLVED, "bad": (190, 30, 30)}


@dataclass(frozen=True)
class Message:
    """A status line; `kind` is a key of COLOURS."""

    text: str
    kind: str


class Screen:
    """The window, `size` px wide: the board above, a panel of a fifth of it below."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._window = Window("PushT: demonstrate with the mouse")
        self._surface = self._window.open((size, size + size // 5))
        pygame.font.init()
        self._small, self._large = (
            pygame.font.Font(None, round(size * share)) for share in (0.042, 0.052)
        )

    def board_point(self, pixel: tuple[int, int]) -> tuple[float, float]:
        """Return the point on the 512 px board under a pixel of the window."""
        return pixel[0] * BOARD / self.size, pixel[1] * BOARD / self.size

    def show(self, attempt: Attempt, message: Message, numbers: str) -> None:
        """Draw the board and the panel; a ring marks the agent while the simulation waits."""
        scale = self.size / BOARD
        frame = video_frame(attempt.state, self.size, attempt.target if attempt.led else None)
        board = pygame.image.frombuffer(frame.tobytes(), (self.size, self.size), "RGB")
        self._surface.blit(board, (0, 0))
        # The T hides the goal, so the goal's outline is drawn on top.
        outline = (corners(np.array(GOAL_POSE)) * scale).tolist()
        pygame.draw.polygon(self._surface, GOAL_EDGE, outline, 2)
        if not attempt.led:
            centre = (attempt.state[:2] * scale).tolist()
            pygame.draw.circle(self._surface, RING, centre, NEAR * scale, 3)
        self._panel(attempt, message, numbers)
        pygame.display.flip()

    def close(self) -> None:
        """Close the window."""
        self._window.close()

    def _panel(self, attempt: Attempt, message: Message, numbers: str) -> None:
        size, margin = self.size, round(self.size * 0.02)
        pygame.draw.rect(self._surface, PAPER, (0, size, size, size // 5))
        pygame.draw.line(self._surface, FAINT, (0, size), (size, size))
        top, line = size + margin, round(size * 0.045)
        self._write(self._large, message.text, COLOURS[message.kind], (margin, top))
        bar = pygame.Rect(margin, top + line, size // 2, round(size * 0.026))
        pygame.draw.rect(self._surface, FAINT, bar)
        solved = attempt.coverage > SUCCESS_COVERAGE
        share = bar.copy()
        share.width = round(bar.width * attempt.coverage)
        pygame.draw.rect(self._surface, SOLVED if solved else BAR, share)
        mark = bar.left + round(bar.width * SUCCESS_COVERAGE)
        pygame.draw.line(self._surface, INK, (mark, bar.top - 2), (mark, bar.bottom + 1), 2)
        covered = f"covered {attempt.coverage:.1%}, needed {SUCCESS_COVERAGE:.0%}"
        self._write(self._small, covered, INK, (bar.right + margin, bar.top))
        self._write(self._small, numbers, INK, (margin, top + 2 * line - line // 6))
        self._write(self._small, KEYS, INK, (margin, top + 3 * line - line // 4))

    def _write(
        self, font: pygame.font.Font, text: str, colour: tuple[int, int, int], at: Any
    ) -> None:
        self._surface.blit(font.render(text, True, colour), at)

"""A window on the screen through pygame, which is imported when a window opens."""

import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

# pygame prints a greeting to stdout otherwise.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_INVISIBLE = ("dummy", "offscreen")


class Window:
    """A window of one size; ValueError without a display."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._screen: Any = None

    def open(self, size: tuple[int, int]) -> Any:
        """Return the pygame surface behind the window, which is opened at the first call."""
        import pygame

        if self._screen is None:
            chosen = os.environ.get("SDL_VIDEODRIVER")
            if sys.platform == "linux" and not any(map(os.environ.get, _DISPLAYS)) and not chosen:
                raise ValueError(f"a window needs a display, got none of {', '.join(_DISPLAYS)}")
            try:
                pygame.display.init()
                # Without a display SDL silently draws to memory.
                if not chosen and pygame.display.get_driver() in _INVISIBLE:
                    raise pygame.error("no display can be reached")
                self._screen = pygame.display.set_mode(size)
            except pygame.error as error:
                pygame.display.quit()
                raise ValueError(f"a window needs a display, got: {error}") from error
            pygame.display.set_caption(self.title)
        return self._screen

    def show(self, frame: npt.NDArray[np.uint8]) -> None:
        """Show a frame (height, width, 3), RGB."""
        import pygame

        size = (frame.shape[1], frame.shape[0])
        screen = self.open(size)
        # With an unread event queue the window manager reports a window that does not respond.
        pygame.event.pump()
        screen.blit(pygame.image.frombuffer(frame.tobytes(), size, "RGB"), (0, 0))
        pygame.display.flip()

    def close(self) -> None:
        """Close the window."""
        if self._screen is not None:
            import pygame

            pygame.display.quit()
            self._screen = None

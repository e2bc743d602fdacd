"""A window on the screen, through pygame; imported only when someone looks."""

import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

# It greets on stdout otherwise.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_UNSEEN = ("dummy", "offscreen")


class Window:
    """A window of one size.

    Raises ValueError where there is no display.
    """

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
                # Without a display SDL draws where nobody looks, and says nothing.
                if not chosen and pygame.display.get_driver() in _UNSEEN:
                    raise pygame.error("none that can be reached")
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
        # An unattended queue makes the window manager call the window dead.
        pygame.event.pump()
        screen.blit(pygame.image.frombuffer(frame.tobytes(), size, "RGB"), (0, 0))
        pygame.display.flip()

    def close(self) -> None:
        """Close the window and let the display go."""
        if self._screen is not None:
            import pygame

            pygame.display.quit()
            self._screen = None

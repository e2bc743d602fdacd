"""A window on the screen, through pygame; imported only when someone looks."""

from typing import Any

import numpy as np
import numpy.typing as npt


class Window:
    """A window that shows frames of one size.

    Raises ValueError where there is no display.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._screen: Any = None

    def show(self, frame: npt.NDArray[np.uint8]) -> None:
        """Show a frame (height, width, 3), RGB."""
        import pygame

        size = (frame.shape[1], frame.shape[0])
        if self._screen is None:
            try:
                pygame.display.init()
                self._screen = pygame.display.set_mode(size)
            except pygame.error as error:
                raise ValueError(f"a window needs a display, got: {error}") from error
            pygame.display.set_caption(self.title)
        # An unattended queue makes the window manager call the window dead.
        pygame.event.pump()
        self._screen.blit(pygame.image.frombuffer(frame.tobytes(), size, "RGB"), (0, 0))
        pygame.display.flip()

    def close(self) -> None:
        """Close the window and let the display go."""
        if self._screen is not None:
            import pygame

            pygame.display.quit()
            self._screen = None

"""96 x 96 observations, equal to the recorded ones; only what moved is drawn again.

An observation is a 512 x 512 canvas resized by bilinear interpolation without antialiasing: each of
its pixels reads four canvas pixels, so only 192 x 192 pixels of the canvas are read, the samples.
They are kept as colour numbers; a table maps four numbers and the pixel's phase to its colour. The
recorded frames also have a red mark, smaller than a pixel, where agent and block touch. It depends
on more than the state and is left out.
"""

import functools
import itertools
import math

import numpy as np
import numpy.typing as npt

from envs.physics.dynamics import BAR, STEM, WALLS
from envs.physics.geometry import GOAL_POSE
from envs.rendering import raster
from envs.rendering.raster import (
    AGENT,
    AGENT_CORE,
    AGENT_RADII,
    BLOCK,
    CANVAS,
    GOAL,
    OUTLINE,
    PALETTE,
    WALL,
    WHITE,
)

Frame = npt.NDArray[np.uint8]
Corners = tuple[list[int], list[int]]  # x and y of the bar's four corners, then of the stem's
SIZE = 96

# One period of the resize: 16 canvas pixels make 3 pixels, which read these canvas pixels in pairs.
_PERIOD = 16
_PER_PERIOD = (2, 3, 7, 8, 12, 13)
_SAMPLES = np.array([_PERIOD * k + s for k in range(CANVAS // _PERIOD) for s in _PER_PERIOD])
_COUNT = len(_SAMPLES)
_COORDINATES = _SAMPLES.astype(np.float32)
_BEFORE = np.searchsorted(_SAMPLES, np.arange(CANVAS + 1)).tolist()  # samples before a coordinate

# The canvas with a margin that holds the whole of any visible block.
_MARGIN = 256
_STRIDE = CANVAS + 2 * _MARGIN
_CORNERS = (*BAR, *STEM)
_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4))
_BLOCK = np.uint8(BLOCK)
_LONGEST_LINE = 1024
_WALL_SAMPLES = 4  # samples along each side that a wall may cover
_REACH = 127  # the largest distance along an axis between the block's position and its drawing
_BASE = np.uint16(8)  # of the number that encodes four colour numbers
_PAIR = np.dtype("<u2")


class Renderer:
    """Draws observations and keeps what did not move; the result depends on the state alone."""

    def __init__(self) -> None:
        # One number more than samples: all canvas pixels that are not read map to it.
        self._samples = np.append(_background(), np.uint8(WHITE))
        self._grid = self._samples[:-1].reshape(_COUNT, _COUNT)
        self._still = _colours(self._grid, 0, 0)
        self._corners: Corners = ([], [])
        self._box = (0, 0, 0, 0)
        self._lines = np.empty(8 * _LONGEST_LINE, dtype=np.intp)

    def __reduce__(self) -> tuple[type["Renderer"], tuple[()]]:
        return Renderer, ()  # a copy of the arrays would not be views of one another

    def observation(self, state: npt.ArrayLike) -> Frame:
        """Return the observation (96, 96, 3), RGB, of a state (5,): px and rad."""
        agent_x, agent_y, x, y, angle = np.asarray(state, dtype=np.float64).tolist()
        corners = _corners(x, y, angle)
        if corners != self._corners:
            self._draw_block(corners, x, y, angle)
        frame = self._still.copy()
        self._draw_agent(frame, round(agent_x), round(agent_y))
        return frame

    def _draw_agent(self, frame: Frame, x: int, y: int) -> None:
        """Draw the agent's disc into `frame`, over the block and under the walls."""
        # The disc lies within three periods of the samples: 18 of them, 9 pixels.
        left, top = 3 * (x // _PERIOD - 1), 3 * (y // _PERIOD - 1)
        stencil = _stencils()[y % _PERIOD, x % _PERIOD]
        if not (0 <= left <= SIZE - 9 and 0 <= top <= SIZE - 9):
            if not (-9 < left < SIZE and -9 < top < SIZE):
                return
            skip_x, skip_y = max(-left, 0), max(-top, 0)
            left, top = left + skip_x, top + skip_y
            stencil = stencil[2 * skip_y :, 2 * skip_x :]
            stencil = stencil[: 2 * (SIZE - top), : 2 * (SIZE - left)]
        height, width = stencil.shape
        under = self._grid[2 * top : 2 * top + height, 2 * left : 2 * left + width]
        seen = _colours(np.maximum(stencil, under), top, left)
        frame[top : top + height // 2, left : left + width // 2] = seen

    def _draw_block(self, corners: Corners, x: float, y: float, angle: float) -> None:
        """Draw the block's samples, and colour the pixels that change."""
        top, bottom, left, right = self._box
        background = _background()
        self._grid[top:bottom, left:right] = background[top:bottom, left:right]
        changed_top, changed_left, changed_bottom, changed_right = top, left, bottom, right
        self._corners = corners
        self._box = top, bottom, left, right = _box(corners)
        if top < bottom and left < right:
            grid = self._grid[top:bottom, left:right]
            bar, stem = _interiors(
                _COORDINATES[left:right] - x, _COORDINATES[top:bottom] - y, angle
            )
            bar_outline, stem_outline = self._outlines(corners)
            np.copyto(grid, _BLOCK, where=bar)
            self._samples[bar_outline] = OUTLINE
            np.copyto(grid, _BLOCK, where=stem)
            self._samples[stem_outline] = OUTLINE
            if (
                top < _WALL_SAMPLES
                or left < _WALL_SAMPLES
                or max(bottom, right) > _COUNT - _WALL_SAMPLES
            ):
                np.maximum(grid, _walls()[top:bottom, left:right], out=grid)
            changed_top, changed_left = min(top, changed_top), min(left, changed_left)
            changed_bottom, changed_right = max(bottom, changed_bottom), max(right, changed_right)
        top, left = changed_top // 2, changed_left // 2
        bottom, right = (changed_bottom + 1) // 2, (changed_right + 1) // 2
        changed = self._grid[2 * top : 2 * bottom, 2 * left : 2 * right]
        self._still[top:bottom, left:right] = _colours(changed, top, left)

    def _outlines(self, corners: Corners) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the places of the samples under the bar's outline and under the stem's."""
        xs, ys = corners
        used, bar = 0, 0
        for start, end in _EDGES:
            if start == 4:
                bar = used
            x, y = xs[start], ys[start]
            line = _line(xs[end] - x, ys[end] - y)
            following = used + len(line)
            np.add(line, y * _STRIDE + x, out=self._lines[used:following])
            used = following
        # numpy converts a narrow index anyway, more slowly.
        places = _places().take(self._lines[:used]).astype(np.intp)
        return places[:bar], places[bar:]


def render_observations(states: npt.ArrayLike) -> Frame:
    """Return the observations (N, 96, 96, 3), RGB, of states (N, 5): px and rad.

    ValueError for another shape or values that are not finite.
    """
    states_N5 = np.asarray(states, dtype=np.float64)
    if states_N5.ndim != 2 or states_N5.shape[1] != 5:
        raise ValueError(f"states must have the shape (N, 5), got {states_N5.shape}")
    if not np.isfinite(states_N5).all():
        row = int(np.flatnonzero(~np.isfinite(states_N5).all(axis=1))[0])
        raise ValueError(f"states must be finite, got {states_N5[row]} in row {row}")
    renderer = Renderer()
    frames = np.empty((len(states_N5), SIZE, SIZE, 3), dtype=np.uint8)
    for frame, state in zip(frames, states_N5, strict=True):
        frame[:] = renderer.observation(state)
    return frames


def _corners(x: float, y: float, angle: float) -> Corners:
    """Return the block's corners in whole canvas pixels; none if it is out of sight."""
    if not (-_REACH < x < CANVAS + _REACH and -_REACH < y < CANVAS + _REACH):
        return [], []
    cos, sin = math.cos(angle), math.sin(angle)
    xs = [round(x + cos * u - sin * v) for u, v in _CORNERS]
    ys = [round(y + sin * u + cos * v) for u, v in _CORNERS]
    return xs, ys


def _box(corners: Corners) -> tuple[int, int, int, int]:
    """Return the samples' rows from, to and columns from, to that the block may cover."""
    xs, ys = corners
    if not xs:
        return 0, 0, 0, 0
    edges = min(ys) - 3, max(ys) + 4, min(xs) - 3, max(xs) + 4
    top, bottom, left, right = (_BEFORE[min(max(edge, 0), CANVAS)] for edge in edges)
    return top, bottom, left, right


def _interiors(
    dx: npt.NDArray[np.float32], dy: npt.NDArray[np.float32], angle: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which samples (rows, columns), relative to the block, lie in its bar and its stem.

    The original fills the rectangles between the rounded corners: a difference below a pixel along
    the edges, hidden by the outlines.
    """
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    across = np.abs(np.add.outer(sin * dy, cos * dx))
    along = np.add.outer(cos * dy, -sin * dx)
    bar = (across <= 60) & (along >= 0) & (along <= 30)
    stem = (across <= 15) & (along >= 30) & (along <= 120)
    return bar, stem


@functools.cache
def _line(dx: int, dy: int) -> npt.NDArray[np.intp]:
    """Return the indices, in the canvas with its margin, of a line's pixels from (0, 0)."""
    rows, columns = raster.thick_line(dx, dy)
    return (rows + _MARGIN) * _STRIDE + columns + _MARGIN


@functools.cache
def _places() -> npt.NDArray[np.uint16]:
    """Return the sample's index of every pixel of the canvas with its margin."""
    places = np.full((_STRIDE, _STRIDE), _COUNT * _COUNT, dtype=np.uint16)
    inner = _SAMPLES + _MARGIN
    places[np.ix_(inner, inner)] = np.arange(_COUNT * _COUNT).reshape(_COUNT, _COUNT)
    return places.ravel()


@functools.cache
def _background() -> npt.NDArray[np.uint8]:
    """Return the samples (192, 192) of the board alone: goal and walls."""
    samples = np.full(_COUNT * _COUNT + 1, WHITE, dtype=np.uint8)
    goal = list(zip(*_corners(*GOAL_POSE), strict=True))
    for part in (goal[:4], goal[4:]):
        rows, columns = raster.polygon(part)
        samples[_places()[(rows + _MARGIN) * _STRIDE + columns + _MARGIN]] = GOAL
    for (x0, y0), (x1, y1) in WALLS:
        samples[_places()[_line(x1 - x0, y1 - y0) + (y0 * _STRIDE + x0)]] = WALL
    return samples[:-1].reshape(_COUNT, _COUNT)


@functools.cache
def _walls() -> npt.NDArray[np.uint8]:
    """Return the samples (192, 192) of the walls, WHITE elsewhere."""
    return np.where(_background() == WALL, WALL, WHITE).astype(np.uint8)


@functools.cache
def _stencils() -> npt.NDArray[np.uint8]:
    """Return the agent's samples (16, 16, 18, 18) by its row and column within a period."""
    extent = _PERIOD + AGENT_RADII[0]
    canvas = np.full((2 * extent + _PERIOD, 2 * extent + _PERIOD), WHITE, dtype=np.uint8)
    for radius, number in zip(AGENT_RADII, (AGENT, AGENT_CORE), strict=True):
        rows, columns = raster.disc(radius)
        canvas[rows + 2 * _PERIOD, columns + 2 * _PERIOD] = number
    # Samples of the period before, the agent's own and the one after, relative to the agent.
    seen = np.array([_PERIOD * k + s for k in (1, 2, 3) for s in _PER_PERIOD])
    stencils = np.empty((_PERIOD, _PERIOD, len(seen), len(seen)), dtype=np.uint8)
    for row, column in itertools.product(range(_PERIOD), repeat=2):
        stencils[row, column] = canvas[np.ix_(seen - row, seen - column)]
    return stencils


def _colours(samples: npt.NDArray[np.uint8], top: int, left: int) -> Frame:
    """Return the colours (h, w, 3) of samples (2 h, 2 w) whose first pixel is (top, left)."""
    pairs = samples.view(_PAIR)  # left + 256 right
    fours = pairs[0::2] * _BASE + pairs[1::2]
    height, width = fours.shape
    return _colour_table().take(fours + _phases()[top : top + height, left : left + width], axis=0)


@functools.cache
def _phases() -> npt.NDArray[np.intp]:
    """Return the offset (96, 96) into the colour table of each pixel's phase."""
    phase = np.arange(SIZE) % 3
    return (phase[:, None] * 3 + phase) * (256 * int(_BASE) ** 2)


@functools.cache
def _colour_table() -> Frame:
    """Return the resize's result for every phase and every four samples.

    Index: ((phase * 8 + upper right) * 8 + lower right) * 256 + upper left * 8 + lower left.
    """
    share = np.array([1 / 6, 1 / 2, 5 / 6], dtype=np.float32)
    near, far = np.rint(np.stack([1 - share, share]) * 2048).astype(np.int64)
    palette = np.zeros((int(_BASE), 3), dtype=np.int64)
    palette[: len(PALETTE)] = PALETTE
    # Along a row first, in 11 bits; then down a column, dropping bits as OpenCV does.
    row = near[:, None, None, None] * palette + far[:, None, None, None] * palette[:, None]
    row >>= 4  # (phase in the row, right, left, colour)
    upper = row[None, :, :, None, :, None]
    lower = row[None, :, None, :, None, :]
    down = (slice(None), *[None] * 6)
    mixed = ((near[down] * upper >> 16) + (far[down] * lower >> 16) + 2) >> 2
    table = np.zeros((9 * int(_BASE) ** 2, 256, 3), dtype=np.uint8)
    table[:, : int(_BASE) ** 2] = mixed.reshape(len(table), -1, 3)
    table.flags.writeable = False
    return table.reshape(-1, 3)

"""The pixels of the 512 x 512 canvas that the original's polygons, thick lines and discs cover.

The recorded frames were drawn with integer algorithms, whose rounding shows at the edges. These
rules were found by comparison with the recorded frames pixel by pixel. Points are whole canvas
pixels (x right, y down); functions return the rows and columns of the covered pixels.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
CANVAS = 512

# The larger number covers the smaller one, except within the block.
WHITE, GOAL, BLOCK, OUTLINE, AGENT, AGENT_CORE, WALL = range(7)
PALETTE = (
    (255, 255, 255),
    (144, 238, 144),
    (143, 163, 184),
    (119, 136, 153),
    (65, 105, 225),
    (78, 126, 255),
    (211, 211, 211),
)
AGENT_RADII = (15, 11)
EDGE_RADIUS = 2
_NO_CROSSING = np.iinfo(np.int32).max


def polygon(corners: Sequence[tuple[int, int]]) -> Pixels:
    """Return the pixels of a filled convex polygon; crossings are truncated towards an edge's top.

    An edge owns the rows from its upper end to above its lower end; the polygon's last row belongs
    to the edges that end there.
    """
    near = np.array(corners)
    far = np.roll(near, -1, axis=0)
    falls = near[:, 1] < far[:, 1]
    (x0, y0), (x1, y1) = (
        np.where(falls[:, None], first, second).T[:, :, None]
        for first, second in ((near, far), (far, near))
    )
    last = int(y1.max())
    rows = np.arange(int(y0.min()), last + 1)
    # A horizontal edge owns no row.
    owned = (rows >= y0) & ((rows < y1) | ((rows == last) & (y1 == last))) & (y0 < y1)
    steps = np.trunc((rows - y0) * (x1 - x0) / np.maximum(y1 - y0, 1)).astype(np.intp)
    crossings = np.sort(np.where(owned, x0 + steps, _NO_CROSSING), axis=0)
    parts = [
        _spans(rows, crossings[pair], crossings[pair + 1])
        for pair in range(0, len(crossings) - 1, 2)
    ]
    return _joined(parts)


@functools.cache
def disc(radius: int) -> Pixels:
    """Return the pixels of a filled disc around (0, 0): 2 radius rows, by the midpoint rule."""
    half = np.zeros(radius, dtype=np.intp)
    x, y, error = 0, radius, 1 - radius
    while x < y:
        if error >= 0:
            y -= 1
            error -= 2 * y
        x += 1
        error += 2 * x + 1
        half[x - 1] = max(half[x - 1], y)
        if error >= 0:
            half[y - 1] = max(half[y - 1], x)
    halves = np.concatenate([half[::-1], half])
    return _spans(np.arange(-radius, radius), -halves, halves - 1)


def thick_line(dx: int, dy: int) -> Pixels:
    """Return the pixels, each once, of a 4 px line with round ends from (0, 0) to (dx, dy).

    It is the union of a Bresenham line 4 px wide along the minor axis, a parallelogram and two
    discs. The parallelogram's offset ignores the signs of dx and dy, as in the original: lines that
    fall to the right are thinner than lines that rise.
    """
    major, minor = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
    end_rows, end_columns = disc(EDGE_RADIUS)
    parts = [(end_rows, end_columns), (end_rows + dy, end_columns + dx)]
    if major:
        # Drawn from the far end: ties round to its side.
        along = np.arange(major + 1)
        across = (2 * along * minor + major - 1) // (2 * major)
        long_x = abs(dx) > abs(dy)
        step_x, step_y = (along, across) if long_x else (across, along)
        x, y = dx - np.sign(dx) * step_x, dy - np.sign(dy) * step_y
        for shift in (-1, 0, 1, 2):
            parts.append((y + shift, x) if long_x else (y, x + shift))
        scale = EDGE_RADIUS / math.hypot(dx, dy)
        u, v = round(abs(dy) * scale), round(abs(dx) * scale)
        parts.append(polygon([(-u, -v), (u, v), (dx + u, dy + v), (dx - u, dy - v)]))
    rows, columns = _joined(parts)
    top, left = rows.min(), columns.min()
    width = int(columns.max() - left) + 1
    covered = np.zeros((int(rows.max() - top) + 1) * width, dtype=np.bool_)
    covered[(rows - top) * width + columns - left] = True
    rows, columns = np.divmod(np.flatnonzero(covered), width)
    return rows + top, columns + left


def _spans(
    rows: npt.NDArray[np.intp], starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
) -> Pixels:
    """Return the pixels of one span per row, both ends included; none without crossings."""
    lengths = np.where(ends == _NO_CROSSING, 0, ends - starts + 1)
    before = np.cumsum(lengths) - lengths
    columns = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return np.repeat(rows, lengths), columns


def _joined(parts: Sequence[Pixels]) -> Pixels:
    rows, columns = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(columns)

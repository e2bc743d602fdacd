"""The agent's shortest path around the T to a contact, in the block's frame (px).

The T is grown by the agent's radius and a clearance; paths run over the corners of the grown T.
"""

import numpy as np
import numpy.typing as npt

from envs.expert.pushes import (
    FACE_ALONG,
    FACE_HIGH,
    FACE_LOW,
    FACE_NORMAL,
    Floats,
    Ints,
    agent_point,
    contact_point,
)
from envs.physics.dynamics import AGENT_RADIUS, BAR, STEM
from envs.physics.geometry import OUTLINE

CORNER_CLEARANCE = 9.0  # px at the corners, which the agent cuts
GAP = 5.0  # px off a face, where an approach turns towards the contact
SLIDE = 14.0  # px: contacts this near on the same face are reached by sliding along it
_FAR = 1e5
_GROWN = AGENT_RADIUS + GAP - 1.0  # the least distance of a path to the T's outline

# The offsets on each face that can be approached at right angles, clear of the inner corners.
_REACH_LOW, _REACH_HIGH = FACE_LOW.copy(), FACE_HIGH.copy()
_REACH_LOW[3], _REACH_HIGH[4] = 15 + _GROWN, -15 - _GROWN
_REACH_LOW[5:7] = 30 + _GROWN
_BOXES = tuple(
    (min(x) - _GROWN, max(x) + _GROWN, min(y) - _GROWN, max(y) + _GROWN)
    for x, y in (zip(*BAR, strict=True), zip(*STEM, strict=True))
)


def crosses(start: Floats, end: Floats) -> npt.NDArray[np.bool_]:
    """Return whether (...) the straight lines from start to end (..., 2) cross the grown T."""
    step = end - start
    step = np.where(step == 0, 1e-12, step)
    hit = np.zeros(np.broadcast_shapes(start.shape, end.shape)[:-1], dtype=bool)
    for west, east, top, bottom in _BOXES:
        first = (np.array([west, top]) - start) / step
        second = (np.array([east, bottom]) - start) / step
        enter = np.minimum(first, second).max(axis=-1)
        leave = np.maximum(first, second).min(axis=-1)
        hit |= np.minimum(leave, 1.0) - np.maximum(enter, 0.0) > 1e-9
    return hit


# The corners of the grown T.
NODES = OUTLINE + (AGENT_RADIUS + CORNER_CLEARANCE) * np.array(
    [(-1, -1), (1, -1), (1, 1), (1, 1), (1, 1), (-1, 1), (-1, 1), (-1, 1)]
)
_EDGES = np.linalg.norm(NODES[:, None] - NODES[None], axis=-1)
_EDGES[crosses(NODES[:, None], NODES[None])] = _FAR


def shortest(usable: npt.NDArray[np.bool_]) -> tuple[Floats, Ints]:
    """Return lengths and first hops (8, 8) between the grown T's corners that are `usable` (8,)."""
    length = np.where(usable[:, None] & usable[None], _EDGES, _FAR)
    hop = np.tile(np.arange(len(NODES)), (len(NODES), 1))
    for k in range(len(NODES)):
        over = length[:, k : k + 1] + length[k]
        better = over < length - 1e-9
        length, hop = np.where(better, over, length), np.where(better, hop[:, k : k + 1], hop)
    return length, hop


_ALL_USABLE = shortest(np.ones(len(NODES), dtype=bool))


class Paths:
    """The paths from one agent position (2,); `usable` (8,) corners are those on the board."""

    def __init__(self, agent: Floats, usable: npt.NDArray[np.bool_]) -> None:
        self._agent = agent
        self._length, self._hop = _ALL_USABLE if usable.all() else shortest(usable)
        self._start = _retreat(agent)
        blocked = crosses(self._start, NODES) | ~usable
        self._first = np.where(blocked, _FAR, np.linalg.norm(NODES - self._start, axis=-1))
        self._usable = usable

    def lengths(self, face: Ints, offset: Floats) -> Floats:
        """Return the lengths (...) of the paths to contacts, px; at least _FAR without a path."""
        before = _before(face, offset)
        direct = np.linalg.norm(before - self._start, axis=-1)
        direct = np.where(crosses(self._start, before), _FAR, direct)
        over_nodes = (self._first[:, None] + self._length).min(axis=0)
        last = np.linalg.norm(before[..., None, :] - NODES, axis=-1)
        last = np.where(crosses(NODES, before[..., None, :]) | ~self._usable, _FAR, last)
        length = np.minimum(direct, (over_nodes + last).min(axis=-1))
        length += np.linalg.norm(self._start - self._agent)
        length += np.linalg.norm(agent_point(face, offset) - before, axis=-1)
        return np.where(*self._slides(face, offset), length)

    def points(self, face: Ints, offset: Floats) -> Floats:
        """Return the corners (P, 2) of the path to one contact, from the agent on."""
        touch, before = agent_point(face, offset), _before(face, offset)
        if self._slides(face, offset)[0]:
            return np.array([self._agent, touch])
        path = [self._agent]
        if not np.array_equal(self._start, self._agent):
            path.append(self._start)
        if crosses(self._start, before):
            blocked = crosses(NODES, before) | ~self._usable
            last = np.where(blocked, _FAR, np.linalg.norm(NODES - before, axis=-1))
            total = self._first[:, None] + self._length + last
            node, goal = (int(i) for i in np.unravel_index(np.argmin(total), total.shape))
            path.append(NODES[node])
            while node != goal:
                node = int(self._hop[node, goal])
                path.append(NODES[node])
        return np.array([*path, before, touch])

    def _slides(self, face: Ints, offset: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Return which contacts (...) the agent reaches by sliding along the face, and how far."""
        away = contact_point(face, offset) - self._agent
        ahead = (away * FACE_NORMAL[face]).sum(axis=-1)
        aside = (away * FACE_ALONG[face]).sum(axis=-1)
        near = (ahead > AGENT_RADIUS - 4) & (ahead < AGENT_RADIUS + GAP + 6)
        return near & (np.abs(aside) < SLIDE), np.hypot(ahead - AGENT_RADIUS, aside)


def _before(face: Ints, offset: Floats) -> Floats:
    """Return the points (..., 2), outside the grown T, from which contacts are approached."""
    return agent_point(face, np.clip(offset, _REACH_LOW[face], _REACH_HIGH[face]), GAP)


def _inside(points: Floats) -> npt.NDArray[np.bool_]:
    inside = np.zeros(points.shape[:-1], dtype=bool)
    for west, east, top, bottom in _BOXES:
        x, y = points[..., 0], points[..., 1]
        inside |= (x > west) & (x < east) & (y > top) & (y < bottom)
    return inside


def _retreat(agent: Floats) -> Floats:
    """Return the nearest point outside the grown T, straight off one of its faces."""
    if not _inside(agent):
        return agent
    x, y = agent
    margin = _GROWN + 0.5
    right, left, low = max(x, 15 + margin), min(x, -15 - margin), max(y, 30 + margin)
    off_ends = (x, -margin), (60 + margin, y), (-60 - margin, y), (x, 120 + margin)
    off_sides = (15 + margin, y), (-15 - margin, y), (x, 30 + margin), (right, low), (left, low)
    exits = np.array([*off_ends, *off_sides])
    exits = exits[~_inside(exits)]
    nearest: Floats = exits[np.argmin(np.linalg.norm(exits - agent, axis=-1))]
    return nearest

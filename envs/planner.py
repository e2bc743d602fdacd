"""A thorough, deterministic search for the next one or two strokes that bring the T to the goal.

All pairs of strokes on a grid of contacts and lengths are judged at once: the squared distance to
the goal after two strokes is bilinear in features of the pose after the first and of the second
stroke, so one small matrix product judges half a million plans. The best are then refined in
offset and length by damped Gauss-Newton steps. The cost is time in control steps, plus what the
distance left is worth, so similar states get similar strokes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs import strokes
from envs.dynamics import BOARD
from envs.routes import NODES, Ways
from envs.strokes import FACE_HIGH, FACE_LOW, TURN_RADIUS, Floats, Ints

Flags = npt.NDArray[np.bool_]

_IMPOSSIBLE = 300.0  # steps: the cost of a stroke into a wall or a contact off the board
_SHORTEST, _LONGEST = 0.3, 220.0  # px of push in a stroke
_PROBE, _SCALE, _DAMPING = 0.05, 3.0, 2.0  # of the Gauss-Newton steps (px)


@dataclass(frozen=True)
class Style:
    """How the demonstrator moves and what it weighs; speeds in px a step, costs in steps."""

    push_speed: float = 11.0
    travel_speed: float = 15.0
    approach_cost: float = 4.0  # of changing over to another contact
    distance_cost: float = 0.8  # of each px of distance left
    miss_cost: float = 30.0  # of not being at the goal after the planned strokes
    hit_distance: float = 2.5  # px: the scale on which a distance counts as a miss
    spacing: float = 12.0  # px between the contacts of the grid
    lengths: tuple[float, ...] = (
        *(1.5, 3, 5, 8, 12, 17, 23, 30),
        *(38, 48, 60, 75, 95, 120, 150, 180),
    )
    keep: float = 4.0  # steps by which a new plan must beat the one being carried out


@dataclass(frozen=True)
class Plan:
    """One or two strokes (arrays of that length): faces, offsets and lengths (px); cost (steps)."""

    face: Ints
    offset: Floats
    length: Floats
    cost: float


class Planner:
    """Searches plans; holds the tables that do not depend on the state."""

    def __init__(self, style: Style | None = None) -> None:
        self.style = style = style or Style()
        self._face, self._offset = strokes.contact_grid(style.spacing)
        lengths = np.array(style.lengths)
        # Every stroke of the grid: contact-major, C contacts times L lengths = S strokes.
        self._stroke_face = np.repeat(self._face, len(lengths))
        self._stroke_offset = np.repeat(self._offset, len(lengths))
        self._stroke_length = np.tile(lengths, len(self._face))
        twists = strokes.twist(self._stroke_face, self._stroke_offset)
        self._displacement = strokes.motion(twists * self._stroke_length[:, None])
        self._push_time = self._time_to_push(
            self._stroke_face, self._stroke_offset, self._stroke_length
        )
        x, y, angle = self._displacement.T
        weight = 2 * TURN_RADIUS**2
        self._second = np.stack(
            (
                *(np.ones_like(x), x**2 + y**2, 2 * x, 2 * y),
                *(-weight * np.cos(angle), weight * np.sin(angle)),
            )
        ).astype(np.float32)
        everywhere = np.ones(len(NODES), dtype=bool)
        self._change = self._time_to_reach(
            np.stack(
                [
                    Ways(agent, everywhere).lengths(self._face, self._offset)
                    for agent in strokes.agent_point(self._face, self._offset)
                ]
            )
        )
        stroke_contact = np.repeat(np.arange(len(self._face)), len(lengths))
        self._second_time = (self._change[:, stroke_contact] + self._push_time).astype(np.float32)

    def search(self, pose: Floats, ways: Ways, current: Plan | None) -> Plan:
        """Return the cheapest plan from a pose (3,); `current` is kept unless it is beaten."""
        reach = self._time_to_reach(ways.lengths(self._face, self._offset))
        stand = strokes.to_board(pose, strokes.agent_point(self._face, self._offset))
        reach += np.where(((stand > 1) & (stand < BOARD - 1)).all(axis=-1), 0.0, _IMPOSSIBLE)
        first = strokes.moved(pose, self._displacement)
        lengths = len(self.style.lengths)
        spent = np.repeat(reach, lengths) + self._push_time
        spent += np.where(self._into_wall(pose, first), _IMPOSSIBLE, 0.0)
        one = spent + self._worth(strokes.distance(first))
        two = self._judge_pairs(first, spent)
        best = two.min(axis=1)
        rows: list[tuple[int, int]] = []
        for i in np.argsort(best, kind="stable")[:12]:
            rows.append((int(i), int(two[i].argmin())))
        rows += [(int(i), -1) for i in np.argsort(one, kind="stable")[:6]]
        blocked = [spent[i] >= _IMPOSSIBLE for i, _ in rows]
        return self._refine(pose, ways, self._plans(rows), np.array(blocked), current)

    def follow(self, pose: Floats, ways: Ways, current: Plan) -> Plan:
        """Return `current`, brought up to date with what has been done of it, without a search."""
        return self._refine(pose, ways, [], np.zeros(0, dtype=bool), current)

    def _plans(self, rows: list[tuple[int, int]]) -> list[Plan]:
        plans = []
        for row in rows:
            index = np.array([i for i in row if i >= 0])
            face, offset = self._stroke_face[index], self._stroke_offset[index]
            plans.append(Plan(face, offset, self._stroke_length[index], 0.0))
        return plans

    def _judge_pairs(self, first: Floats, spent: Floats) -> npt.NDArray[np.float32]:
        """Return the cost (S, S) of every pair of strokes; see the module's docstring."""
        style = self.style
        x, y, angle = first.T
        cos, sin = np.cos(angle), np.sin(angle)
        features = np.stack(
            (
                *(x**2 + y**2 + 2 * TURN_RADIUS**2, np.ones_like(x)),
                *(cos * x + sin * y, cos * y - sin * x, cos, sin),
            ),
            axis=1,
        ).astype(np.float32)
        cost = features @ self._second
        np.maximum(cost, 0, out=cost)
        hit = np.exp(cost * np.float32(-1 / style.hit_distance**2))
        np.sqrt(cost, out=cost)
        cost *= np.float32(style.distance_cost)
        hit *= np.float32(style.miss_cost)
        cost -= hit
        cost += (spent + style.miss_cost).astype(np.float32)[:, None]
        contacts, lengths = len(self._face), len(style.lengths)
        by_contact = cost.reshape(contacts, lengths, -1)
        by_contact += self._second_time[:, None]
        return cost

    def _refine(
        self,
        pose: Floats,
        ways: Ways,
        plans: list[Plan],
        blocked: Flags,
        current: Plan | None,
    ) -> Plan:
        warm = self._continued(pose, current) if current is not None else []
        every = [*plans, *warm]
        second = np.array([len(plan.face) == 2 for plan in every])
        face = np.array([[plan.face[0], plan.face[-1]] for plan in every])
        offset = np.array([[plan.offset[0], plan.offset[-1]] for plan in every])
        length = np.array([[plan.length[0], plan.length[-1]] for plan in every])
        length[~second, 1] = 0.0
        room = np.where(np.arange(len(every)) < len(plans), 0.6 * self.style.spacing, 40.0)
        low = np.maximum(FACE_LOW[face], offset - room[:, None])
        high = np.minimum(FACE_HIGH[face], offset + room[:, None])
        values = np.concatenate([offset, length], axis=1)

        def after(values: Floats) -> Floats:
            once = strokes.pushed(pose, face[:, 0], values[..., 0], values[..., 2])
            return strokes.pushed(once, face[:, 1], values[..., 1], values[..., 3])

        free = np.stack([np.ones_like(second), second] * 2, axis=1).astype(np.float64)
        for _ in range(3):
            values = _gauss_newton_step(after, values, free, low, high)
        left = strokes.distance(after(values))
        cost = self._time_to_reach(ways.lengths(face[:, 0], values[:, 0]))
        cost += self._time_to_push(face[:, 0], values[:, 0], values[:, 2])
        change = self._change[self._nearest(face[:, 0], values[:, 0]), :]
        change = change[np.arange(len(every)), self._nearest(face[:, 1], values[:, 1])]
        cost += second * (change + self._time_to_push(face[:, 1], values[:, 1], values[:, 3]))
        cost += self._worth(left)
        judged = cost.copy()
        judged[: len(plans)] += np.where(blocked, _IMPOSSIBLE, 0.0)
        judged[len(plans) :] -= self.style.keep
        k = int(np.argmin(judged))
        count = 2 if second[k] else 1
        return Plan(face[k, :count], values[k, :count], values[k, 2 : 2 + count], float(cost[k]))

    def _continued(self, pose: Floats, plan: Plan) -> list[Plan]:
        """Return the plan with what is left of its first stroke and, if there is, its second."""
        left = np.maximum(plan.length[0] - np.arange(0.0, 16.0, 1.5), 0.3)
        poses = strokes.pushed(pose, plan.face[0], plan.offset[0], left)
        if len(plan.face) == 2:
            poses = strokes.pushed(poses, plan.face[1], plan.offset[1], plan.length[1])
        k = int(np.argmin(strokes.distance(poses) + 0.02 * left))
        length = np.array([left[k], *plan.length[1:]])
        again = [Plan(plan.face, plan.offset, length, plan.cost)]
        if len(plan.face) == 2:
            again.append(Plan(plan.face[1:], plan.offset[1:], plan.length[1:], plan.cost))
        return again

    def _into_wall(self, pose: Floats, after: Floats) -> Flags:
        """Return whether (S,) a stroke drives the T farther into a wall than it is."""
        corners = strokes.to_board(after, strokes.HULL_POINTS)
        now = strokes.to_board(pose, strokes.HULL_POINTS)
        depth = np.maximum(8 - corners, corners - 503).max(axis=(-2, -1))
        deeper: Flags = depth > max(float(np.maximum(8 - now, now - 503).max()), 0.0) + 0.1
        return deeper

    def _nearest(self, face: Ints, offset: Floats) -> Ints:
        apart = np.abs(self._offset - offset[:, None]) + 1e4 * (self._face != face[:, None])
        nearest: Ints = apart.argmin(axis=1)
        return nearest

    def _worth(self, left: Floats) -> Floats:
        style = self.style
        miss = 1.0 - np.exp(-((left / style.hit_distance) ** 2))
        return style.miss_cost * miss + style.distance_cost * left

    def _time_to_reach(self, way: Floats) -> Floats:
        return way / self.style.travel_speed + self.style.approach_cost * (way > 3)

    def _time_to_push(self, face: Ints, offset: Floats, length: Floats) -> Floats:
        speed = np.maximum(strokes.agent_speed(face, offset), 0.5)
        return length * speed / self.style.push_speed


def _gauss_newton_step(
    after: Callable[[Floats], Floats], values: Floats, free: Floats, low: Floats, high: Floats
) -> Floats:
    """Return values (M, 4) one damped step nearer to the goal: two offsets, two lengths (px).

    `after` gives the poses (..., M, 3) that values (..., M, 4) lead to; `free` (M, 4) is 0 where a
    value must stay; `low` and `high` (M, 2) bound the offsets.
    """
    probes = np.concatenate([np.zeros((1, 4)), _PROBE * np.eye(4)])
    error_5M3 = strokes.errors(after(values + probes[:, None]))
    error = error_5M3[0]
    jacobian_M34 = np.moveaxis(error_5M3[1:] - error, 0, -1) * (_SCALE / _PROBE) * free[:, None]
    normal = np.einsum("mki,mkj->mij", jacobian_M34, jacobian_M34) + _DAMPING * np.eye(4)
    slope = np.einsum("mki,mk->mi", jacobian_M34, error)[..., None]
    change = _SCALE * free * np.linalg.solve(normal, slope)[..., 0]
    new = values - np.clip(change, -10, 10)
    new[:, :2] = np.clip(new[:, :2], low, high)
    new[:, 2:] = np.clip(new[:, 2:], _SHORTEST, _LONGEST) * free[:, 2:]
    better = (strokes.errors(after(new)) ** 2).sum(axis=-1) < (error**2).sum(axis=-1)
    return np.where(better[:, None], new, values)

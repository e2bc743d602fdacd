"""A deterministic search for the next one or two pushes that bring the T to the goal.

The plans that follow then start from one angle, whatever the start was, which leaves much less to
be learned from them: what to do depends on two numbers instead of three.

All pairs of strokes on a grid of contacts and lengths are judged at once: the squared distance to
the goal after two strokes is bilinear in features of the pose after the first and of the second
stroke, so one small matrix product judges all pairs. The best are then refined in offset and length
by damped Gauss-Newton steps. The cost is time in control steps, plus what the distance left is
worth, so similar states get similar strokes.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from envs.expert import pushes
from envs.expert.paths import NODES, Ways
from envs.expert.plan import IMPOSSIBLE, Flags, Plan, Style, into_wall, off_board
from envs.expert.pushes import FACE_HIGH, FACE_LOW, TURN_RADIUS, Floats, Ints


def must_turn(pose: Floats, current: Plan | None, style: Style) -> bool:
    """Return whether the T at a pose (3,) is to be turned; a turn that has begun is finished."""
    begun = current is not None and current.turns
    return abs(float(pose[2])) > (style.turn_until if begun else style.turn_from)


class Turner:
    """Chooses the push that turns the T to the goal's angle in the least time."""

    def __init__(self, style: Style) -> None:
        self._style = style
        face, offset = pushes.contact_grid(style.spacing)
        far = np.abs(pushes.lever(face, offset)) >= style.turn_arm
        self._face, self._offset = face[far], offset[far]
        self._twist = pushes.twist(self._face, self._offset)

    def turn(self, pose: Floats, ways: Ways, current: Plan | None) -> Plan:
        """Return the cheapest turning plan from a pose (3,); see `Style.keep` for `current`."""
        style, face, offset, spin = self._style, self._face, self._offset, self._twist[:, 2]
        length = (-pose[2] * np.sign(spin)) % (2 * math.pi) / np.abs(spin)
        after = pushes.moved(pose, pushes.motion(self._twist * length[:, None]))
        cost = style.time_to_reach(ways.lengths(face, offset))
        cost += style.time_to_push(face, offset, length)
        cost += style.turn_shift_cost * np.hypot(after[:, 0], after[:, 1])
        cost += IMPOSSIBLE * (off_board(pose, face, offset) + 1.0 * into_wall(pose, after))
        judged = cost.copy()
        if current is not None and current.turns:
            same = (face == current.face[0]) & (offset == current.offset[0])
            judged -= style.keep * same
        k = int(np.argmin(judged))
        chosen = slice(k, k + 1)
        return Plan(face[chosen], offset[chosen], length[chosen], float(cost[k]), turns=True)


_SHORTEST, _LONGEST = 0.3, 220.0  # px of push in a stroke
_DONE = 1.2  # px: a first stroke with no more than this left gives way to the second
_PAIRS, _SINGLES = 12, 6  # how many plans of two and of one stroke are refined
_PROBE, _SCALE, _DAMPING = 0.05, 3.0, 2.0  # of the Gauss-Newton steps (px)


class Planner:
    """Chooses plans; holds the tables that do not depend on the state."""

    def __init__(self, style: Style | None = None) -> None:
        self.style = style = style or Style()
        self._turner = Turner(style)
        face, offset = pushes.contact_grid(style.spacing)
        allowed = np.isin(face, [pushes.FACE_NAMES.index(name) for name in style.faces])
        self._face, self._offset = face[allowed], offset[allowed]
        lengths = np.array(style.lengths)
        # Every stroke of the grid, contact by contact: C contacts times L lengths are S strokes.
        self._stroke_face = np.repeat(self._face, len(lengths))
        self._stroke_offset = np.repeat(self._offset, len(lengths))
        self._stroke_length = np.tile(lengths, len(self._face))
        twists_S3 = pushes.twist(self._stroke_face, self._stroke_offset)
        self._displacement_S3 = pushes.motion(twists_S3 * self._stroke_length[:, None])
        self._push_time_S = style.time_to_push(
            self._stroke_face, self._stroke_offset, self._stroke_length
        )
        self._second_6S = _features_of_second(self._displacement_S3)
        self._change_CC = self._time_to_change()
        contact_S = np.repeat(np.arange(len(self._face)), len(lengths))
        self._second_time_CS = self._change_CC[:, contact_S] + self._push_time_S
        self._second_time_CS = self._second_time_CS.astype(np.float32)

    def search(self, pose: Floats, ways: Ways, current: Plan | None) -> Plan:
        """Return the cheapest plan from a pose (3,); see `Style.keep` for `current`."""
        if must_turn(pose, current, self.style):
            return self._turner.turn(pose, ways, current)
        reach = self.style.time_to_reach(ways.lengths(self._face, self._offset))
        reach += IMPOSSIBLE * off_board(pose, self._face, self._offset)
        first_S3 = pushes.moved(pose, self._displacement_S3)
        spent_S = np.repeat(reach, len(self.style.lengths)) + self._push_time_S
        spent_S += IMPOSSIBLE * into_wall(pose, first_S3)
        one_S = spent_S + self._worth(pushes.distance(first_S3))
        two_SS = self._judge_pairs(first_S3, spent_S)
        best_pairs = np.argsort(two_SS.min(axis=1), kind="stable")[:_PAIRS]
        rows = [[int(i), int(two_SS[i].argmin())] for i in best_pairs]
        rows += [[int(i)] for i in np.argsort(one_S, kind="stable")[:_SINGLES]]
        blocked = np.array([spent_S[row[0]] >= IMPOSSIBLE for row in rows])
        found = [self._plan(np.array(row)) for row in rows]
        return self._refine(pose, ways, found, blocked, current)

    def follow(self, pose: Floats, ways: Ways, current: Plan) -> Plan | None:
        """Return `current`, brought up to date without a search, or None if it has ended."""
        if must_turn(pose, current, self.style):
            return self._turner.turn(pose, ways, current)
        if current.turns:
            return None
        return self._refine(pose, ways, [], np.zeros(0, dtype=bool), current)

    def _plan(self, stroke: Ints) -> Plan:
        face, offset = self._stroke_face[stroke], self._stroke_offset[stroke]
        return Plan(face, offset, self._stroke_length[stroke], 0.0)

    def _judge_pairs(self, first_S3: Floats, spent_S: Floats) -> npt.NDArray[np.float32]:
        """Return the cost (S, S) of every pair of strokes; see the module's docstring."""
        style = self.style
        cost = _features_of_first(first_S3) @ self._second_6S
        np.maximum(cost, 0, out=cost)
        hit = np.exp(cost * np.float32(-1 / style.hit_distance**2))
        np.sqrt(cost, out=cost)
        cost *= np.float32(style.distance_cost)
        hit *= np.float32(style.miss_cost)
        cost -= hit
        cost += (spent_S + style.miss_cost).astype(np.float32)[:, None]
        by_contact = cost.reshape(len(self._face), len(style.lengths), -1)
        by_contact += self._second_time_CS[:, None]
        return cost

    def _refine(
        self, pose: Floats, ways: Ways, found: list[Plan], blocked: Flags, current: Plan | None
    ) -> Plan:
        """Refine the plans found and what is left of the current one; return the cheapest."""
        goes_on = current is not None and not current.turns
        plans = [*found, *(_left_of(pose, current) if current is not None and goes_on else [])]
        pair = np.array([len(plan.face) == 2 for plan in plans])
        face = np.array([[plan.face[0], plan.face[-1]] for plan in plans])
        offset = np.array([[plan.offset[0], plan.offset[-1]] for plan in plans])
        length = np.array([[plan.length[0], plan.length[-1]] for plan in plans])
        length[~pair, 1] = 0.0
        is_found = np.arange(len(plans)) < len(found)
        room = np.where(is_found, 0.6 * self.style.spacing, 40.0)[:, None]
        low = np.maximum(FACE_LOW[face], offset - room)
        high = np.minimum(FACE_HIGH[face], offset + room)
        free = np.stack([np.ones_like(pair), pair] * 2, axis=1).astype(np.float64)

        def after(values: Floats) -> Floats:
            once = pushes.pushed(pose, face[:, 0], values[..., 0], values[..., 2])
            return pushes.pushed(once, face[:, 1], values[..., 1], values[..., 3])

        values = np.concatenate([offset, length], axis=1)
        for _ in range(3):
            values = _gauss_newton_step(after, values, free, low, high)
        offset, length = values[:, :2], values[:, 2:]
        cost = self.style.time_to_reach(ways.lengths(face[:, 0], offset[:, 0]))
        cost += self.style.time_to_push(face, offset, length).sum(axis=1)
        nearest = self._nearest(face, offset)
        cost += pair * self._change_CC[nearest[:, 0], nearest[:, 1]]
        cost += self._worth(pushes.distance(after(values)))
        judged = cost - self.style.keep * ~is_found
        judged[is_found] += IMPOSSIBLE * blocked
        k = int(np.argmin(judged))
        count = 2 if pair[k] else 1
        return Plan(face[k, :count], offset[k, :count], length[k, :count], float(cost[k]))

    def _worth(self, left: Floats) -> Floats:
        """Return what distances (...) to the goal in px cost."""
        miss = 1.0 - np.exp(-((left / self.style.hit_distance) ** 2))
        return self.style.miss_cost * miss + self.style.distance_cost * left

    def _time_to_change(self) -> Floats:
        """Return the steps (C, C) from the end of a push at one contact to another contact."""
        stands = pushes.agent_point(self._face, self._offset)
        everywhere = np.ones(len(NODES), dtype=bool)
        ways = [Ways(stand, everywhere).lengths(self._face, self._offset) for stand in stands]
        return self.style.time_to_reach(np.stack(ways))

    def _nearest(self, face: Ints, offset: Floats) -> Ints:
        apart = np.abs(self._offset - offset[..., None]) + 1e4 * (self._face != face[..., None])
        nearest: Ints = apart.argmin(axis=-1)
        return nearest


def _left_of(pose: Floats, plan: Plan) -> list[Plan]:
    """Return the plan with what is left of its first stroke and, if there is, its second alone."""
    left = np.maximum(plan.length[0] - np.arange(0.0, 16.0, 1.5), _SHORTEST)
    after = pushes.pushed(pose, plan.face[0], plan.offset[0], left)
    if len(plan.face) == 1:
        k = int(np.argmin(pushes.distance(after) + 0.02 * left))
        return [Plan(plan.face, plan.offset, left[k : k + 1], plan.cost)]
    after = pushes.pushed(after, plan.face[1], plan.offset[1], plan.length[1])
    k = int(np.argmin(pushes.distance(after) + 0.02 * left))
    rest = Plan(plan.face[1:], plan.offset[1:], plan.length[1:], plan.cost)
    if left[k] <= _DONE:
        return [rest]
    length = np.array([left[k], plan.length[1]])
    return [Plan(plan.face, plan.offset, length, plan.cost), rest]


def _features_of_first(pose_S3: Floats) -> npt.NDArray[np.float32]:
    """Return features (S, 6) whose product with those of a second stroke is distance squared."""
    x, y, angle = pose_S3.T
    cos, sin = np.cos(angle), np.sin(angle)
    squared = x**2 + y**2 + 2 * TURN_RADIUS**2
    features = (squared, np.ones_like(x), cos * x + sin * y, cos * y - sin * x, cos, sin)
    return np.stack(features, axis=1).astype(np.float32)


def _features_of_second(displacement_S3: Floats) -> npt.NDArray[np.float32]:
    x, y, angle = displacement_S3.T
    weight = 2 * TURN_RADIUS**2
    turn = (-weight * np.cos(angle), weight * np.sin(angle))
    return np.stack((np.ones_like(x), x**2 + y**2, 2 * x, 2 * y, *turn)).astype(np.float32)


def _gauss_newton_step(
    after: Callable[[Floats], Floats], values: Floats, free: Floats, low: Floats, high: Floats
) -> Floats:
    """Return values (M, 4) one damped step nearer to the goal: two offsets, two lengths (px).

    `after` gives the poses (..., M, 3) that values (..., M, 4) lead to; `free` (M, 4) is 0 where a
    value must stay; `low` and `high` (M, 2) bound the offsets.
    """
    probes = np.concatenate([np.zeros((1, 4)), _PROBE * np.eye(4)])
    error_5M3 = pushes.errors(after(values + probes[:, None]))
    error = error_5M3[0]
    jacobian_M34 = np.moveaxis(error_5M3[1:] - error, 0, -1) * (_SCALE / _PROBE) * free[:, None]
    normal = np.einsum("mki,mkj->mij", jacobian_M34, jacobian_M34) + _DAMPING * np.eye(4)
    slope = np.einsum("mki,mk->mi", jacobian_M34, error)[..., None]
    change = _SCALE * free * np.linalg.solve(normal, slope)[..., 0]
    new = values - np.clip(change, -10, 10)
    new[:, :2] = np.clip(new[:, :2], low, high)
    new[:, 2:] = np.clip(new[:, 2:], _SHORTEST, _LONGEST) * free[:, 2:]
    better = (pushes.errors(after(new)) ** 2).sum(axis=-1) < (error**2).sum(axis=-1)
    return np.where(better[:, None], new, values)

"""A deterministic search for the next one or two pushes that bring the T to the goal.

A T that is far from the goal's angle is turned first. All later plans then start from one angle:
what to do depends on two numbers instead of three, which is easier to learn.

All pairs of pushes on a grid of contacts and lengths are compared at once: the squared distance to
the goal after two pushes is bilinear in features of the pose after the first and of the second
push, so one small matrix product gives the costs of all pairs. The best are refined in offset and
length by damped Gauss-Newton steps. The cost is the time in control steps plus a price of the
remaining distance, so similar states get similar pushes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.expert import pushes
from envs.expert.paths import NODES, Paths
from envs.expert.pushes import FACE_HIGH, FACE_LOW, TURN_RADIUS, Floats, Ints
from envs.physics.dynamics import BOARD

Flags = npt.NDArray[np.bool_]
# Costs are in control steps.
PUSH_SPEED, TRAVEL_SPEED = 11.0, 15.0  # px of the agent per step
APPROACH_COST = 4.0  # of a change to another contact
IMPOSSIBLE = 300.0  # of a push into a wall or from a contact off the board
KEEP = 4.0  # by which a new plan must be cheaper than the current one
TURN_FROM, TURN_UNTIL = 0.35, 0.06  # rad: the T's angle at which turning begins and ends
TURN_ARM = 38.0  # px: the least lever of a turning push
TURN_SHIFT_COST = 0.2  # of each px between the T and the goal after a turn
FACES = ("bar top", "stem right", "stem left", "stem tip")  # that are pushed to the goal
SPACING = 12.0  # px between the contacts of the grid
LENGTHS = np.array([1.5, 3, 5, 8, 12, 17, 23, 30, 38, 48, 60, 75, 95, 120, 150, 180])  # px
DISTANCE_COST = 0.8  # of each px of remaining distance
MISS_COST = 30.0  # of a plan that does not reach the goal
HIT_DISTANCE = 2.5  # px: the scale on which a distance counts as a miss
_WALL = 8.0  # px from the board's edge, where the T's corners touch a wall
_SHORTEST, _LONGEST = 0.3, 220.0  # px of a push
_DONE = 1.2  # px: a first push with no more than this left is dropped for the second
_PAIRS, _SINGLES = 12, 6  # how many plans of two and of one push are refined
_PROBE, _SCALE, _DAMPING = 0.05, 3.0, 2.0  # of the Gauss-Newton steps (px)


@dataclass(frozen=True)
class Plan:
    """K pushes: faces (K,), offsets (K,) and lengths (K,) in px; their cost in steps.

    `turns`: its one push only turns the T to the goal's angle.
    """

    face: Ints
    offset: Floats
    length: Floats
    cost: float
    turns: bool = False


class Planner:
    """Chooses plans; holds the tables that do not depend on the state."""

    def __init__(self) -> None:
        face, offset = pushes.contact_grid(SPACING)
        far = np.abs(pushes.lever(face, offset)) >= TURN_ARM
        self._turn_face, self._turn_offset = face[far], offset[far]
        self._turn_twist = pushes.twist(face[far], offset[far])
        allowed = np.isin(face, [pushes.FACE_NAMES.index(name) for name in FACES])
        self._face, self._offset = face[allowed], offset[allowed]
        # Every push of the grid, contact by contact: C contacts times L lengths are S pushes.
        self._face_S = np.repeat(self._face, len(LENGTHS))
        self._offset_S = np.repeat(self._offset, len(LENGTHS))
        self._length_S = np.tile(LENGTHS, len(self._face))
        twists_S3 = pushes.twist(self._face_S, self._offset_S)
        self._displacement_S3 = pushes.motion(twists_S3 * self._length_S[:, None])
        self._push_time_S = time_to_push(self._face_S, self._offset_S, self._length_S)
        self._second_6S = _features_of_second(self._displacement_S3)
        # Steps from the end of a push at one contact to another contact.
        stands, anywhere = pushes.agent_point(self._face, self._offset), np.ones(len(NODES), bool)
        ways = [Paths(stand, anywhere).lengths(self._face, self._offset) for stand in stands]
        self._change_CC = time_to_reach(np.stack(ways))
        contact_S = np.repeat(np.arange(len(self._face)), len(LENGTHS))
        second_time_CS = self._change_CC[:, contact_S] + self._push_time_S
        self._second_time_CS = second_time_CS.astype(np.float32)

    def search(self, pose: Floats, paths: Paths, current: Plan | None) -> Plan:
        """Return the cheapest plan from a pose (3,), given the plan being carried out."""
        if _must_turn(pose, current):
            return self._turn(pose, paths, current)
        reach = time_to_reach(paths.lengths(self._face, self._offset))
        reach += IMPOSSIBLE * off_board(pose, self._face, self._offset)
        first_S3 = pushes.moved(pose, self._displacement_S3)
        spent_S = np.repeat(reach, len(LENGTHS)) + self._push_time_S
        spent_S += IMPOSSIBLE * into_wall(pose, first_S3)
        one_S = spent_S + _distance_cost(pushes.distance(first_S3))
        two_SS = self._costs_of_pairs(first_S3, spent_S)
        best_pairs = np.argsort(two_SS.min(axis=1), kind="stable")[:_PAIRS]
        rows = [[int(i), int(two_SS[i].argmin())] for i in best_pairs]
        rows += [[int(i)] for i in np.argsort(one_S, kind="stable")[:_SINGLES]]
        blocked = np.array([spent_S[row[0]] >= IMPOSSIBLE for row in rows])
        found = [
            Plan(self._face_S[row], self._offset_S[row], self._length_S[row], 0.0) for row in rows
        ]
        return self._refine(pose, paths, found, blocked, current)

    def follow(self, pose: Floats, paths: Paths, current: Plan) -> Plan | None:
        """Return `current` adjusted to the pose without a search, or None if it has ended."""
        if _must_turn(pose, current):
            return self._turn(pose, paths, current)
        if current.turns:
            return None
        return self._refine(pose, paths, [], np.zeros(0, dtype=bool), current)

    def _turn(self, pose: Floats, paths: Paths, current: Plan | None) -> Plan:
        """Return the cheapest push that turns the T to the goal's angle."""
        face, offset, spin = self._turn_face, self._turn_offset, self._turn_twist[:, 2]
        length = (-pose[2] * np.sign(spin)) % (2 * math.pi) / np.abs(spin)
        after = pushes.moved(pose, pushes.motion(self._turn_twist * length[:, None]))
        cost = time_to_reach(paths.lengths(face, offset))
        cost += time_to_push(face, offset, length)
        cost += TURN_SHIFT_COST * np.hypot(after[:, 0], after[:, 1])
        cost += IMPOSSIBLE * (off_board(pose, face, offset) + 1.0 * into_wall(pose, after))
        compared = cost.copy()
        if current is not None and current.turns:
            same = (face == current.face[0]) & (offset == current.offset[0])
            compared -= KEEP * same
        k = int(np.argmin(compared))
        chosen = slice(k, k + 1)
        return Plan(face[chosen], offset[chosen], length[chosen], float(cost[k]), turns=True)

    def _costs_of_pairs(self, first_S3: Floats, spent_S: Floats) -> npt.NDArray[np.float32]:
        """Return the cost (S, S) of every pair of pushes; see the module's docstring."""
        cost = _features_of_first(first_S3) @ self._second_6S
        np.maximum(cost, 0, out=cost)
        hit = np.exp(cost * np.float32(-1 / HIT_DISTANCE**2))
        np.sqrt(cost, out=cost)
        cost *= np.float32(DISTANCE_COST)
        hit *= np.float32(MISS_COST)
        cost -= hit
        cost += (spent_S + MISS_COST).astype(np.float32)[:, None]
        by_contact = cost.reshape(len(self._face), len(LENGTHS), -1)
        by_contact += self._second_time_CS[:, None]
        return cost

    def _refine(
        self, pose: Floats, paths: Paths, found: list[Plan], blocked: Flags, current: Plan | None
    ) -> Plan:
        """Refine the plans found and the rest of the current one; return the cheapest."""
        plans = list(found)
        if current is not None and not current.turns:
            plans += _rest_of(pose, current)
        pair = np.array([len(plan.face) == 2 for plan in plans])
        face = np.array([[plan.face[0], plan.face[-1]] for plan in plans])
        offset = np.array([[plan.offset[0], plan.offset[-1]] for plan in plans])
        length = np.array([[plan.length[0], plan.length[-1]] for plan in plans])
        length[~pair, 1] = 0.0
        is_found = np.arange(len(plans)) < len(found)
        room = np.where(is_found, 0.6 * SPACING, 40.0)[:, None]
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
        cost = time_to_reach(paths.lengths(face[:, 0], offset[:, 0]))
        cost += time_to_push(face, offset, length).sum(axis=1)
        apart = np.abs(self._offset - offset[..., None]) + 1e4 * (self._face != face[..., None])
        cost += pair * self._change_CC[tuple(apart.argmin(axis=-1).T)]
        cost += _distance_cost(pushes.distance(after(values)))
        compared = cost - KEEP * ~is_found
        compared[is_found] += IMPOSSIBLE * blocked
        k = int(np.argmin(compared))
        count = 2 if pair[k] else 1
        return Plan(face[k, :count], offset[k, :count], length[k, :count], float(cost[k]))


def time_to_reach(path: Floats) -> Floats:
    """Return the steps (...) that paths of a length (...) in px take."""
    return path / TRAVEL_SPEED + APPROACH_COST * (path > 3)


def time_to_push(face: Ints, offset: Floats, length: Floats) -> Floats:
    """Return the steps (...) that pushes of a length (...) in px take."""
    return length * pushes.agent_speed(face, offset) / PUSH_SPEED


def off_board(pose: Floats, face: Ints, offset: Floats) -> Flags:
    """Return whether (...) the agent cannot stand at contacts (...) because the board ends."""
    stand = pushes.to_board(pose, pushes.agent_point(face, offset))
    return np.asarray(((stand < 1) | (stand > BOARD - 1)).any(axis=-1), dtype=np.bool_)


def into_wall(pose: Floats, after: Floats) -> Flags:
    """Return whether (...) the T is farther in a wall at poses `after` (..., 3) than at `pose`."""
    corners = pushes.to_board(after, pushes.HULL_POINTS)
    now = pushes.to_board(pose, pushes.HULL_POINTS)
    depth = np.maximum(_WALL - corners, corners - (511 - _WALL)).max(axis=(-2, -1))
    allowed = max(float(np.maximum(_WALL - now, now - (511 - _WALL)).max()), 0.0) + 0.1
    deeper: Flags = depth > allowed
    return deeper


def _must_turn(pose: Floats, current: Plan | None) -> bool:
    """Return whether the T at a pose (3,) is to be turned; a turn that has begun is finished."""
    begun = current is not None and current.turns
    return abs(float(pose[2])) > (TURN_UNTIL if begun else TURN_FROM)


def _distance_cost(distance: Floats) -> Floats:
    """Return the cost of remaining distances (...) to the goal in px."""
    miss = 1.0 - np.exp(-((distance / HIT_DISTANCE) ** 2))
    return MISS_COST * miss + DISTANCE_COST * distance


def _rest_of(pose: Floats, plan: Plan) -> list[Plan]:
    """Return the plan with the rest of its first push and, if there is one, its second alone."""
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
    """Return features (S, 6) whose product with those of a second push is distance squared."""
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
    """Return values (M, 4), two offsets and two lengths in px, one damped step nearer to the goal.

    `after` gives the poses (..., M, 3) that values (..., M, 4) lead to; `free` (M, 4) is 0 for a
    fixed value; `low` and `high` (M, 2) bound the offsets.
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

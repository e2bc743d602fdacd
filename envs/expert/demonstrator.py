"""A demonstrator that solves PushT: it plans pushes in closed form and carries them out.

Its action is a function of the state and of the plan being carried out. It searches for a new plan
every few steps and changes to it only if it is clearly better; nothing is random. Recorded episodes
first aim a few px beside the goal and then correct that, so that they show small corrections.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from envs.argument_checks import check_vector
from envs.expert import pushes
from envs.expert.paths import NODES, SLIDE, Paths
from envs.expert.planner import PUSH_SPEED, TRAVEL_SPEED, Plan, Planner
from envs.expert.pushes import Floats
from envs.physics.dynamics import BOARD, World
from envs.physics.geometry import SUCCESS_COVERAGE, coverage

if TYPE_CHECKING:
    import torch

LAG = 2.0  # steps by which the agent is behind its target at a steady speed
SEARCH_EVERY = 5  # steps between searches while the T moves
SEARCH_EVERY_STILL = 12  # steps between searches while the agent travels and the T rests
COST_INCREASE = 2.0  # steps by which a plan may become more costly before a new search
OVERSHOOT = 2.0  # px beyond a push's end, so that the agent does not slow down before it
MAX_STEPS = 300
AIM_ERROR = (8.0, 8.0, 0.16)  # px, px, rad: standard deviations of an episode's first aim
AIM_HIT = 2.5  # px: the distance at which the first aim is reached


@dataclass(frozen=True)
class Episode:
    """A demonstration: the states (L, 5) before the actions, and the actions (L, 2), float32.

    `max_coverage` is the maximum after any action; `success`: it exceeds 0.95.
    """

    states: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    max_coverage: float
    success: bool


class Demonstrator:
    """Chooses one action a step, and keeps its plan between steps.

    `first_aim` (3,): a pose in the goal's frame (px, px, rad), near zero, to which the T is brought
    before the goal.
    """

    def __init__(self, first_aim: Floats | None = None) -> None:
        self._planner = _planner()
        self._first_aim = first_aim
        self._plan: Plan | None = None
        self._pose: Floats | None = None  # of the last step
        self._age = 0  # steps since the last search

    def act(self, state: npt.ArrayLike) -> Floats:
        """Return the target (2,) in px, on the board, for a state (5,) as recorded.

        Raises ValueError for a wrong shape or a value that is not finite.
        """
        pose, agent = pushes.observe(np.array(check_vector("state", state, 5)))
        corners = pushes.to_board(pose, NODES)
        paths = Paths(agent, np.logical_and.reduce((corners > 0) & (corners < BOARD), axis=-1))
        plan = self._plan = self._next_plan(self._from_aim(pose), paths)
        return np.clip(_target(pose, plan, paths), 0.0, BOARD)

    def _from_aim(self, pose: Floats) -> Floats:
        """Return the pose (3,) in the frame of the current aim; a reached first aim is dropped."""
        if self._first_aim is None:
            return pose
        relative = pushes.relative_to(self._first_aim, pose)
        if pushes.distance(relative) >= AIM_HIT:
            return relative
        self._first_aim = self._plan = None
        return pose

    def _next_plan(self, pose: Floats, paths: Paths) -> Plan:
        old, still = self._plan, self._pose is not None and np.array_equal(pose, self._pose)
        self._pose = pose
        self._age += 1
        if old is not None and still and self._age < SEARCH_EVERY_STILL:
            return old
        if old is not None and self._age < SEARCH_EVERY:
            plan = self._planner.follow(pose, paths, old)
            if plan is not None and plan.cost < old.cost + COST_INCREASE:
                return plan
        self._age = 0
        return self._planner.search(pose, paths, old)


def _target(pose: Floats, plan: Plan, paths: Paths) -> Floats:
    """Return the point on the board at a fixed distance ahead of the agent on its course."""
    path = paths.points(plan.face[0], plan.offset[0])
    legs = np.linalg.norm(np.diff(path, axis=0), axis=1)
    ahead = LAG * (PUSH_SPEED if legs.sum() < LAG * PUSH_SPEED else TRAVEL_SPEED)
    if legs.sum() >= ahead:
        passed = np.cumsum(legs)
        k = int(np.searchsorted(passed, ahead))
        share = (ahead - (passed[k] - legs[k])) / legs[k]
        target = path[k] + share * (path[k + 1] - path[k])
    else:
        pose, target = _along_pushes(pose, plan, ahead - float(legs.sum()))
    on_board: Floats = pushes.to_board(pose, target[None])[0]
    return on_board


def _along_pushes(pose: Floats, plan: Plan, ahead: float) -> tuple[Floats, Floats]:
    """Return the T's pose and the agent, in its frame, when the agent has pushed `ahead` px."""
    for k, (face, offset) in enumerate(zip(plan.face, plan.offset, strict=True)):
        last = k + 1 == len(plan.face)
        slides = not last and plan.face[k + 1] == face and abs(plan.offset[k + 1] - offset) < SLIDE
        speed = float(pushes.agent_speed(face, offset))
        end = float(plan.length[k]) + (0.0 if slides else OVERSHOOT)
        length = min(ahead / speed, end)
        pose = pushes.pushed(pose, face, offset, np.array(length))
        ahead -= length * speed
        if not slides or ahead <= 0:
            break
    return pose, pushes.agent_point(face, offset)


def plan_episode(seed: int, max_steps: int = MAX_STEPS) -> Episode:
    """Demonstrate from the legacy reset of `seed` until coverage exceeds 0.95 or steps run out.

    The recorded actions, stepped again from that reset, give the recorded states exactly.
    """
    world = World()
    world.reset(seed)
    first_aim = np.random.default_rng(seed).normal(0.0, AIM_ERROR)
    return _demonstrate(world, Demonstrator(first_aim), max_steps)


def continue_episode(
    state: npt.ArrayLike, agent_velocity: Sequence[float], max_steps: int = MAX_STEPS
) -> Episode:
    """Demonstrate from a state (5,) and a velocity (2,) in px/s, as `World.set_state` takes them.

    The recorded actions, stepped again from there, give the recorded states exactly.
    """
    world = World()
    world.set_state(state, agent_velocity)
    return _demonstrate(world, Demonstrator(), max_steps)


def _demonstrate(world: World, demonstrator: Demonstrator, max_steps: int) -> Episode:
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    states: list[npt.NDArray[np.float32]] = []
    actions: list[npt.NDArray[np.float32]] = []
    best = 0.0
    while len(actions) < max_steps and best <= SUCCESS_COVERAGE:
        state = world.state
        # The action is carried out as it is stored, in float32.
        action = demonstrator.act(state).astype(np.float32)
        world.step(action)
        states.append(state.astype(np.float32))
        actions.append(action)
        best = max(best, coverage(*world.state[2:]))
    return Episode(np.stack(states), np.stack(actions), best, best > SUCCESS_COVERAGE)


_planner = functools.cache(Planner)  # its tables hold no state


class ExpertPolicy:
    """The demonstrator as a policy, for evaluation as an upper bound.

    An episode's plan is kept under its generator: rows may come in any order, and fewer each time.
    """

    obs_mode = "state"
    obs_horizon = 1
    action_horizon = 1

    def __init__(self) -> None:
        self._episodes: WeakKeyDictionary[torch.Generator, Demonstrator] = WeakKeyDictionary()

    def predict_action(
        self, obs: Mapping[str, "torch.Tensor"], generators: Sequence["torch.Generator"]
    ) -> "torch.Tensor":
        """Return targets (B, 1, 2) in px for obs["state"] (B, T, 5); one generator an episode."""
        import torch

        states = obs["state"][:, -1].to("cpu", torch.float64).numpy()
        if len(states) != len(generators):
            raise ValueError(
                f"there must be one generator a row, got {len(generators)} for {len(states)} rows"
            )
        actions = []
        for state, generator in zip(states, generators, strict=True):
            if generator not in self._episodes:
                self._episodes[generator] = Demonstrator()
            actions.append(self._episodes[generator].act(state))
        return torch.tensor(np.stack(actions), dtype=torch.float32)[:, None]


policy = ExpertPolicy  # `run_eval.py --policy envs.expert:policy`

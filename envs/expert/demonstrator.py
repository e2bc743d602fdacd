"""A demonstrator that solves PushT: it plans strokes in closed form and carries them out.

What it does is a function of the state and of the plan it is carrying out; a plan is searched anew
every few steps and given up only for a clearly better one. No plan is drawn at random. Recorded
episodes aim a few px beside the goal at first, as a person's do, and correct that at the end: only
so do they show how small errors are mended.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from envs.argument_checks import check_vector
from envs.expert import pushes
from envs.expert.paths import NODES, SLIDE, Ways
from envs.expert.plan import Plan
from envs.expert.planner import Planner
from envs.expert.pushes import Floats
from envs.physics.dynamics import BOARD, World
from envs.physics.geometry import coverage

SUCCESS_COVERAGE = 0.95
LAG = 2.0  # steps: at a steady speed the agent runs this far behind its target
SEARCH_EVERY = 5  # steps, while the T moves
PATIENCE = 12  # steps without a search while it does not: the agent is on its way
BROKEN_PROMISE = 2.0  # steps by which a plan may turn out dearer before it is searched anew
FOLLOW_THROUGH = 2.0  # px beyond a stroke's end, so that it is passed and not crept up to
MAX_STEPS = 300
AIM_ERROR = (8.0, 8.0, 0.16)  # px, px, rad: standard deviations of where an episode first aims
AIM_HIT = 2.5  # px: as near as this counts as there


@dataclass(frozen=True)
class Episode:
    """One demonstration: the states (L, 5) before each action, and the actions (L, 2), float32.

    `max_coverage` is the highest after any action; `success` says that it exceeded 0.95.
    """

    states: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    max_coverage: float
    success: bool


class Demonstrator:
    """Chooses one action a step; remembers the plan it is carrying out.

    `first_aim` (3,) is a pose in the goal's frame (px, px, rad), near zero, that the T is brought
    to before it is brought to the goal.
    """

    def __init__(self, planner: Planner | None = None, first_aim: Floats | None = None) -> None:
        self._planner = planner or Planner()
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
        ways = Ways(agent, np.logical_and.reduce((corners > 0) & (corners < BOARD), axis=-1))
        plan = self._plan = self._next_plan(self._from_aim(pose), ways)
        return np.clip(self._aim(pose, plan, ways), 0.0, BOARD)

    def _from_aim(self, pose: Floats) -> Floats:
        """Return the pose (3,) in the frame of what is aimed at; an aim that is hit is dropped."""
        if self._first_aim is None:
            return pose
        seen = pushes.seen_from(self._first_aim, pose)
        if pushes.distance(seen) >= AIM_HIT:
            return seen
        self._first_aim = self._plan = None
        return pose

    def _next_plan(self, pose: Floats, ways: Ways) -> Plan:
        old, still = self._plan, self._pose is not None and np.array_equal(pose, self._pose)
        self._pose = pose
        self._age += 1
        if old is not None and still and self._age < PATIENCE:
            return old
        if old is not None and self._age < SEARCH_EVERY:
            plan = self._planner.follow(pose, ways, old)
            if plan is not None and plan.cost < old.cost + BROKEN_PROMISE:
                return plan
        self._age = 0
        return self._planner.search(pose, ways, old)

    def _aim(self, pose: Floats, plan: Plan, ways: Ways) -> Floats:
        """Return the point on the board that lies a fixed way ahead of the agent on its course."""
        style = self._planner.style
        way = ways.points(plan.face[0], plan.offset[0])
        legs = np.linalg.norm(np.diff(way, axis=0), axis=1)
        near = legs.sum() < LAG * style.push_speed
        ahead = LAG * (style.push_speed if near else style.travel_speed)
        if legs.sum() >= ahead:
            passed = np.cumsum(legs)
            k = int(np.searchsorted(passed, ahead))
            share = (ahead - (passed[k] - legs[k])) / legs[k]
            target = way[k] + share * (way[k + 1] - way[k])
        else:
            pose, target = _along_strokes(pose, plan, ahead - float(legs.sum()))
        aim: Floats = pushes.to_board(pose, target[None])[0]
        return aim


def _along_strokes(pose: Floats, plan: Plan, ahead: float) -> tuple[Floats, Floats]:
    """Return the T's pose and the agent, in its frame, when the agent has pushed `ahead` px."""
    for k, (face, offset) in enumerate(zip(plan.face, plan.offset, strict=True)):
        last = k + 1 == len(plan.face)
        goes_on = not last and plan.face[k + 1] == face and abs(plan.offset[k + 1] - offset) < SLIDE
        speed = float(pushes.agent_speed(face, offset))
        end = float(plan.length[k]) + (0.0 if goes_on else FOLLOW_THROUGH)
        length = min(ahead / speed, end)
        pose = pushes.pushed(pose, face, offset, np.array(length))
        ahead -= length * speed
        if not goes_on or ahead <= 0:
            break
    return pose, pushes.agent_point(face, offset)


def plan_episode(seed: int, max_steps: int = MAX_STEPS) -> Episode:
    """Demonstrate from the legacy reset of `seed` until coverage exceeds 0.95 or steps run out.

    The recorded actions, stepped again from that reset, give the recorded states exactly.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    world = World()
    world.reset(seed)
    first_aim = np.random.default_rng(seed).normal(0.0, AIM_ERROR)
    demonstrator = Demonstrator(_planner(), first_aim)
    states: list[npt.NDArray[np.float32]] = []
    actions: list[npt.NDArray[np.float32]] = []
    best = 0.0
    while len(actions) < max_steps and best <= SUCCESS_COVERAGE:
        state = world.state
        # What is stored is what is carried out: float32.
        action = demonstrator.act(state).astype(np.float32)
        world.step(action)
        states.append(state.astype(np.float32))
        actions.append(action)
        best = max(best, coverage(*world.state[2:]))
    return Episode(np.stack(states), np.stack(actions), best, best > SUCCESS_COVERAGE)


@functools.cache
def _planner() -> Planner:
    """The planner's tables, made once a process; they hold no state."""
    return Planner()


class ExpertPolicy:
    """The demonstrator behind a policy's interface, for evaluation as the upper bound.

    An episode's plan is remembered under its generator, so rows may come in any order and leave.
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
                self._episodes[generator] = Demonstrator(_planner())
            actions.append(self._episodes[generator].act(state))
        return torch.tensor(np.stack(actions), dtype=torch.float32)[:, None]


def policy() -> ExpertPolicy:
    """Return a fresh closed-loop demonstrator: `run_eval.py --policy envs.expert:policy`."""
    return ExpertPolicy()

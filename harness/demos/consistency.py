"""Do demonstrations follow from the exact world? A sample of episodes is compared with it.

The agent is driven by a linear law that no contact disturbs, so each step's residual tells whether
the actions are what drove it, and another reading of them (relative, late, swapped, ...) without a
residual tells what they are instead. The block's readings are compared in short replays that begin
at a first push, where no contact is hidden, and images with drawings of their states. What another
reading explains cannot be right as it stands; what none explains is odd.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.physics.dynamics import BOARD, CENTRE_OF_GRAVITY, DAMPING, DT, STIFFNESS, SUBSTEPS, World
from envs.physics.geometry import GOAL_POSE, coverage, keypoints
from envs.rendering import observations
from harness.demos.goals import pose
from harness.demos.source import Source
from ibc.data import demos as ibc_demos
from ibc.data.demos import Demos

EPISODES, IMAGE_EPISODES = 30, 8  # sampled of each data set
KEYPOINT_PX = 5.0  # the human recording's keypoints are up to 2 px off while the block moves
AGENT_PX = 1.0  # a residual above is no rounding
BLOCK_PX = 3.0  # contacts that began before the replay move the block a little
PUSH_STEPS = 8
PUSHED_PX = 5.0  # a replay in which the block moves less tells nothing
MOVING_PX, MOVING_STEPS = 1.0, 8
AT_REST_PX = 1e-3  # of the block: nothing touches it
BETTER = 5.0  # a reading explains what another does not if its residual is so many times smaller
AT_GOAL = 0.5  # the coverage of an episode that ends on the goal
MOST_STEPS_LATE = 5
BLOCK_RADIUS = 60.0  # px: an angle's error counts as the way of a point so far from the centre

Floats = NDArray[np.float64]
Readings = Mapping[str, Callable[[Floats], Floats]]


@dataclass
class Findings:
    """What cannot be right, and what is odd: one line each, with the array and an episode."""

    wrong: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


def compare(source: Source, demos: Demos, modes: Iterable[str]) -> Findings:
    """Compare a sample of each data set with the world; 0.1 s for 30 episodes.

    demos: those of the source, joined. modes: the observations that are to be used, of "state",
    "keypoints" and "image"; what only others need is not looked at.
    """
    modes, found = set(modes), Findings()
    ends = demos.episode_ends
    first = 0
    for path, count in zip(source.paths, demos.sets or (len(ends),), strict=True):
        episodes = np.arange(first, first + count)
        first += count
        chosen = episodes[np.unique(np.linspace(0, count - 1, min(count, EPISODES)).astype(int))]
        sample = _Sample(demos, episodes, chosen.tolist())
        of_set = Findings()
        _agent(sample, of_set)
        if not (of_set.wrong or of_set.odd):  # replays need the actions
            _block(sample, of_set)
        _goal(sample, of_set)
        if "keypoints" in modes:
            _keypoints(sample, of_set)
        if "image" in modes:
            _images(sample, path, of_set)
        named = f"{path.name}: " if len(source.paths) > 1 else ""
        found.wrong += [named + line for line in of_set.wrong]
        found.odd += [named + line for line in of_set.odd]
    return found


@dataclass(frozen=True)
class _Sample:
    """Some episodes of one data set."""

    demos: Demos
    episodes: NDArray[np.int64]  # all of the set
    chosen: Sequence[int]

    def number(self, episode: int) -> int:
        """Return the number of an episode within its set."""
        return int(episode - self.episodes[0])

    def rows(self, episode: int) -> slice:
        return slice(int(self.demos.episode_starts[episode]), int(self.demos.episode_ends[episode]))

    def states(self, episode: int) -> Floats:
        return self.demos.state[self.rows(episode)].astype(np.float64)

    def actions(self, episode: int) -> Floats:
        return self.demos.action[self.rows(episode)].astype(np.float64)


class _Verdicts:
    """Which reading explains each episode, and the sentences that follow for the data set."""

    def __init__(self, sample: _Sample, tolerance: float) -> None:
        self.sample, self.tolerance = sample, tolerance
        self.explained: dict[str, list[int]] = {}
        self.odd: list[int] = []
        self.residuals: dict[int, float] = {}
        self.judged = 0

    def add(self, episode: int, stored: float, others: Callable[[], Mapping[str, float]]) -> None:
        """Judge an episode by the residuals (px) of its arrays as stored and read otherwise."""
        self.judged += 1
        self.residuals[episode] = stored
        if stored <= self.tolerance / BETTER:
            return
        residuals = others()
        best = min(residuals, key=residuals.__getitem__)
        if residuals[best] < min(self.tolerance, stored / BETTER):
            self.explained.setdefault(best, []).append(episode)
        elif stored > self.tolerance:
            self.odd.append(episode)

    def tell(self, array: str, unexplained: str, found: Findings) -> None:
        """Add the sentences: another reading of most episodes is wrong, of a few is odd."""
        for reading, episodes in self.explained.items():
            lines = found.wrong if 2 * len(episodes) > self.judged else found.odd
            lines.append(f"{array}: {reading}, {self._where(episodes)} as stored")
        if self.odd:
            found.odd.append(f"{array}: {unexplained}, {self._where(self.odd)}")

    def _where(self, episodes: list[int]) -> str:
        number = self.sample.number(episodes[0])
        return (
            f"in {len(episodes)} of {self.judged} sampled episodes; the first is episode {number}, "
            f"{self.residuals[episodes[0]]:.1f} px off"
        )


def _law() -> tuple[float, float, float, float]:
    """Return how a step of the agent depends on the target's offset e (px) and its velocity v.

    It moves by a e + b v, and its velocity becomes c e + d v.
    """
    columns = []
    for offset, velocity in ((1.0, 0.0), (0.0, 1.0)):
        moved = 0.0
        for _ in range(SUBSTEPS):
            velocity += (STIFFNESS * (offset - moved) - DAMPING * velocity) * DT
            moved += velocity * DT
        columns.append((moved, velocity))
    (a, c), (b, d) = columns
    return a, b, c, d


_A, _B, _C, _D = _law()


def _residual(agent: Floats, target: Floats) -> float:
    """Return the median distance (px) of the agent (n, 2) from where targets (n, 2) drive it.

    Two steps of the law without the velocity, which is not recorded. NaN: a target is not known.
    """
    e = target - agent
    step = agent[1:] - agent[:-1]
    ahead = _A * e[1:-1] + _B * _C * e[:-2] + _D * (step[:-1] - _A * e[:-2])
    off = np.linalg.norm(step[1:] - ahead, axis=1)
    known = np.isfinite(off) & (np.linalg.norm(step[1:], axis=1) > MOVING_PX)
    return float(np.median(off[known])) if known.sum() >= MOVING_STEPS else math.inf


def _shifted(values: Floats, steps: int) -> Floats:
    """Return row t + steps at row t, NaN where there is none."""
    moved = np.full_like(values, np.nan)
    if steps > 0:
        moved[:-steps] = values[steps:]
    else:
        moved[-steps:] = values[:steps]
    return moved


def _other_targets(agent: Floats, action: Floats) -> dict[str, Floats]:
    """Return the targets (n, 2) that actions (n, 2) mean if they are read otherwise."""
    y_up = np.stack([action[:, 0], BOARD - action[:, 1]], axis=1)
    found = {
        "actions must be targets on the board, these are relative to the agent": agent + action,
        "actions must be x, y, these are y, x": action[:, ::-1],
        "y must run downwards, in these actions it runs upwards": y_up,
    }
    for steps in range(1, min(MOST_STEPS_LATE, len(action) - 1) + 1):
        name = f"{steps} step{'s' if steps > 1 else ''}"
        rule = "row t must hold the action after observation t, these are"
        found[f"{rule} {name} late"] = _shifted(action, steps)
        found[f"{rule} {name} early"] = _shifted(action, -steps)
    return found


def _other_residuals(agent: Floats, action: Floats) -> dict[str, float]:
    found = {name: _residual(agent, a) for name, a in _other_targets(agent, action).items()}
    reached = float(np.median(np.linalg.norm(agent[1:] - action[:-1], axis=1)))
    return {**found, "actions must be targets, these are the positions that follow": reached}


def _agent(sample: _Sample, found: Findings) -> None:
    verdicts = _Verdicts(sample, AGENT_PX)
    for episode in sample.chosen:
        agent, action = sample.states(episode)[:, :2], sample.actions(episode)
        stored = _residual(agent, action)
        if math.isfinite(stored):  # else too short, or the agent hardly moves
            verdicts.add(episode, stored, partial(_other_residuals, agent, action))
    verdicts.tell("data/action", "the agent must go where the actions drive it, it does not", found)


def _from_centre(states: Floats) -> Floats:
    """Return states whose block's position is that of its frame, not of its centre of gravity."""
    moved, (_, down) = states.copy(), CENTRE_OF_GRAVITY
    moved[:, 2] += down * np.sin(states[:, 4])
    moved[:, 3] -= down * np.cos(states[:, 4])
    return moved


def _angle(change: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    return lambda states: np.column_stack([states[:, :4], change(states[:, 4])])


_OTHER_STATES: Readings = {
    "the block's angle must be in rad, these are degrees": _angle(np.deg2rad),
    "the block's angle must turn from x to y, these turn from y to x": _angle(np.negative),
    "the block's angle is 0 where its stem points to +y, these are 90 degrees less": _angle(
        lambda angle: angle + np.pi / 2
    ),
    "the block's angle is 0 where its stem points to +y, these are 90 degrees more": _angle(
        lambda angle: angle - np.pi / 2
    ),
    "the block's angle is 0 where its stem points to +y, these differ by 180 degrees": _angle(
        lambda angle: angle + np.pi
    ),
    "the block's position must be its bar's middle, this is its centre of gravity": _from_centre,
}


@dataclass(frozen=True)
class _Push:
    """Steps of an episode from one before the block first moves, and the agent's velocity there."""

    world: World
    states: Floats
    actions: Floats
    velocity: Floats

    def off(self, read: Callable[[Floats], Floats] | None = None) -> float:
        """Return how far (px) a replay leads from the states, which `read` reads otherwise."""
        recorded = self.states if read is None else read(self.states)
        self.world.set_state(recorded[0], self.velocity.tolist())
        furthest = 0.0
        for action, after in zip(self.actions.tolist(), recorded[1:].tolist(), strict=False):
            self.world.drive(*action)
            _, _, x, y, angle = self.world.values
            turn = abs(math.remainder(angle - after[4], 2 * math.pi))
            furthest = max(furthest, math.hypot(x - after[2], y - after[3]) + BLOCK_RADIUS * turn)
        return furthest

    def off_otherwise(self) -> dict[str, float]:
        """Return the same for every other reading."""
        return {name: self.off(read) for name, read in _OTHER_STATES.items()}


def _block(sample: _Sample, found: Findings) -> None:
    verdicts, world = _Verdicts(sample, BLOCK_PX), World()
    for episode in sample.chosen:
        states, actions = sample.states(episode), sample.actions(episode)
        moves = np.linalg.norm(np.diff(states[:, 2:4], axis=0), axis=1)
        onsets = (moves[1:] > MOVING_PX / 2) & (moves[:-1] < AT_REST_PX)
        start = int(np.argmax(onsets)) if onsets.any() else len(states)
        window = slice(start, start + PUSH_STEPS + 1)
        if not moves[window].sum() >= PUSHED_PX:
            continue
        states, actions = states[window], actions[window]
        velocity = (states[1, :2] - states[0, :2] - _A * (actions[0] - states[0, :2])) / _B
        push = _Push(world, states, actions, velocity)
        verdicts.add(episode, push.off(), push.off_otherwise)
    verdicts.tell("data/state", "the block must move as it is pushed, it does not", found)


def _goal(sample: _Sample, found: Findings) -> None:
    demos = sample.demos
    last = {k: demos.state[demos.episode_ends[k] - 1, 2:].astype(float) for k in sample.chosen}
    if not np.isfinite(np.array(list(last.values()))).all():
        return
    elsewhere = [k for k, ends in last.items() if coverage(*ends) < AT_GOAL]
    if 2 * len(elsewhere) <= len(last):
        return
    of_set = sample.episodes
    part = Demos(
        demos.path, "", demos.action, demos.state, demos.keypoints, demos.episode_ends[of_set], None
    )
    [goal] = ibc_demos.goals(part)
    where = "they have no common end" if goal is None else f"most end around {pose(goal)}"
    on_goal = len(last) - len(elsewhere)
    found.odd.append(
        f"data/state: demonstrations end on the goal, {pose(GOAL_POSE)}, "
        f"{on_goal or 'none'} of {len(last)} sampled episodes {'do' if on_goal else 'does'} "
        f"(the first that does not is episode {sample.number(elsewhere[0])}); {where}"
    )


def _keypoints(sample: _Sample, found: Findings) -> None:
    rows = slice(sample.rows(int(sample.episodes[0])).start, sample.rows(sample.episodes[-1]).stop)
    states, stored = sample.demos.state[rows].astype(np.float64), sample.demos.keypoints[rows]
    apart = np.abs(keypoints(states) - stored).max(axis=1)
    if (wrong := int((apart > KEYPOINT_PX).sum())) > 0:
        found.wrong.append(
            f"data/keypoint, data/state: the keypoints must be the block's, {wrong} rows are more "
            f"than {KEYPOINT_PX:g} px off, the first is {int(np.argmax(apart > KEYPOINT_PX))}"
        )


def _images(sample: _Sample, path: Path, found: Findings) -> None:
    """Compare one image of some episodes, in which the agent is fast, with drawings."""
    demos = sample.demos
    chosen = sample.chosen[:: -(-len(sample.chosen) // IMAGE_EPISODES)]
    offset = sample.rows(int(sample.episodes[0])).start
    rows = {}
    for episode in chosen:
        within = sample.rows(episode)
        agent = demos.state[within, :2]
        if len(agent) >= 3 and np.isfinite(demos.state[within]).all():
            across = np.linalg.norm(agent[2:] - agent[:-2], axis=1)
            rows[episode] = within.start + 1 + int(np.argmax(across))
    images = ibc_demos.images_at(path, [row - offset for row in rows.values()])
    if images is None:
        return
    own = {episode: _drawn(demos, row) for episode, row in rows.items()}
    said: dict[str, list[int]] = {}
    for (episode, row), image in zip(rows.items(), images, strict=True):
        stored, swapped = _apart(image, own[episode]), _apart(image[..., ::-1], own[episode])
        others = [_apart(image, drawn) for other, drawn in own.items() if other != episode]
        beside = {step: _apart(image, _drawn(demos, row + step)) for step in (-1, 1)}
        nearest = min(beside, key=beside.__getitem__)
        if swapped < stored / 2:
            said.setdefault("images must be RGB, these look like BGR", []).append(episode)
        elif min(others, default=math.inf) < stored:
            said.setdefault("images must show their rows' states, these do not", []).append(episode)
        elif beside[nearest] < stored / 2:
            when = "late" if nearest < 0 else "early"
            rule = f"images must show their rows' states, these are a step {when}"
            said.setdefault(rule, []).append(episode)
    for rule, episodes in said.items():
        found.odd.append(
            f"{ibc_demos.image_array(path)}: {rule}, in {len(episodes)} of {len(rows)} sampled "
            f"episodes; the first is episode {sample.number(episodes[0])}"
        )


def _drawn(demos: Demos, row: int) -> NDArray[np.uint8]:
    drawn: NDArray[np.uint8] = observations.render_observations(demos.state[row : row + 1])[0]
    return drawn


def _apart(image: NDArray[np.uint8], drawn: NDArray[np.uint8]) -> float:
    return float(np.abs(image.astype(np.int16) - drawn).mean())

"""Statistics of a data set: lengths, speeds, smoothness, replay error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from envs.physics.dynamics import World
from envs.physics.geometry import coverage
from harness.config.protocol import THRESHOLDS
from harness.core.text import one_line
from harness.demos import correction_marks
from harness.demos.source import Source
from ibc.data.demos import Demos

IDLE_PX = 1.0  # px in a step, as in evaluations
SAME_START_PX = 1e-3
DRIFT_PX = 5.0  # a contact that began before the episode cannot be replayed exactly
QUANTILES = (0, 5, 50, 95, 100)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """One number per episode (E,); speed and reach have one per step (L,).

    coverage: the maximum in a replay of the actions, in [0, 1]; final_coverage: that at its end;
    drift_px: the largest distance between replayed and recorded positions; jerk: mean norm of the
    third difference of the actions (px/step^3; NaN below four steps); idle: share of steps in which
    the agent moves less than 1 px; seeded: whether the episode begins at a known reset; speed: px
    that the agent moves in a step; reach: px from the agent to its target.
    """

    lengths: NDArray[np.int64]
    coverage: Floats
    final_coverage: Floats
    drift_px: Floats
    jerk: Floats
    idle: Floats
    seeded: NDArray[np.bool_]
    speed: Floats
    reach: Floats


def statistics(demos: Demos) -> Statistics:
    """Replay every episode in the simulator.

    Without recorded seeds, an episode's number is tried, as in the human recording. Corrections
    begin with the agent's velocity.
    """
    world, rows, speeds = World(), [], []
    total = len(demos.episode_ends)
    seeds = range(total) if demos.seeds is None else demos.seeds.tolist()
    marks = correction_marks.read(demos.path, total)
    velocities = {} if marks is None else dict(enumerate(m.agent_velocity for m in marks.episodes))
    ends = zip(demos.episode_starts, demos.episode_ends, strict=True)
    for number, (seed, (start, end)) in enumerate(zip(seeds, ends, strict=True)):
        recorded = demos.state[start:end].astype(np.float64)
        actions = demos.action[start:end].astype(np.float64)
        seeded = _begin(world, seed, recorded[0], velocities.get(number))
        states = np.empty((len(actions), 5))
        for t, action in enumerate(actions):
            world.step(action)
            states[t] = world.state
        covered = np.array([coverage(*state[2:]) for state in states])
        drift = np.abs(states[:-1, :4] - recorded[1:, :4]).max(initial=0.0)
        third = np.linalg.norm(np.diff(actions, 3, axis=0), axis=1)
        agents = np.concatenate([recorded[:, :2], states[-1:, :2]])
        speed = np.linalg.norm(np.diff(agents, axis=0), axis=1)
        speeds.append(speed)
        jerk = third.mean() if len(third) else np.nan
        idle = (speed < IDLE_PX).mean()
        rows.append((covered.max(), covered[-1], drift, jerk, idle, seeded))
    best, final, drift, jerk, idle, seeded = np.array(rows, dtype=np.float64).T
    reach = np.linalg.norm(demos.action - demos.state[:, :2], axis=1)
    return Statistics(
        lengths=demos.episode_ends - demos.episode_starts,
        coverage=best,
        final_coverage=final,
        drift_px=drift,
        jerk=jerk,
        idle=idle,
        seeded=seeded.astype(bool),
        speed=np.concatenate(speeds),
        reach=reach.astype(np.float64),
    )


def _begin(world: World, seed: int, first: Floats, velocity: tuple[float, float] | None) -> bool:
    """Put the world at an episode's start; return whether that is the reset with this seed.

    The reset is preferred: a block that starts in contact settles as it did in the recording.
    velocity: of a correction's agent.
    """
    if velocity is not None:
        world.set_state(first, velocity)
        return False
    world.reset(seed)
    if np.abs(world.state[:4] - first[:4]).max() < SAME_START_PX:
        return True
    world.set_state(first)
    return False


def table(found: Statistics) -> Table:
    """Return a row for each quantity with its mean and its quantiles."""
    drawn = Table()
    drawn.add_column("quantity")
    for heading in ("mean", "min", "5 %", "median", "95 %", "max"):
        drawn.add_column(heading, justify="right")
    for name, values, digits in (
        ("episode length (steps)", found.lengths, 0),
        ("coverage reached by replay", found.coverage, 3),
        ("coverage at the end", found.final_coverage, 3),
        ("agent's speed (px/step)", found.speed, 1),
        ("target's distance (px)", found.reach, 1),
        ("action jerk (px/step^3)", found.jerk, 1),
        ("idle share of steps", found.idle, 3),
    ):
        drawn.add_row(name, *_cells(values, digits))
    return drawn


def lines(source: Source, demos: Demos, found: Statistics) -> list[str]:
    """Return the lines that describe the data set as a whole."""
    total = len(demos.episode_ends)
    images = "stored" if demos.pixels is not None else "rendered when needed"
    reached = ", ".join(f"{(found.coverage > c).sum()} above {c:.2f}" for c in THRESHOLDS)
    drifted = int((found.drift_px > DRIFT_PX).sum())
    marks = correction_marks.read(demos.path, total)
    return [
        one_line(source),
        f"{total} episodes, {len(demos.action)} steps, images {images}",
        *([] if marks is None else [str(marks)]),
        f"coverage of {total} episodes: {reached}",
        f"replay error: median {np.median(found.drift_px):.1e} px, {drifted} episodes above "
        f"{DRIFT_PX:g} px; {int(found.seeded.sum())} episodes begin at a known reset",
        f"fingerprint: {demos.fingerprint}",
    ]


def _cells(values: NDArray[np.float64] | NDArray[np.int64], digits: int) -> list[str]:
    known = values[np.isfinite(values)]
    if not len(known):
        return ["-"] * (len(QUANTILES) + 1)
    numbers = [float(known.mean()), *np.percentile(known, QUANTILES).tolist()]
    return [f"{number:.{digits}f}" for number in numbers]

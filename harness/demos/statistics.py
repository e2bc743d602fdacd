"""Statistics of a data set: lengths, speeds, smoothness, replay error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from envs.physics.dynamics import World
from envs.physics.geometry import coverage_many, keypoints
from harness.config.protocol import THRESHOLDS
from harness.core.text import one_line
from harness.demos.source import Source
from ibc.data.demos import Demos

IDLE_PX = 1.0  # as evaluation counts it
SAME_START_PX = 1e-3
KEYPOINT_PX = 5.0  # the human recording's keypoints are up to 2 px off while the block moves
STRAYED_PX = 5.0  # contacts that begin before an episode does cannot be replayed exactly
STRAY_SHARE = 0.5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """One number per episode (E,), except the speeds, one per step (L,).

    coverage: the most that a replay of the actions reaches, in [0, 1]; final_coverage: at its end;
    drift_px: how far the replayed positions are from the recorded ones, at most; speed: px that the
    agent moves in a step; reach: px from the agent to its target; jerk: mean norm of the third
    difference of the actions (px per step cubed; NaN below four steps); idle: share of steps that
    move the agent by less than 1 px; seeded: whether the episode began at a known reset.
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
    """Replays every episode in the exact world.

    An episode without a recorded seed is tried with its number, as the human recording has it.
    """
    world = World()
    rows = []
    speeds = []
    seeds = range(len(demos.episode_ends)) if demos.seeds is None else demos.seeds.tolist()
    for seed, start, end in zip(seeds, demos.episode_starts, demos.episode_ends, strict=True):
        recorded = demos.state[start:end].astype(np.float64)
        actions = demos.action[start:end].astype(np.float64)
        seeded = _begin(world, seed, recorded[0])
        states = np.empty((len(actions), 5))
        for t, action in enumerate(actions):
            world.step(action)
            states[t] = world.state
        coverage = coverage_many(states[:, 2:])
        drift = np.abs(states[:-1, :4] - recorded[1:, :4]).max(initial=0.0)
        third = np.linalg.norm(np.diff(actions, 3, axis=0), axis=1)
        agents = np.concatenate([recorded[:, :2], states[-1:, :2]])
        speed = np.linalg.norm(np.diff(agents, axis=0), axis=1)
        speeds.append(speed)
        rows.append(
            (
                coverage.max(),
                coverage[-1],
                drift,
                third.mean() if len(third) else np.nan,
                (speed < IDLE_PX).mean(),
                seeded,
            )
        )
    coverage, final, drift, jerk, idle, seeded = np.array(rows, dtype=np.float64).T
    reach = np.linalg.norm(demos.action - demos.state[:, :2], axis=1)
    return Statistics(
        lengths=demos.episode_ends - demos.episode_starts,
        coverage=coverage,
        final_coverage=final,
        drift_px=drift,
        jerk=jerk,
        idle=idle,
        seeded=seeded.astype(bool),
        speed=np.concatenate(speeds),
        reach=reach.astype(np.float64),
    )


def inconsistencies(demos: Demos) -> list[str]:
    """Where readable arrays contradict each other or the world; each names its arrays."""
    faults = []
    apart = np.abs(keypoints(demos.state.astype(np.float64)) - demos.keypoints).max(axis=1)
    if (wrong := int((apart > KEYPOINT_PX).sum())) > 0:
        faults.append(
            f"data/keypoint, data/state: the keypoints must be the block's, {wrong} rows are more "
            f"than {KEYPOINT_PX:g} px off, the first is {int(np.argmax(apart > KEYPOINT_PX))}"
        )
    strayed = int((statistics(demos).drift_px > STRAYED_PX).sum())
    if strayed > STRAY_SHARE * len(demos.episode_ends):
        faults.append(
            f"data/action, data/state: replaying the actions must lead to the states, in {strayed} "
            f"of {len(demos.episode_ends)} episodes it leads more than {STRAYED_PX:g} px away"
        )
    return faults


def _begin(world: World, seed: int, first: Floats) -> bool:
    """Puts the world where an episode began; whether that is the reset with this seed.

    The reset is preferred: it lets a block that begins in touch with something settle as it did
    when the episode was recorded.
    """
    world.reset(seed)
    if np.abs(world.state[:4] - first[:4]).max() < SAME_START_PX:
        return True
    world.set_state(first)
    return False


QUANTILES = (0, 5, 50, 95, 100)


def table(found: Statistics) -> Table:
    """A row for each quantity with its mean and its quantiles."""
    drawn = Table()
    drawn.add_column("quantity")
    for heading in ("mean", "least", "5 %", "median", "95 %", "most"):
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
    """What is said of the data set as a whole."""
    total = len(demos.episode_ends)
    images = "stored" if demos.pixels is not None else "drawn when needed"
    reached = ", ".join(f"{(found.coverage > c).sum()} above {c:.2f}" for c in THRESHOLDS)
    strayed = int((found.drift_px > STRAYED_PX).sum())
    return [
        one_line(source),
        f"{total} episodes, {len(demos.action)} steps, images {images}",
        f"coverage of {total} episodes: {reached}",
        f"replay against the record: median {np.median(found.drift_px):.1e} px off, {strayed} "
        f"episodes beyond {STRAYED_PX:g} px; {int(found.seeded.sum())} begin at a known reset",
        f"fingerprint: {demos.fingerprint}",
    ]


def _cells(values: NDArray[np.float64] | NDArray[np.int64], digits: int) -> list[str]:
    known = values[np.isfinite(values)]
    if not len(known):
        return ["-"] * (len(QUANTILES) + 1)
    numbers = [float(known.mean()), *np.percentile(known, QUANTILES).tolist()]
    return [f"{number:.{digits}f}" for number in numbers]

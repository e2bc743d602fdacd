"""Measures the parts of one step, in microseconds, on the built-in demonstrations.

    python -m benchmarks.world_profile [--rounds 40] [--data data/expert.zarr]

Every step of some episodes is repeated; the shortest time of each step counts, because other load
only slows a machine down. The parts are timed separately and need not add up.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import envs
from envs.physics.dynamics import DT, World
from envs.physics.geometry import coverage, keypoints
from envs.rendering import observations

ROOT = Path(__file__).resolve().parents[1]
Episode = tuple[int, list[list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description="the time of the parts of one step")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=6)
    parser.add_argument("--data", type=Path, default=ROOT / "data/expert.zarr")
    arguments = parser.parse_args()
    root = zarr.open_group(arguments.data, mode="r")
    ends = root["meta/episode_ends"][: arguments.episodes]
    actions = np.split(root["data/action"][: ends[-1]].astype(np.float64), ends[:-1])
    seeds = root["meta/seeds"][: arguments.episodes].tolist()
    episodes = [(seed, rows.tolist()) for seed, rows in zip(seeds, actions, strict=True)]
    states = visited(episodes)
    print("| | us |\n|---|--:|")
    for name, rounds, laps in (
        ("PushTEnv.step, state", 1, env_laps("state", episodes)),
        ("PushTEnv.step, keypoints", 1, env_laps("keypoints", episodes)),
        ("PushTEnv.step, image", 3, env_laps("image", episodes)),
        ("World.step: checked, with contacts", 1, world_laps(episodes, World.step, False)),
        ("World.drive: ten substeps", 1, world_laps(episodes, World.drive, True)),
        ("Chipmunk alone: the same calls of it", 1, chipmunk_laps(episodes)),
        ("coverage", 1, call_laps(states, lambda state: coverage(*state[2:]))),
        ("keypoints", 1, call_laps(states, keypoints)),
        ("Renderer.observation", 3, call_laps(states, observations.Renderer().observation)),
    ):
        print(f"| {name} | {shortest(laps, max(arguments.rounds // rounds, 3)):.1f} |")


Lap = Callable[[], Iterator[Callable[[], Any]]]


def shortest(lap: Lap, rounds: int) -> float:
    """Return the mean over the steps of each step's shortest time in microseconds."""
    times = []
    for _ in range(rounds):
        row = []
        for step in lap():
            begun = time.perf_counter()
            step()
            row.append(time.perf_counter() - begun)
        times.append(row)
    return float(np.min(times, axis=0).mean() * 1e6)


def env_laps(mode: str, episodes: list[Episode]) -> Lap:
    env = envs.PushTEnv(mode, max_episode_steps=None)

    def lap() -> Iterator[Callable[[], Any]]:
        for seed, actions in episodes:
            env.reset(seed=seed)
            for action in np.array(actions):
                yield functools.partial(env.step, action)

    return lap


def world_laps(episodes: list[Episode], step: Callable[..., Any], spread: bool) -> Lap:
    world = World()

    def lap() -> Iterator[Callable[[], Any]]:
        for seed, actions in episodes:
            world.reset(seed)
            for action in actions:
                arguments = action if spread else (np.array(action),)
                yield functools.partial(step, world, *arguments)

    return lap


def chipmunk_laps(episodes: list[Episode]) -> Lap:
    world = World("cffi")
    recorded = []
    for seed, actions in episodes:
        world.reset(seed)
        velocities = []
        for action in actions:
            world.drive(*action)
            velocities.append(bytes(world._bodies._memory))
        recorded.append(velocities)

    def lap() -> Iterator[Callable[[], Any]]:
        for (seed, _), velocities in zip(episodes, recorded, strict=True):
            world.reset(seed)
            for memory in velocities:
                world._bodies._memory[:] = memory
                yield functools.partial(substeps, world._bodies)

    return lap


def substeps(bodies: Any) -> None:
    set_velocity, agent, step, space = bodies._stepping
    for velocity in bodies._velocities:
        set_velocity(agent, velocity)
        step(space, DT)


def call_laps(states: list[Any], function: Callable[[Any], Any]) -> Lap:
    def lap() -> Iterator[Callable[[], Any]]:
        for state in states:
            yield functools.partial(function, state)

    return lap


def visited(episodes: list[Episode]) -> list[Any]:
    world, states = World(), []
    for seed, actions in episodes:
        world.reset(seed)
        for action in actions:
            world.drive(*action)
            states.append(world.values)
    return states


if __name__ == "__main__":
    main()

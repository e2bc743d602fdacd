"""Steps one environment for a while and prints its rate as JSON; started by world.py.

    python world_worker.py ours|peer|chipmunk state|image COUNT WORKLOAD.npz SECONDS

COUNT 0 is a single environment; otherwise that many together: `envs.LockstepPushT` in this process,
or gymnasium's AsyncVectorEnv over gym-pusht with a process for each environment. Both replay the
same demonstrations from the same starts and compute coverage and reward on every step. `chipmunk`
makes only the calls into Chipmunk of these steps. Resets are not timed. It runs in either virtual
environment, so it imports only numpy and the environment's package.
"""

import json
import sys
import time
from typing import Any

import numpy as np


def ours_alone(mode: str, episodes: list[Any], seconds: float) -> tuple[int, float, float]:
    import envs

    env = envs.PushTEnv(mode, max_episode_steps=None)
    return _alone(env, [{"seed": int(e["seed"])} for e in episodes], episodes, seconds)


def peer_alone(mode: str, episodes: list[Any], seconds: float) -> tuple[int, float, float]:
    import gym_pusht  # noqa: F401
    import gymnasium

    env = gymnasium.make("gym_pusht/PushT-v0", obs_type=_peer_mode(mode)).unwrapped
    starts = [{"options": {"reset_to_state": e["draw"]}} for e in episodes]
    return _alone(env, starts, episodes, seconds)


def _alone(
    env: Any, starts: list[dict[str, Any]], episodes: list[Any], seconds: float
) -> tuple[int, float, float]:
    steps, spent, best = 0, 0.0, 0.0
    for k in _laps(len(episodes)):
        env.reset(**starts[k])
        actions = episodes[k]["actions"]
        begun = time.perf_counter()
        for action in actions:
            _, reward, terminated, _, info = env.step(action)
            steps += 1
            if terminated:
                break
        spent += time.perf_counter() - begun
        best += min(info["coverage"] / 0.95, 1.0) - float(reward)
        if spent > seconds:
            break
    assert abs(best) < 1e-6, "reward and coverage disagree"
    return steps, spent, float(info["coverage"])


def ours_together(
    mode: str, count: int, episodes: list[Any], seconds: float
) -> tuple[int, float, float]:
    import envs

    steps, spent = 0, 0.0
    for first in _laps(len(episodes)):
        group = [episodes[(first + i) % len(episodes)] for i in range(count)]
        world = envs.LockstepPushT([int(e["seed"]) for e in group], mode, None)
        world.reset()
        longest = min(len(e["actions"]) for e in group)
        actions = np.stack([e["actions"][:longest] for e in group], axis=1)
        begun = time.perf_counter()
        for action in actions:
            steps += int(world.active.sum())
            world.step(action)
            if not world.active.any():
                break
        spent += time.perf_counter() - begun
        if spent > seconds:
            break
    return steps, spent, float(world.coverage.mean())


def peer_together(
    mode: str, count: int, episodes: list[Any], seconds: float
) -> tuple[int, float, float]:
    import gym_pusht  # noqa: F401
    import gymnasium

    world = gymnasium.make_vec(
        "gym_pusht/PushT-v0", count, vectorization_mode="async", obs_type=_peer_mode(mode)
    )
    steps, spent = 0, 0.0
    for k in _laps(len(episodes)):
        world.reset(options={"reset_to_state": episodes[k]["draw"]})
        actions = np.repeat(episodes[k]["actions"][:, None], count, axis=1)
        begun = time.perf_counter()
        for action in actions:
            _, _, terminated, _, info = world.step(action)
            steps += count
            if terminated.any():
                break
        spent += time.perf_counter() - begun
        if spent > seconds:
            break
    world.close()
    return steps, spent, float(np.mean(info["coverage"]))


def chipmunk_alone(mode: str, episodes: list[Any], seconds: float) -> tuple[int, float, float]:
    from envs.physics.dynamics import DT, World

    world = World("cffi")
    recorded = []
    for episode in episodes:
        world.reset(int(episode["seed"]))
        velocities = []
        for x, y in episode["actions"].tolist():
            world.drive(x, y)
            velocities.append(bytes(world._bodies._memory))
        recorded.append(velocities)
    steps, spent = 0, 0.0
    for k in _laps(len(episodes)):
        world.reset(int(episodes[k]["seed"]))
        bodies = world._bodies
        set_velocity, agent, step, space = bodies._stepping
        memory, each = bodies._memory, bodies._velocities
        begun = time.perf_counter()
        for velocities in recorded[k]:
            memory[:] = velocities
            for velocity in each:
                set_velocity(agent, velocity)
                step(space, DT)
        spent += time.perf_counter() - begun
        steps += len(recorded[k])
        if spent > seconds:
            break
    return steps, spent, 0.0


def _peer_mode(mode: str) -> str:
    return {"state": "state", "image": "pixels_agent_pos"}[mode]


def _laps(count: int) -> Any:
    while True:
        yield from range(count)


def main() -> None:
    world, mode, count, path, seconds = sys.argv[1:]
    stored = np.load(path)
    episodes = [
        {"seed": seed, "draw": draw, "actions": actions.astype(np.float64)}
        for seed, draw, actions in zip(
            stored["seeds"],
            stored["draws"],
            np.split(stored["actions"], stored["ends"][:-1]),
            strict=True,
        )
    ]
    alone, together = {
        "ours": (ours_alone, ours_together),
        "peer": (peer_alone, peer_together),
        "chipmunk": (chipmunk_alone, ours_together),
    }[world]
    for limit in (float(seconds), float(seconds)):  # the first is a warm-up
        if count == "0":
            steps, spent, coverage = alone(mode, episodes, limit)
        else:
            steps, spent, coverage = together(mode, int(count), episodes, limit)
    print(json.dumps({"steps": steps, "seconds": spent, "coverage": coverage}))


if __name__ == "__main__":
    main()

"""Evaluates a checkpoint in AsyncVectorEnv and prints times as JSON; started by evaluation.py.

    python evaluation_peer.py SPEC.json

Runs in gym-pusht's virtual environment, with torch and this project after its packages on the path.
AsyncVectorEnv has a process for each environment; the policy is called on the whole batch in this
process; finished environments are stepped until the last one is done.
"""

import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


class Start(gymnasium.Wrapper):
    """Starts from the state of a seed in this project, and measures each step."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.spent = 0.0
        inner = env.unwrapped
        draw = inner._render

        def timed(*args: Any, **settings: Any) -> Any:
            began = time.process_time()
            drawn = draw(*args, **settings)
            self.spent += time.process_time() - began
            return drawn

        inner._render = timed

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        """Reset to the start of the seed, or to the environment's own."""
        if seed is not None:
            random = np.random.RandomState(seed)
            places = [random.randint(50, 450), random.randint(50, 450)]
            places += [random.randint(100, 400), random.randint(100, 400)]
            options = {"reset_to_state": [*places, random.randn() * 2 * np.pi - np.pi]}
        obs, info = self.env.reset(seed=seed, options=options)
        return obs, {**info, "render_seconds": 0.0, "world_seconds": 0.0}

    def step(self, action: Any) -> Any:
        """Step, with the CPU time of drawing and of the rest in the info."""
        self.spent, began = 0.0, time.process_time()
        obs, reward, terminated, truncated, info = self.env.step(action)
        took = time.process_time() - began
        info = {**info, "render_seconds": self.spent, "world_seconds": took - self.spent}
        return obs, reward, terminated, truncated, info


def make(mode: str, steps: int) -> Any:
    """Return a function that creates one environment in its process."""

    def one() -> Any:
        import gym_pusht  # noqa: F401

        obs_type = {"keypoints": "state", "state": "state", "image": "pixels_agent_pos"}[mode]
        made = gymnasium.make("gym_pusht/PushT-v0", obs_type=obs_type, max_episode_steps=steps)
        return Start(made)

    return one


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    sys.path = [place for place in sys.path if place != str(Path(__file__).parent)]
    sys.path += spec["behind"]  # its own packages come first
    began = time.perf_counter()
    mode, count = spec["mode"], spec["count"]
    # Before torch starts threads, because the processes are forked from this one.
    world = gymnasium.vector.AsyncVectorEnv([make(mode, spec["steps"])] * count)
    import pymunk
    import torch

    from envs.physics.geometry import keypoints
    from harness.core.seeds import episode_generator
    from ibc.policies.factory import load_policy

    assert int(pymunk.version.split(".")[0]) < 7, f"gym-pusht needs its own pymunk, got {pymunk}"
    torch.set_num_threads(spec["threads"])
    policy: Any = load_policy(spec["checkpoint"])
    policy.eval()
    result: dict[str, Any] = {"start": time.perf_counter() - began, "scores": {}, "states": {}}
    spent = dict.fromkeys(("inference", "stepping", "world", "rendering"), 0.0)

    def seen(obs: Any) -> dict[str, Any]:
        if mode == "image":
            return {"image": obs["pixels"].copy(), "agent_pos": obs["agent_pos"].astype("f4")}
        return {mode: (keypoints(obs) if mode == "keypoints" else obs).astype("f4")}

    def predict(frames: Any, generators: Any) -> Any:
        stacked = {n: torch.from_numpy(np.stack([f[n] for f in frames], 1)) for n in frames[-1]}
        return policy.predict_action(stacked, generators).numpy()

    def rollout(seeds: list[int], keep: bool = True) -> None:
        obs, _ = world.reset(seed=seeds)
        if mode != "image" and keep:
            result["states"] |= dict(zip(map(str, seeds), obs.tolist(), strict=True))
        frames = deque([seen(obs)] * policy.obs_horizon, maxlen=policy.obs_horizon)
        generators = [episode_generator(seed) for seed in seeds]
        done, best = np.zeros(count, bool), np.zeros(count)
        while not done.all():
            start = time.perf_counter()
            chunk = predict(frames, generators)
            spent["inference"] += time.perf_counter() - start
            for h in range(chunk.shape[1]):
                start = time.perf_counter()
                obs, reward, terminated, truncated, info = world.step(chunk[:, h])
                spent["stepping"] += time.perf_counter() - start
                for name, key in (("world", "world_seconds"), ("rendering", "render_seconds")):
                    spent[name] += float(np.sum(info.get(key, 0.0)))
                best = np.where(done, best, np.maximum(best, reward))
                done |= terminated | truncated
                frames.append(seen(obs))
                if done.all():
                    break
        if keep:
            result["scores"] |= dict(zip(map(str, seeds), best.tolist(), strict=True))

    seeds = spec["seeds"]
    groups = [seeds[i : i + count] for i in range(0, len(seeds), count)]
    missing = count - len(groups[-1])
    groups[-1] = groups[-1] + list(range(max(seeds) + 1, max(seeds) + 1 + missing))
    began = time.perf_counter()
    for group in groups:
        rollout(group)
        if time.perf_counter() - began > spec["seconds"]:
            break
    wall = time.perf_counter() - began
    world.close()
    done = len(result["scores"])
    wanted = {str(seed) for seed in seeds}
    result["scores"] = {k: v for k, v in result["scores"].items() if k in wanted}
    print(json.dumps({**result, **spent, "wall": wall, "episodes": done}))


if __name__ == "__main__":
    main()

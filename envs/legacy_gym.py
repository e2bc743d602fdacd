"""PushT for the old `gym` package (0.26 and before); importing this module registers it there.

gym 0.26 fails with numpy 2, so it needs a Python environment with numpy < 2, where this package
works too. New code should use gymnasium: `import envs`.
"""

from typing import Any

import gym
import gymnasium
import numpy as np

from envs.pusht import Observation, PushTEnv


class LegacyPushTEnv(gym.Env):  # type: ignore[misc]  # gym has no types
    """`PushTEnv` under the API of gym 0.26: its arguments, observations, rewards and info."""

    metadata = PushTEnv.metadata

    def __init__(self, **arguments: Any) -> None:
        self._env = PushTEnv(**arguments)
        self.render_mode = self._env.render_mode
        self.action_space = _old_space(self._env.action_space)
        self.observation_space = _old_space(self._env.observation_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see `PushTEnv.reset`."""
        super().reset(seed=seed)
        return self._env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Send the agent towards `action` (2,) px for 0.1 s; see `PushTEnv.step`."""
        return self._env.step(action)

    def render(self) -> Any:
        """Return or show a frame; see `PushTEnv.render`."""
        return self._env.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self._env.close()


class OldStepPushTEnv(LegacyPushTEnv):
    """`PushTEnv` under the API before gym 0.26, which Diffusion Policy's wrappers expect.

    Every `reset` uses the seed of the last call of `seed`. `step` returns four values; done is
    success, or the end of the episode where `max_episode_steps` is given.
    """

    def __init__(self, max_episode_steps: int | None = None, **arguments: Any) -> None:
        super().__init__(max_episode_steps=max_episode_steps, **arguments)
        self._seed: int | None = None

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Set the seed of the next resets; None draws a new start for each."""
        self._seed = seed
        return [seed]

    def reset(self) -> Observation:  # type: ignore[override]
        """Start an episode; return the first observation."""
        return self._env.reset(seed=self._seed)[0]

    def step(self, action: Any) -> tuple[Observation, float, bool, dict[str, Any]]:  # type: ignore[override]
        """Send the agent towards `action` (2,) px for 0.1 s: observation, reward, done, info."""
        observation, reward, terminated, truncated, info = self._env.step(action)
        return observation, reward, terminated or truncated, info

    def render(self, mode: str = "human") -> Any:
        """Return a frame (512, 512, 3) in the mode rgb_array; show it in the mode human."""
        self._env.render_mode = "rgb_array" if mode == "rgb_array" else "human"
        return self._env.render()


def _old_space(space: gymnasium.spaces.Space[Any]) -> Any:
    if isinstance(space, gymnasium.spaces.Dict):
        return gym.spaces.Dict({name: _old_space(part) for name, part in space.spaces.items()})
    assert isinstance(space, gymnasium.spaces.Box)
    dtype: Any = np.dtype(space.dtype).type
    return gym.spaces.Box(space.low, space.high, space.shape, dtype)


if "ibc_harness/PushT-v0" not in gym.envs.registration.registry:
    gym.register(
        id="ibc_harness/PushT-v0",
        entry_point="envs.legacy_gym:LegacyPushTEnv",
        kwargs={"max_episode_steps": None},
        max_episode_steps=300,
    )

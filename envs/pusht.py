"""PushT as a gymnasium environment: push the T onto its goal with a disc."""

import math
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import numpy.typing as npt

from envs.argument_checks import ObsMode, check_max_steps, check_obs_mode, check_seed
from envs.physics.dynamics import BOARD, CONTROL_HZ, Values, World
from envs.physics.geometry import SUCCESS_COVERAGE, coverage, keypoints
from envs.rendering.frames import video_frame
from envs.rendering.observations import SIZE, Renderer
from envs.rendering.window import Window

RenderMode = Literal["human", "rgb_array"]
Observation = npt.NDArray[np.float64] | dict[str, npt.NDArray[Any]]

# Margins of the observation space: a hard push can squeeze the block through a wall.
_ROOM = 256.0
_KEYPOINT_ROOM = 384.0


class PushTEnv(gymnasium.Env[Observation, npt.NDArray[np.float64]]):
    """The simulator in which the 206 human demonstrations of PushT were recorded, at 10 Hz.

    Actions (2,): the agent's target, x and y in px on the 512 x 512 board, y down. As in the
    original, targets outside the board are not clipped; observations may then leave their space.

    Observations, by `obs_mode`:
        state: float64 (5,), agent x, y, block x, y (px), block angle in [0, 2 pi) (rad).
        keypoints: float64 (20,), nine points on the block, then the agent, x and y (px).
        image: {"image": uint8 (96, 96, 3) RGB, "agent_pos": float64 (2,) px}.

    Reward: clip(coverage / 0.95, 0, 1); coverage is the share of the goal that the block covers. An
    episode terminates when coverage exceeds 0.95 and is truncated after `max_episode_steps` (None:
    never).

    `info`: coverage; is_success (coverage > 0.95); n_contacts (how many of the block's two parts
    the agent touches now); state (5,).

    Resets: with `legacy_reset`, a seed's start is that of the demonstrations and of all published
    evaluations; without it, that of gym-pusht. `options={"state": (5,)}` restores a recorded state,
    with the agent at rest or at `options={"agent_velocity": (2,)}` px/s.

    Source: the PushT task of Chi et al., Diffusion Policy (2023).
    """

    metadata = {"render_modes": list(get_args(RenderMode)), "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        obs_mode: ObsMode = "state",
        render_mode: RenderMode | None = None,
        max_episode_steps: int | None = 300,
        legacy_reset: bool = True,
    ) -> None:
        self.obs_mode = check_obs_mode(obs_mode)
        if render_mode not in (None, *get_args(RenderMode)):
            raise ValueError(
                f"render_mode must be None or one of {get_args(RenderMode)}, got {render_mode!r}"
            )
        self.render_mode = render_mode
        self.max_episode_steps = check_max_steps(max_episode_steps)
        self.legacy_reset = legacy_reset
        self.action_space = gymnasium.spaces.Box(0.0, BOARD, (2,), np.float64)
        self.observation_space = observation_space(self.obs_mode)
        self._world = World()
        self._renderer = Renderer() if self.obs_mode == "image" else None
        self._window: Window | None = None
        self._running = False
        self._steps = 0
        self._pose = (math.nan, math.nan, math.nan)
        self._coverage = 0.0
        self._action: npt.ArrayLike | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_window": None}  # a copy opens its own

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; return the first observation and info.

        Without a seed the start is drawn from the environment's own generator. ValueError for a
        seed that is no int from 0 to 2**32 - 1, and for bad options.
        """
        seed = None if seed is None else check_seed(seed)
        options = _checked_options(options)
        super().reset(seed=seed)
        if "state" in options:
            self._world.set_state(options["state"], options.get("agent_velocity", (0.0, 0.0)))
        elif self.legacy_reset:
            drawn = int(self.np_random.integers(2**31)) if seed is None else seed
            self._world.reset(drawn)
        else:
            self._world.place(_gym_pusht_start(self.np_random))
        self._running = True
        self._steps = 0
        self._action = None
        values = self._world.values
        info = self._info(values, self._world.contacts)
        if self.render_mode == "human":
            self.render()
        return self._observation(values), info

    def step(self, action: npt.ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Send the agent towards `action` (2,) px for 0.1 s.

        Returns observation, reward, terminated, truncated, info. ValueError before the first reset,
        after the episode's end, and for an action of another shape or not finite.
        """
        if not self._running:
            raise ValueError("step needs a running episode, got none: call reset first")
        contacts = self._world.step(action)
        values = self._world.values
        self._steps += 1
        self._action = action
        info = self._info(values, contacts)
        terminated = info["is_success"]
        truncated = self._steps == self.max_episode_steps and not terminated
        self._running = not (terminated or truncated)
        if self.render_mode == "human":
            self.render()
        reward = min(self._coverage / SUCCESS_COVERAGE, 1.0)
        return self._observation(values), reward, terminated, truncated, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Return a frame (512, 512, 3) RGB in the mode rgb_array; show it in the mode human."""
        if self.render_mode is None:
            raise ValueError("render needs a render_mode, got None: pass it to the constructor")
        frame = video_frame(self._world.state, action=self._action)
        if self.render_mode == "rgb_array":
            return frame
        if self._window is None:
            self._window = Window("PushT")
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _info(self, values: Values, contacts: int) -> dict[str, Any]:
        pose = values[2:]
        if pose != self._pose:
            self._pose = pose
            self._coverage = coverage(*pose)
        return {
            "coverage": self._coverage,
            "is_success": self._coverage > SUCCESS_COVERAGE,
            "n_contacts": contacts,
            "state": np.array(values),
        }

    def _observation(self, values: Values) -> Observation:
        if self._renderer is not None:
            return {"image": self._renderer.observation(values), "agent_pos": np.array(values[:2])}
        return np.array(values) if self.obs_mode == "state" else keypoints(values)


def observation_space(obs_mode: ObsMode) -> gymnasium.spaces.Space[Any]:
    """Return the space of one observation under actions inside the board."""
    box = gymnasium.spaces.Box
    low, high = -_ROOM, BOARD + _ROOM
    if obs_mode == "state":
        return box(
            np.array([0.0, 0.0, low, low, 0.0]),
            np.array([BOARD, BOARD, high, high, 2 * math.pi]),
            dtype=np.float64,
        )
    if obs_mode == "keypoints":
        lows = np.repeat([-_KEYPOINT_ROOM, 0.0], [18, 2])
        return box(lows, BOARD - lows, dtype=np.float64)
    return gymnasium.spaces.Dict(
        {
            "image": box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "agent_pos": box(0.0, BOARD, (2,), np.float64),
        }
    )


def _checked_options(options: dict[str, Any] | None) -> dict[str, Any]:
    options = dict(options or {})
    unknown = sorted(set(options) - {"state", "agent_velocity"})
    if unknown:
        raise ValueError(f"options may hold 'state' and 'agent_velocity', got {unknown}")
    if "agent_velocity" in options and "state" not in options:
        raise ValueError("options need 'state' beside 'agent_velocity', got the latter alone")
    return options


def _gym_pusht_start(random: np.random.Generator) -> list[float]:
    """Draw a start as gym-pusht 0.1 does: integers, then a uniform angle."""
    agent = [float(random.integers(50, 450)) for _ in range(2)]
    block = [float(random.integers(100, 400)) for _ in range(2)]
    return [*agent, *block, float(random.uniform(-math.pi, math.pi))]

"""Many episodes stepped together in one process; finished ones are not stepped or reset."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from envs.argument_checks import ObsMode, check_max_steps, check_obs_mode, check_seed
from envs.physics.dynamics import World
from envs.physics.geometry import SUCCESS_COVERAGE, coverage, keypoints
from envs.rendering.observations import SIZE, Renderer

Observations = dict[str, npt.NDArray[Any]]


class LockstepPushT:
    """B episodes of PushT, one per seed (legacy resets), each exactly as alone in `PushTEnv`.

    Attributes, valid after `reset`:
        active: bool (B,), the episodes that have not ended.
        states: float64 (B, 5), agent x, y, block x, y (px), angle (rad).
        coverage: float64 (B,), the share of the goal covered now.
        max_coverage: float64 (B,), its maximum after any step so far; 0 before the first.
        success_at_reset: bool (B,), coverage above 0.95 before any step.
        success: bool (B,), coverage above 0.95 after a step.
        length: int64 (B,), steps taken.
        terminated, truncated: bool (B,), ended by success, by `max_episode_steps` (None: never).
        env_seconds, render_seconds: wall time spent so far on physics and on rendering.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        obs_mode: ObsMode = "state",
        max_episode_steps: int | None = 300,
    ) -> None:
        self.seeds = tuple(check_seed(seed) for seed in seeds)
        if not self.seeds:
            raise ValueError("seeds must hold at least one seed, got none")
        self.obs_mode = check_obs_mode(obs_mode)
        self.max_episode_steps = check_max_steps(max_episode_steps)
        count = len(self.seeds)
        self._worlds = [World() for _ in self.seeds]
        self._renderers = [Renderer() for _ in self.seeds] if obs_mode == "image" else []
        self._images = np.zeros((len(self._renderers), SIZE, SIZE, 3), dtype=np.uint8)
        self._was_reset = False
        self._running: list[int] = []
        self._poses = [(math.nan, math.nan, math.nan)] * count
        self.states = np.zeros((count, 5))
        self.coverage = np.zeros(count)
        self.max_coverage = np.zeros(count)
        self.length = np.zeros(count, dtype=np.int64)
        self.active, self.success, self.success_at_reset, self.terminated, self.truncated = (
            np.zeros((5, count), dtype=np.bool_)
        )
        self.env_seconds = 0.0
        self.render_seconds = 0.0

    def reset(self) -> Observations:
        """Start all episodes; return the first observations, each (B, ...) as in `PushTEnv`.

        Modes: {"state": float64 (B, 5)}, {"keypoints": float64 (B, 20)} or
        {"image": uint8 (B, 96, 96, 3), "agent_pos": float64 (B, 2)}.
        """
        started = time.perf_counter()
        for row, (world, seed) in enumerate(zip(self._worlds, self.seeds, strict=True)):
            world.reset(seed)
            self.states[row] = values = world.values
            self._poses[row] = pose = values[2:]
            self.coverage[row] = coverage(*pose)
        self.max_coverage[:] = 0.0
        self.length[:] = 0
        self.active[:] = True
        self.success_at_reset[:] = self.coverage > SUCCESS_COVERAGE
        for ended in (self.success, self.terminated, self.truncated):
            ended[:] = False
        self._was_reset = True
        self._running = list(range(len(self.seeds)))
        self.env_seconds += time.perf_counter() - started
        return self._observations(self._running)

    def step(self, actions: npt.ArrayLike) -> Observations:
        """Send each active episode's agent towards its row of `actions` (B, 2), px, for 0.1 s.

        Rows of ended episodes are ignored; their observations stay as they were. ValueError if no
        episode is active, and for actions of another shape or, in active rows, not finite.
        """
        if not self._running:
            state = "all have ended" if self._was_reset else "none was started"
            raise ValueError(f"step needs a running episode, got none ({state}): call reset first")
        actions_B2 = np.asarray(actions, dtype=np.float64)
        if actions_B2.shape != (len(self.seeds), 2):
            raise ValueError(
                f"actions must have the shape ({len(self.seeds)}, 2), got {actions_B2.shape}"
            )
        rows = self._running
        targets = actions_B2[rows]
        if not np.isfinite(targets).all():
            row = rows[int(np.flatnonzero(~np.isfinite(targets).all(axis=1))[0])]
            raise ValueError(f"actions must be finite, got {actions_B2[row]} in row {row}")
        started = time.perf_counter()
        values, shares = [], self.coverage[rows].tolist()
        for i, (row, target) in enumerate(zip(rows, targets.tolist(), strict=True)):
            world = self._worlds[row]
            world.drive(*target)
            values.append(now := world.values)
            if now[2:] != self._poses[row]:
                self._poses[row] = pose = now[2:]
                shares[i] = coverage(*pose)
        self.states[rows] = values
        self.coverage[rows] = shares
        np.maximum(self.max_coverage, self.coverage, out=self.max_coverage)
        self.length[rows] += 1
        succeeded = [share > SUCCESS_COVERAGE for share in shares]
        over = self.length[rows[0]] == self.max_episode_steps
        if over or any(succeeded):
            self.success[rows] = self.terminated[rows] = succeeded
            self.truncated[rows] = over & ~self.success[rows]
            self.active[rows] = ~(self.terminated[rows] | self.truncated[rows])
            self._running = np.flatnonzero(self.active).tolist()
        self.env_seconds += time.perf_counter() - started
        return self._observations(rows)

    def _observations(self, moved: Sequence[int]) -> Observations:
        if self.obs_mode == "state":
            return {"state": self.states.copy()}
        started = time.perf_counter()
        observations: Observations
        if self.obs_mode == "keypoints":
            observations = {"keypoints": keypoints(self.states)}
        else:
            for row in moved:
                self._images[row] = self._renderers[row].observation(self.states[row])
            observations = {"image": self._images.copy(), "agent_pos": self.states[:, :2].copy()}
        self.render_seconds += time.perf_counter() - started
        return observations

"""Windows of consecutive steps: observations and the actions to learn.

B windows, T obs horizon, H action horizon.
"""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ibc.config.checks import check, check_int
from ibc.config.policy import ObsMode
from ibc.data.demos import Demos


class Windows:
    """One window for each step t of the given episodes, in order.

    It holds the frames t - T + 1 ... t, padded at an episode's start by repeating the first, and
    the actions t ... t + H - 1, padded at its end by repeating the last: action 0 belongs to the
    newest frame, and no window reaches into another episode.
    """

    def __init__(
        self,
        demos: Demos,
        episodes: Sequence[int],
        obs_mode: ObsMode,
        obs_horizon: int,
        action_horizon: int,
    ) -> None:
        modes, total = get_args(ObsMode), len(demos.episode_ends)
        check(obs_mode in modes, f"obs_mode must be one of {', '.join(modes)}", obs_mode)
        check_int("obs_horizon", obs_horizon, 1)
        check_int("action_horizon", action_horizon, 1)
        rule = 'obs_mode "image" needs demonstrations that were read with images'
        check(obs_mode != "image" or demos.images is not None, rule, demos.path)
        inside = all(0 <= k < total for k in episodes)
        check(inside, f"episodes must be numbers from 0 to {total - 1}", tuple(episodes))
        self.demos = demos
        self.episodes = tuple(int(k) for k in episodes)
        self.obs_mode: ObsMode = obs_mode
        self.obs_horizon = obs_horizon
        self.action_horizon = action_horizon

        starts, ends = demos.episode_starts, demos.episode_ends
        lengths = [int(ends[k] - starts[k]) for k in self.episodes]
        steps = [np.arange(starts[k], ends[k]) for k in self.episodes]
        self.steps: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *steps])
        first = np.repeat(starts[list(self.episodes)], lengths)[:, None]
        last = np.repeat(ends[list(self.episodes)] - 1, lengths)[:, None]
        past = np.arange(1 - obs_horizon, 1)
        ahead = np.arange(action_horizon)
        self._frames_NT = np.maximum(self.steps[:, None] + past, first)
        self._actions_NH = np.minimum(self.steps[:, None] + ahead, last)
        self._images = demos.images if obs_mode == "image" else None
        self._positions = np.ascontiguousarray(demos.state[:, :2])

    def __len__(self) -> int:
        return len(self.steps)

    def batch(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The windows of the given numbers (B,), as fresh arrays.

        "action" (B, H, 2) float32 px and, by obs_mode, "state" (B, T, 5), "keypoints" (B, T, 20),
        or "image" (B, T, 96, 96, 3) uint8 with "agent_pos" (B, T, 2) and, to learn from,
        "block_points" (B, 18), nine points on the block in the newest frame. Raises IndexError
        outside 0 ... len - 1.
        """
        indices = np.asarray(indices)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"windows are numbered 0 to {len(self) - 1}, got {indices}")
        frames_BT = self._frames_NT[indices]
        batch: dict[str, NDArray[Any]] = {"action": self.demos.action[self._actions_NH[indices]]}
        if self._images is not None:
            batch["image"] = self._images[frames_BT]
            batch["agent_pos"] = self._positions[frames_BT]
            batch["block_points"] = self.demos.keypoints[frames_BT[:, -1], :18]
        elif self.obs_mode == "state":
            batch["state"] = self.demos.state[frames_BT]
        else:
            batch["keypoints"] = self.demos.keypoints[frames_BT]
        return batch

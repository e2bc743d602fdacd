"""The task's mirror symmetry: the reflection about the axis of the T at its goal.

Board, goal, T and agent are the same after the reflection of (x, y) px to (512 - y, 512 - x), which
turns the block's angle a into pi / 2 - a. So every demonstration has a mirrored one, and what is
learned of one holds for the other. The walls alone stand a little off.

Legend: B batch, T frames, H action horizon, K actions scored per observation, D = 2 H.
"""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ibc.config.action import BOARD_PX
from ibc.data.normalizer import Normalizer

# Nine points on the block in its own frame (px), as in the observations.
BLOCK_KEYPOINTS = (
    (9.2698, 90.0410),
    (-60.9835, -1.1867),
    (60.9128, -1.3934),
    (-0.2705, 25.5436),
    (-14.0649, 122.8159),
    (39.0027, 32.8574),
    (-39.9664, 32.7297),
    (-16.8243, 62.8632),
    (23.5415, -1.7003),
)


def mirror(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mirrored windows: observations and, where there are any, actions; other entries stay.

    "state" (..., 5) px and rad, "keypoints" (..., 20) px, "agent_pos" and "action" (..., 2) px,
    "block_points" (..., 18) px, "image" (..., W, W, 3). Twice gives the same values up to rounding.
    """
    return {name: _MIRRORED.get(name, _same)(value) for name, value in values.items()}


class Reflection:
    """The reflection of normalised actions: moves in the agent's frame, places on the board."""

    def __init__(self, normalizer: Normalizer, action_horizon: int) -> None:
        low_HA, high_HA = (
            bound.expand(action_horizon, 2) for bound in (normalizer.low, normalizer.high)
        )
        centre_HA, half_HA = (high_HA + low_HA) / 2, (high_HA - low_HA) / 2
        offset = 0.0 if normalizer.config.frame == "agent" else BOARD_PX
        self._scale_D = (-half_HA.flip(1) / half_HA).flatten()
        self._shift_D = ((offset - centre_HA.flip(1) - centre_HA) / half_HA).flatten()

    def __call__(self, actions: Tensor, columns: slice) -> Tensor:
        """Actions (..., P) of these columns of a chunk, which are whole steps, reflected."""
        swapped = actions.reshape(*actions.shape[:-1], -1, 2).flip(-1).flatten(-2)
        return swapped * self._scale_D[columns] + self._shift_D[columns]


def side(agent_BA: Tensor) -> Tensor:
    """On which side of the axis the agent is, (B,): the sign changes under the reflection."""
    return agent_BA.sum(-1) - BOARD_PX


def _same(value: Tensor) -> Tensor:
    return value


def _points(px: Tensor) -> Tensor:
    """Positions (..., 2) px."""
    return BOARD_PX - px.flip(-1)


def _state(state: Tensor) -> Tensor:
    angle = torch.remainder(math.pi / 2 - state[..., 4:], 2 * math.pi)
    return torch.cat([_points(state[..., :2]), _points(state[..., 2:4]), angle], -1)


def _keypoints(keypoints: Tensor) -> Tensor:
    """The keypoints of the mirrored pose, which are not the mirror images of the keypoints."""
    return torch.cat([_block_points(keypoints[..., :18]), _points(keypoints[..., 18:])], -1)


def _block_points(points: Tensor) -> Tensor:
    turned = _flip(points.device) @ points.reshape(*points.shape[:-1], 9, 2).double()
    return _points(turned).to(points.dtype).flatten(-2)


@cache
def _flip(device: torch.device) -> Tensor:
    """The keypoints at the other side of the block's own axis as affine combinations of them."""
    points = np.array(BLOCK_KEYPOINTS)
    whole = np.column_stack([points, np.ones(len(points))])
    combinations = (whole * [-1.0, 1.0, 1.0]) @ np.linalg.pinv(whole)
    return torch.from_numpy(combinations).to(device)


def _image(image: Tensor) -> Tensor:
    """Transposed at the other diagonal."""
    return image.transpose(-3, -2).flip(-3, -2)


_MIRRORED = {
    "state": _state,
    "keypoints": _keypoints,
    "block_points": _block_points,
    "agent_pos": _points,
    "action": _points,
    "image": _image,
}

"""States and keypoints to features.

Legend: B batch, T obs horizon (newest frame last), X numbers a frame, A = 2, F features.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibc.config.action import BOARD_PX
from ibc.config.encoder import EncoderConfig
from ibc.data.normalizer import normalize_positions
from ibc.encoders.temporal import build_fusion

FRAME_SIZES = {"state": 5, "keypoints": 20}
# From normalised board units to units of a typical distance to the block, 100 px, and of a typical
# move, 20 px.
PER_OFFSET, PER_MOVE = BOARD_PX / 2 / 100.0, BOARD_PX / 2 / 20.0


class StateEncoder(nn.Module):
    """States or keypoints through an MLP with ReLU after every layer, and over the frames.

    In pushing, small differences matter: where the block is from the agent, and what moved since
    the last frame. So the inputs are the positions of the newest frame, offsets from the agent in
    units of 100 px, and movements in units of 20 px. Where frames are fused, each has its own
    positions, offsets and movement, which is 0 for the oldest. "plain" inputs are all numbers in
    [-1, 1]; the angle stays one number, with a jump at 2 pi.
    """

    def __init__(self, config: EncoderConfig, obs_mode: str, obs_horizon: int) -> None:
        super().__init__()
        self.obs_mode, self.plain = obs_mode, config.low_dim == "plain"
        # The angle enters as sine and cosine: one number more than the state has.
        frame = FRAME_SIZES[obs_mode] + (obs_mode == "state" and not self.plain)
        block = 0 if self.plain else 2 if obs_mode == "state" else FRAME_SIZES[obs_mode] - 2
        fused = config.stacking in ("recurrent", "attention") and obs_horizon > 1
        moves = 0 if self.plain else frame
        inputs = frame + block + moves if fused else frame * obs_horizon + block
        widths = [inputs] + [config.state_width] * config.state_depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.fusion = build_fusion(config.stacking, widths[-1], config.state_width, obs_horizon)
        self.out_features = config.state_width if fused else widths[-1]

    def forward(self, obs: dict[str, Tensor], augment: torch.Generator | None = None) -> Tensor:
        """(B, T, 5 or 20) in px and rad to (B, F); `augment` is for images."""
        x = self._inputs(obs[self.obs_mode])
        for layer in self.layers:
            x = layer(x).relu_()
        return x if self.fusion is None else self.fusion(x)

    def _inputs(self, frames_BTX: Tensor) -> Tensor:
        """(B, X) of all frames together, or (B, T, X) where they are to be fused."""
        if self.obs_mode == "keypoints":
            x_BTX = normalize_positions(frames_BTX)
            agent_BTA, block_BTX = x_BTX[..., 18:], x_BTX[..., :18]
        else:
            places_BTX, angle_BT1 = normalize_positions(frames_BTX[..., :4]), frames_BTX[..., 4:]
            agent_BTA, block_BTX = places_BTX[..., :2], places_BTX[..., 2:]
            circle = [angle_BT1.sin(), angle_BT1.cos()]
            turned = [angle_BT1 / math.pi - 1.0] if self.plain else circle
            x_BTX = torch.cat([places_BTX, *turned], -1)
        if self.plain:
            return x_BTX.flatten(1) if self.fusion is None else x_BTX
        moves_BTX = (x_BTX[:, 1:] - x_BTX[:, :-1]) * PER_MOVE
        if self.fusion is not None:
            moves_BTX = functional.pad(moves_BTX, (0, 0, 1, 0))
            return torch.cat([x_BTX, offsets(agent_BTA, block_BTX), moves_BTX], -1)
        offsets_BX = offsets(agent_BTA[:, -1], block_BTX[:, -1])
        return torch.cat([x_BTX[:, -1], offsets_BX, moves_BTX.flatten(1)], 1)


def offsets(agent: Tensor, block: Tensor) -> Tensor:
    """Positions (..., X) on the block from the agent (..., 2), in units of 100 px."""
    places = block.reshape(*block.shape[:-1], -1, 2) - agent.unsqueeze(-2)
    return places.flatten(-2) * PER_OFFSET

"""Images to features by way of the block's place, which the demonstrations know.

Legend: B batch, T obs horizon (newest frame last), A = 2, F features.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ibc.config.action import BOARD_PX
from ibc.config.encoder import SMALLEST_IMAGE, EncoderConfig
from ibc.data.normalizer import normalize_positions
from ibc.encoders.image import ImageEncoder, PooledImages, crop_corners, cut
from ibc.encoders.state import StateEncoder
from ibc.layers import MLP

POINTS = 18  # numbers of nine points on the block
WIDTH = 128  # of the hidden layer that reads them out of an image's features
SMOOTH_PX = 5.0  # errors below it count squared, larger ones linearly
PER_PIXEL = BOARD_PX / SMALLEST_IMAGE  # board px of a px of an image


class PoseEncoder(PooledImages):
    """The newest image to nine points on the block, and these to features as keypoints are.

    The points are learned from the demonstrations' states (`pose_loss`), as an auxiliary task
    through which all gradients pass; to act, the image and the agent's positions are enough. Older
    images are not seen, so that noise on the agent's older positions hides its motion.
    """

    def __init__(self, config: EncoderConfig, obs_horizon: int) -> None:
        super().__init__(config, 1)
        self.points = MLP([self.pooled_features + 2, WIDTH, POINTS])
        self.state = StateEncoder(config, "keypoints", obs_horizon)
        self.out_features = self.state.out_features

    def forward(self, obs: dict[str, Tensor], augment: torch.Generator | None = None) -> Tensor:
        """{"image": uint8 (B, T, H, W, 3), "agent_pos": (B, T, 2) px} to (B, F)."""
        return self.read(self.estimate(obs, augment), obs)

    def estimate(self, obs: dict[str, Tensor], augment: torch.Generator | None = None) -> Tensor:
        """The points (B, 18) px on the board in the newest frame.

        A crop moves the origin of the image and so that of the positions beside it: a random crop
        shows the same scene at another place, exactly.
        """
        frames, agent_BTA = obs["image"][:, -1:], obs["agent_pos"][:, -1:]
        corner_BA = torch.zeros_like(agent_BTA[:, 0])
        if (size := self.config.crop) is not None:
            top_B, left_B = crop_corners(frames, size, augment)
            frames = cut(frames, size, top_B, left_B)
            corner_BA = torch.stack([left_B, top_B], 1).to(agent_BTA) * PER_PIXEL
        pooled_BX = self.pooled(frames.flatten(0, 1), kept=augment is None)
        agent_BA = normalize_positions(agent_BTA[:, 0] - corner_BA)
        with torch.autocast(frames.device.type, enabled=False):  # bf16 resolves only 1 px in 256
            points_BX: Tensor = self.points(torch.cat([pooled_BX.float(), agent_BA], 1))
        return (points_BX + 1.0) * (BOARD_PX / 2) + corner_BA.repeat(1, POINTS // 2)

    def read(self, points_BX: Tensor, obs: dict[str, Tensor]) -> Tensor:
        """Points (B, 18) px, with all of the agent's positions, to (B, F)."""
        agent_BTA = obs["agent_pos"]
        points_BTX = points_BX[:, None].expand(-1, agent_BTA.shape[1], -1)
        with torch.autocast(points_BX.device.type, enabled=False):
            features: Tensor = self.state({"keypoints": torch.cat([points_BTX, agent_BTA], -1)})
        return features


def pose_loss(points_BX: Tensor, wanted_BX: Tensor) -> Tensor:
    """The mean error of the points, squared below SMOOTH_PX and linear above (Huber 1964)."""
    loss: Tensor = functional.smooth_l1_loss(points_BX / SMOOTH_PX, wanted_BX / SMOOTH_PX)
    return loss


def build_encoder(
    config: EncoderConfig, obs_mode: str, obs_horizon: int
) -> StateEncoder | ImageEncoder | PoseEncoder:
    """The encoder of an observation mode; its `out_features` is F."""
    if obs_mode != "image":
        return StateEncoder(config, obs_mode, obs_horizon)
    return PoseEncoder(config, obs_horizon) if config.pose else ImageEncoder(config, obs_horizon)

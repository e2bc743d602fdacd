"""Images to features: backbone, 1x1 reduction, spatial pooling, fusion over frames.

Legend: B batch, T obs horizon (newest frame last), C channels, M maps, F features.
"""

import torch
from torch import Tensor, nn

from ibc.config.encoder import EncoderConfig
from ibc.data.normalizer import normalize_positions
from ibc.encoders.backbones import build_backbone
from ibc.encoders.pooling import SoftArgmax, add_coordinates, crop_frames
from ibc.encoders.state import PER_MOVE, StateEncoder
from ibc.encoders.temporal import build_fusion
from ibc.layers import Memo


class ImageEncoder(nn.Module):
    """Frames through the backbone to pooled maps, with the agent's positions beside them.

    The agent's newest position and its moves between the frames are concatenated to the features
    of the images, whatever the stacking.
    """

    def __init__(self, config: EncoderConfig, obs_horizon: int) -> None:
        super().__init__()
        self.memo: Memo | None = None
        self.crop, self.stacked = config.crop, config.stacking == "channels"
        self.coordinates, self.reduce_relu = config.coordinates, config.reduce_relu
        inputs = 3 * obs_horizon if self.stacked else 3
        maps = config.reduce_maps or config.maps
        self.trunk = build_backbone(config, inputs + 2 * config.coordinates)
        self.reduce = nn.Conv2d(config.maps, maps, 1) if config.reduce_maps else None
        self.pool = (
            SoftArgmax(config.temperature, config.learn_temperature)
            if config.pooling == "softargmax"
            else None
        )
        self.pooling = config.pooling
        self.project = nn.Linear(maps * (2 if self.pool is not None else 1), config.features)
        F = config.features
        self.fusion = build_fusion(config.stacking, F, F, obs_horizon)
        vectors = 1 if self.stacked or self.fusion is not None else obs_horizon
        self.out_features = F * vectors + 2 * obs_horizon

    def forward(self, obs: dict[str, Tensor], augment: torch.Generator | None = None) -> Tensor:
        """{"image": uint8 (B, T, H, W, 3), "agent_pos": (B, T, 2) px} to (B, F).

        The crop is at random places with `augment`, in the centre without.
        """
        frames_BTHWC = crop_frames(obs["image"], self.crop, augment)
        B, T, H, W, C = frames_BTHWC.shape
        if self.stacked:
            frames = frames_BTHWC.permute(0, 2, 3, 1, 4).reshape(B, H, W, T * C)
        else:
            frames = frames_BTHWC.reshape(B * T, H, W, C)
        memo = self.memo if augment is None and frames.device.type == "cpu" else None
        if memo is None or torch.is_grad_enabled():
            pooled = self._pooled(frames)
        else:  # an older frame was the newest one of the step before
            pooled = memo.rows(frames, self._pooled)
        features = self.project(pooled)
        if self.fusion is not None:
            features_BF = self.fusion(features.unflatten(0, (B, T)))
        else:
            features_BF = features.reshape(B, -1)
        agent_BTA = normalize_positions(obs["agent_pos"])
        moves_BX = (agent_BTA[:, 1:] - agent_BTA[:, :-1]).flatten(1) * PER_MOVE
        return torch.cat([features_BF, agent_BTA[:, -1], moves_BX], 1)

    def _pooled(self, frames: Tensor) -> Tensor:
        """Frames uint8 (N, H, W, C) to (N, M), or (N, 2 M) for positions."""
        # Still uint8 up to here; the permuted view is channels-last without another copy.
        x = frames.permute(0, 3, 1, 2).float().mul_(2.0 / 255.0).sub_(1.0)
        maps: Tensor = self.trunk(add_coordinates(x) if self.coordinates else x)
        if self.reduce is not None:
            maps = self.reduce(maps)
        if self.reduce_relu:
            maps = maps.relu_()
        if self.pool is not None:
            pooled: Tensor = self.pool(maps)
            return pooled
        return maps.amax((2, 3)) if self.pooling == "max" else maps.mean((2, 3))


def build_encoder(
    config: EncoderConfig, obs_mode: str, obs_horizon: int
) -> StateEncoder | ImageEncoder:
    """The encoder of an observation mode; its `out_features` is F."""
    if obs_mode == "image":
        return ImageEncoder(config, obs_horizon)
    return StateEncoder(config, obs_mode, obs_horizon)

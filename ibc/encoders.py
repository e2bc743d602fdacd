"""Observations to features: image trunk, 1x1 reduction, spatial pooling, temporal stacking.

Legend: B batch, T obs horizon (newest frame last), C channels, M maps, F features.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ibc.checks import check, check_choice, check_float, check_int
from ibc.normalize import BOARD_PX, normalize_positions
from ibc.trunks import ConvTrunk, ResNet18

LOW_DIM = {"state": 5, "keypoints": 20}
# Normalised board units in a typical distance to the block, 100 px, and a typical move, 20 px.
PER_OFFSET, PER_MOVE = BOARD_PX / 2 / 100.0, BOARD_PX / 2 / 20.0


@dataclass(frozen=True)
class EncoderConfig:
    """How an observation becomes features; the image fields are not read for low-dimensional ones.

    trunk: "conv" (one stride-2 convolution per entry of channels) or "resnet18" (GroupNorm).
    reduce_maps: maps after a 1x1 convolution, None to pool the trunk's own maps.
    pooling: "softargmax" (expected x, y of every map), "average" or "max".
    temperature, learn_temperature: of the softargmax.
    crop: side in px of the random crop in training and centre crop at evaluation; None for none.
    stacking: "features" encodes every frame and concatenates, "channels" stacks frames first.
    features: width of an image's feature vector.
    state_width, state_depth: hidden layers of the encoder of low-dimensional observations.
    """

    trunk: Literal["conv", "resnet18"] = "conv"
    channels: tuple[int, ...] = (32, 64, 128)
    reduce_maps: int | None = 32
    pooling: Literal["softargmax", "average", "max"] = "softargmax"
    temperature: float = 1.0
    learn_temperature: bool = False
    crop: int | None = 84
    stacking: Literal["features", "channels"] = "features"
    features: int = 64
    state_width: int = 256
    state_depth: int = 1

    def __post_init__(self) -> None:
        check_choice("encoder.trunk", self.trunk, ("conv", "resnet18"))
        check_choice("encoder.pooling", self.pooling, ("softargmax", "average", "max"))
        check_choice("encoder.stacking", self.stacking, ("features", "channels"))
        check(
            1 <= len(self.channels) <= 5, "encoder.channels must hold 1 to 5 widths", self.channels
        )
        for width in self.channels:
            check_int("encoder.channels", width, 1, 2048)
        if self.reduce_maps is not None:
            check_int("encoder.reduce_maps", self.reduce_maps, 1)
            check(
                self.reduce_maps <= self.trunk_channels,
                f"encoder.reduce_maps must not exceed the trunk's {self.trunk_channels} channels",
                self.reduce_maps,
            )
        if self.crop is not None:
            check_int("encoder.crop", self.crop, 32, 96)
        check_float("encoder.temperature", self.temperature, 0.0, open_low=True)
        check_int("encoder.features", self.features, 1, 4096)
        check_int("encoder.state_width", self.state_width, 1, 8192)
        check_int("encoder.state_depth", self.state_depth, 0, 16)

    @property
    def trunk_channels(self) -> int:
        """Channels of the trunk's last feature map."""
        return 512 if self.trunk == "resnet18" else self.channels[-1]


class StateEncoder(nn.Module):
    """States or keypoints of all frames through an MLP with ReLU after every layer.

    What matters in pushing is small beside the board: where the block is from the agent, and what
    moved since the last frame. So the numbers go in as positions of the newest frame, offsets from
    the agent in units of 100 px, and movements in units of 20 px.
    """

    def __init__(self, config: EncoderConfig, obs_mode: str, obs_horizon: int) -> None:
        super().__init__()
        self.obs_mode = obs_mode
        # The angle enters as sine and cosine: one number more than the state has.
        frame = LOW_DIM[obs_mode] + (obs_mode == "state")
        block = 2 if obs_mode == "state" else LOW_DIM[obs_mode] - 2
        widths = [frame * obs_horizon + block] + [config.state_width] * config.state_depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out_features = widths[-1]

    def forward(self, obs: dict[str, Tensor], augment: torch.Generator | None = None) -> Tensor:
        """(B, T, 5 or 20) in px and rad to (B, F); there is nothing to augment."""
        frames_BTX = obs[self.obs_mode]
        if self.obs_mode == "state":
            x_BTX = normalize_positions(frames_BTX[..., :4])
            angle_BT1 = frames_BTX[..., 4:]
            agent_BA, block_BX = x_BTX[:, -1, :2], x_BTX[:, -1, 2:]
            x_BTX = torch.cat([x_BTX, angle_BT1.sin(), angle_BT1.cos()], -1)
        else:
            x_BTX = normalize_positions(frames_BTX)
            agent_BA, block_BX = x_BTX[:, -1, 18:], x_BTX[:, -1, :18]
        offsets_BX = (block_BX - agent_BA.repeat(1, block_BX.shape[1] // 2)) * PER_OFFSET
        moves_BX = (x_BTX[:, 1:] - x_BTX[:, :-1]).flatten(1) * PER_MOVE
        x = torch.cat([x_BTX[:, -1], offsets_BX, moves_BX], 1)
        for layer in self.layers:
            x = layer(x).relu_()
        return x


class ImageEncoder(nn.Module):
    """Frames through the trunk to pooled maps, with the agent's positions beside them."""

    def __init__(self, config: EncoderConfig, obs_horizon: int) -> None:
        super().__init__()
        self.crop, self.stacked = config.crop, config.stacking == "channels"
        inputs = 3 * obs_horizon if self.stacked else 3
        trunk: nn.Module = (
            ResNet18(inputs) if config.trunk == "resnet18" else ConvTrunk(inputs, config.channels)
        )
        maps = config.reduce_maps or config.trunk_channels
        self.trunk = trunk
        self.reduce = nn.Conv2d(config.trunk_channels, maps, 1) if config.reduce_maps else None
        self.pool = (
            SoftArgmax(config.temperature, config.learn_temperature)
            if config.pooling == "softargmax"
            else None
        )
        self.pooling = config.pooling
        self.project = nn.Linear(maps * (2 if self.pool is not None else 1), config.features)
        self.out_features = config.features * (1 if self.stacked else obs_horizon) + 2 * obs_horizon

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
        # Still uint8 up to here; the permuted view is channels-last without another copy.
        x = frames.permute(0, 3, 1, 2).float().mul_(2.0 / 255.0).sub_(1.0)
        maps = self.trunk(x)
        if self.reduce is not None:
            maps = self.reduce(maps)
        if self.pool is not None:
            pooled = self.pool(maps)
        else:
            pooled = maps.amax((2, 3)) if self.pooling == "max" else maps.mean((2, 3))
        features_BF = self.project(pooled).reshape(B, -1)
        agent_BTA = normalize_positions(obs["agent_pos"])
        moves_BX = (agent_BTA[:, 1:] - agent_BTA[:, :-1]).flatten(1) * PER_MOVE
        return torch.cat([features_BF, agent_BTA[:, -1], moves_BX], 1)


class SoftArgmax(nn.Module):
    """The expected position under the softmax over each map, in [-1, 1] (Finn et al. 2016)."""

    def __init__(self, temperature: float, learned: bool) -> None:
        super().__init__()
        log_temperature = torch.tensor(float(temperature)).log()
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=learned)

    def forward(self, maps_BMHW: Tensor) -> Tensor:
        """(B, M, H, W) to (B, 2 M): every map's x, then every map's y."""
        H, W = maps_BMHW.shape[2:]
        logits = maps_BMHW.flatten(2).float() * torch.exp(-self.log_temperature)
        weights_BMHW = torch.softmax(logits, -1).view_as(maps_BMHW)
        x_W = torch.linspace(-1.0, 1.0, W, device=maps_BMHW.device)
        y_H = torch.linspace(-1.0, 1.0, H, device=maps_BMHW.device)
        x_BM = (weights_BMHW.sum(2) * x_W).sum(-1)
        y_BM = (weights_BMHW.sum(3) * y_H).sum(-1)
        return torch.cat([x_BM, y_BM], 1)


def crop_frames(frames: Tensor, size: int | None, generator: torch.Generator | None) -> Tensor:
    """Square crops (B, T, size, size, C) of (B, T, H, W, C); one offset a sample for its frames."""
    B, T, H, W = frames.shape[:4]
    if size is None:
        return frames
    check(size <= min(H, W), f"encoder.crop must fit into {H} x {W} images", size)
    if generator is None:
        top, left = (H - size) // 2, (W - size) // 2
        return frames[:, :, top : top + size, left : left + size]
    device = frames.device
    top_B = torch.randint(H - size + 1, (B,), generator=generator, device=device)
    left_B = torch.randint(W - size + 1, (B,), generator=generator, device=device)
    # One index an image row and a copy of whole pixels: gathered on the device, still uint8.
    span = torch.arange(size, device=device)
    rows_BTS1 = (top_B[:, None] + span)[:, None, :, None].expand(B, T, size, 1)
    columns_B11S = (left_B[:, None] + span)[:, None, None, :]
    b = torch.arange(B, device=device)[:, None, None, None]
    t = torch.arange(T, device=device)[None, :, None, None]
    return frames[b, t, rows_BTS1, columns_B11S]


def build_encoder(
    config: EncoderConfig, obs_mode: str, obs_horizon: int
) -> StateEncoder | ImageEncoder:
    """The encoder of an observation mode; its `out_features` is F."""
    if obs_mode == "image":
        return ImageEncoder(config, obs_horizon)
    return StateEncoder(config, obs_mode, obs_horizon)

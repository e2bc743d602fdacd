"""Images to features: crop, backbone, 1x1 reduction, spatial pooling, fusion over frames.

Legend: B batch, T obs horizon (newest frame last), C channels, M maps, F features.
"""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from ibc.config.checks import check
from ibc.config.encoder import EncoderConfig
from ibc.data.normalizer import normalize_positions
from ibc.encoders.backbones import build_backbone
from ibc.encoders.state import PER_MOVE
from ibc.encoders.temporal import build_fusion
from ibc.layers import Memo


class PooledImages(nn.Module):
    """Frames through the backbone and the 1x1 reduction to pooled maps, `pooled_features` wide."""

    def __init__(self, config: EncoderConfig, frames: int) -> None:
        super().__init__()
        self.config = config
        self.memo: Memo | None = None
        self.bf16 = False  # whether to train the convolutions in bf16, which act in fp32
        maps = config.reduce_maps or config.maps
        softargmax = config.pooling == "softargmax"
        self.trunk = build_backbone(config, config.patch**2 * 3 * frames)
        self.reduce = nn.Conv2d(config.maps, maps, 1) if config.reduce_maps else None
        self.pool = SoftArgmax(config.temperature) if softargmax else None
        self.pooled_features = 2 * maps if softargmax else maps

    def pooled(self, frames: Tensor, *, kept: bool) -> Tensor:
        """Frames uint8 (N, H, W, C) to (N, M), or (N, 2 M) for positions.

        kept: some of the frames may come again, as those of an observation in the next one.
        """
        memo = self.memo if kept and frames.device.type == "cpu" else None
        if memo is None or torch.is_grad_enabled():
            return self._pooled(frames)
        return memo.rows(frames, self._pooled)

    def _pooled(self, frames: Tensor) -> Tensor:
        # Still uint8 up to here; the permuted view is channels-last without another copy.
        frames = fold(frames, self.config.patch).permute(0, 3, 1, 2)
        values = frames.float().mul_(2.0 / 255.0).sub_(1.0)
        bf16 = self.bf16 and torch.is_grad_enabled()
        with torch.autocast(frames.device.type, torch.bfloat16) if bf16 else nullcontext():
            maps: Tensor = self.trunk(values)
            if self.reduce is not None:
                maps = self.reduce(maps)
        if bf16:
            maps = maps.float()
        if self.config.reduce_relu:
            maps = maps.relu_()
        if self.pool is not None:
            pooled: Tensor = self.pool(maps)
            return pooled
        return maps.amax((2, 3)) if self.config.pooling == "max" else maps.mean((2, 3))


class ImageEncoder(PooledImages):
    """Pooled maps of all frames, with the agent's positions beside them.

    The agent's newest position and its moves between the frames are concatenated to the features
    of the images, whatever the stacking.
    """

    def __init__(self, config: EncoderConfig, obs_horizon: int) -> None:
        stacked = config.stacking == "channels"
        super().__init__(config, obs_horizon if stacked else 1)
        F = config.features
        self.project = nn.Linear(self.pooled_features, F)
        self.fusion = build_fusion(config.stacking, F, F, obs_horizon)
        vectors = 1 if stacked or self.fusion is not None else obs_horizon
        self.out_features = F * vectors + 2 * obs_horizon

    def forward(self, obs: dict[str, Tensor], augment: torch.Generator | None = None) -> Tensor:
        """{"image": uint8 (B, T, H, W, 3), "agent_pos": (B, T, 2) px} to (B, F).

        The crop is at random places with `augment`, in the centre without.
        """
        frames = crop_frames(obs["image"], self.config.crop, augment)
        B = len(frames)
        stacked = self.config.stacking == "channels"
        frames = frames.permute(0, 2, 3, 1, 4).flatten(3) if stacked else frames.flatten(0, 1)
        pooled = self.pooled(frames, kept=augment is None)
        features_BTF = self.project(pooled).unflatten(0, (B, -1))
        features_BF = features_BTF.flatten(1) if self.fusion is None else self.fusion(features_BTF)
        agent_BTA = normalize_positions(obs["agent_pos"])
        moves_BX = (agent_BTA[:, 1:] - agent_BTA[:, :-1]).flatten(1) * PER_MOVE
        return torch.cat([features_BF, agent_BTA[:, -1], moves_BX], 1)


class SoftArgmax(nn.Module):
    """The expected position under the softmax over each map, in [-1, 1] (Finn et al. 2016)."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        log_temperature = torch.tensor(float(temperature)).log()
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=False)

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
    if size is None:
        return frames
    return cut(frames, size, *crop_corners(frames, size, generator))


def crop_corners(
    frames: Tensor, size: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """The top and left px (B,) of crops at random places, or in the centre without a generator."""
    (B, _, H, W), device = frames.shape[:4], frames.device
    check(size <= min(H, W), f"encoder.crop must fit into {H} x {W} images", size)
    if generator is None:
        top, left = (H - size) // 2, (W - size) // 2
        return torch.full((B,), top, device=device), torch.full((B,), left, device=device)
    top_B = torch.randint(H - size + 1, (B,), generator=generator, device=device)
    left_B = torch.randint(W - size + 1, (B,), generator=generator, device=device)
    return top_B, left_B


def cut(frames: Tensor, size: int, top_B: Tensor, left_B: Tensor) -> Tensor:
    """Square crops (B, T, size, size, C) at the given corners."""
    if frames.device.type == "cpu":
        return copied_crops(frames, size, top_B.tolist(), left_B.tolist())
    return gathered_crops(frames, size, top_B, left_B)


def copied_crops(frames: Tensor, size: int, top: list[int], left: list[int]) -> Tensor:
    """Crops copied one after the other, on a CPU some twenty times faster than `gathered_crops`."""
    given = frames.numpy()
    crops = np.empty((*given.shape[:2], size, size, given.shape[4]), given.dtype)
    for crop, frame, y, x in zip(crops, given, top, left, strict=True):
        crop[...] = frame[:, y : y + size, x : x + size]
    return torch.from_numpy(crops)


def gathered_crops(frames: Tensor, size: int, top_B: Tensor, left_B: Tensor) -> Tensor:
    """Crops by one index an image row and a copy of whole pixels, in one kernel of a GPU."""
    (B, T), device = frames.shape[:2], frames.device
    span = torch.arange(size, device=device)
    rows_B1S1 = (top_B[:, None] + span)[:, None, :, None]
    columns_B11S = (left_B[:, None] + span)[:, None, None, :]
    b = torch.arange(B, device=device)[:, None, None, None]
    t = torch.arange(T, device=device)[None, :, None, None]
    return frames[b, t, rows_B1S1, columns_B11S]


def fold(frames: Tensor, patch: int) -> Tensor:
    """Frames uint8 (N, H, W, C) to (N, H / patch, W / patch, patch * patch * C), row after row."""
    if patch == 1:
        return frames
    N, H, W, C = frames.shape
    shape = N, H // patch, patch, W // patch, patch * C
    if frames.device.type != "cpu":
        return frames.reshape(shape).transpose(2, 3).flatten(3)
    # A patch's row as one element: numpy copies it whole, torch byte after byte.
    rows = frames.contiguous().numpy().reshape(shape).view(f"V{patch * C}")
    folded = np.ascontiguousarray(rows.swapaxes(2, 3)).view(np.uint8)
    return torch.from_numpy(folded).flatten(3)

"""Crops before the backbone, coordinate maps beside its input, position pooling behind it.

Legend: B batch, T obs horizon, M maps.
"""

import torch
from torch import Tensor, nn

from ibc.config.checks import check


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


def add_coordinates(x_BCHW: Tensor) -> Tensor:
    """(B, C + 2, H, W): each pixel's x and y in [-1, 1] as two more channels (Liu et al. 2018)."""
    B, _, H, W = x_BCHW.shape
    x_W = torch.linspace(-1.0, 1.0, W, device=x_BCHW.device)
    y_H = torch.linspace(-1.0, 1.0, H, device=x_BCHW.device)
    maps_2HW = torch.stack([x_W.expand(H, W), y_H.unsqueeze(1).expand(H, W)])
    both = torch.cat([x_BCHW, maps_2HW.expand(B, -1, -1, -1)], 1)
    return both.contiguous(memory_format=torch.channels_last)


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

"""Fusion over frames: the features of every frame, in order, to one feature vector.

Legend: B batch, T obs horizon (newest frame last), X numbers a frame, W width, N heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Recurrence(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) from the oldest frame to the newest."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.frame = nn.Linear(inputs, 3 * width)
        self.memory = nn.Linear(width, 3 * width)
        self.width = width

    def forward(self, frames_BTX: Tensor) -> Tensor:
        """The state (B, W) after the newest frame."""
        frames_BTG = self.frame(frames_BTX).float()
        state_BW = torch.zeros_like(frames_BTG[:, 0, : self.width])
        for frame_BG in frames_BTG.unbind(1):
            # The state itself stays in float32, whatever the products are computed in.
            frame, memory = frame_BG.chunk(3, 1), self.memory(state_BW).float().chunk(3, 1)
            reset_BW = torch.sigmoid(frame[0] + memory[0])
            update_BW = torch.sigmoid(frame[1] + memory[1])
            new_BW = torch.tanh(frame[2] + reset_BW * memory[2])
            state_BW = torch.lerp(state_BW, new_BW, update_BW)
        return state_BW


class Attention(nn.Module):
    """One pre-norm transformer layer (Vaswani et al. 2017), read at the newest frame.

    Frames are told apart by a learned vector for each age, added before the layer. The other
    frames' outputs would be read by nobody, so only the newest frame asks.
    """

    def __init__(self, inputs: int, width: int, horizon: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in (4, 2, 1) if width % heads == 0)
        self.embed = nn.Linear(inputs, width)
        self.ages_TW = nn.Parameter(torch.randn(horizon, width))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # No bias on the keys: it would add one number to all logits of a head, which changes none.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.join = nn.Linear(width, width)
        self.dense_norm = nn.LayerNorm(width)
        self.dense = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, frames_BTX: Tensor) -> Tensor:
        """The newest frame's features (B, W) in the light of the others."""
        tokens_BTW = self.embed(frames_BTX) + self.ages_TW
        normed_BTW = self.norm(tokens_BTW)
        query_BN1D = self._split(self.query(normed_BTW[:, -1:]))
        key_BNTD = self._split(self.key(normed_BTW))
        value_BNTD = self._split(self.value(normed_BTW))
        seen_BN1D = functional.scaled_dot_product_attention(query_BN1D, key_BNTD, value_BNTD)
        newest_BW = tokens_BTW[:, -1] + self.join(seen_BN1D.flatten(1))
        out: Tensor = newest_BW + self.dense(self.dense_norm(newest_BW))
        return out

    def _split(self, x_BTW: Tensor) -> Tensor:
        B, T, W = x_BTW.shape
        return x_BTW.view(B, T, self.heads, W // self.heads).transpose(1, 2)


def build_fusion(stacking: str, inputs: int, width: int, horizon: int) -> nn.Module | None:
    """The fusion of a stacking over `horizon` frames, (B, T, inputs) to (B, width).

    None for stackings that fuse nothing, and for a single frame, which has no order: its memory
    and its attention would never get a gradient.
    """
    if horizon == 1 or stacking not in ("recurrent", "attention"):
        return None
    if stacking == "recurrent":
        return Recurrence(inputs, width)
    return Attention(inputs, width, horizon)

"""Fusion over frames: the features of every frame, in order, to one feature vector.

The output is normalised (Ba et al. 2016). Without that, an untrained fusion's outputs are so small
that energies on images stayed at chance in every run that was tried.

Legend: B batch, T obs horizon (newest frame last), X numbers a frame, W width, N heads.
"""

import math

import torch
from torch import Tensor, nn


class Recurrence(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) from the oldest frame to the newest.

    Its gates start with time scales of 1 to T - 1 frames (Tallec and Ollivier 2018) and its
    matrices orthogonal (Saxe et al. 2014). Without either, an energy over eight frames did not
    learn to use the oldest: the usual initialisation halves the state's memory with every frame.
    """

    def __init__(self, inputs: int, width: int, horizon: int) -> None:
        super().__init__()
        self.frame = nn.Linear(inputs, 3 * width)
        self.memory = nn.Linear(width, 3 * width)
        self.norm_out = nn.LayerNorm(width)
        self.width = width
        with torch.no_grad():
            spans = torch.linspace(1.0, max(1.0, horizon - 1.0), width)
            self.frame.bias[width : 2 * width] = -spans.log()
        for gate in self.memory.weight.detach().chunk(3):
            nn.init.orthogonal_(gate)

    def forward(self, frames_BTX: Tensor) -> Tensor:
        """The state (B, W) after the newest frame, normalised."""
        frames_BTG = self.frame(frames_BTX).float()
        state_BW = torch.zeros_like(frames_BTG[:, 0, : self.width])
        for frame_BG in frames_BTG.unbind(1):
            # The state itself stays in float32, whatever the products are computed in.
            frame, memory = frame_BG.chunk(3, 1), self.memory(state_BW).float().chunk(3, 1)
            reset_BW = torch.sigmoid(frame[0] + memory[0])
            update_BW = torch.sigmoid(frame[1] + memory[1])
            new_BW = torch.tanh(frame[2] + reset_BW * memory[2])
            state_BW = torch.lerp(state_BW, new_BW, update_BW)
        out: Tensor = self.norm_out(state_BW)
        return out


class Attention(nn.Module):
    """One pre-norm transformer layer (Vaswani et al. 2017), read at the newest frame.

    Order enters as a learned bias of every head for every age (Shaw et al. 2018 in its simplest
    form). The heads' biases start spread over the ages: from equal ones, which average the frames,
    training on the order of four frames did not succeed. Only the newest frame has a query, since
    the outputs of the others are not used.
    """

    def __init__(self, inputs: int, width: int, horizon: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in (8, 4, 2, 1) if width % heads == 0)
        self.embed = nn.Linear(inputs, width)
        place_N1 = torch.linspace(0.0, horizon - 1.0, self.heads).unsqueeze(1)
        self.preference_NT = nn.Parameter(-((torch.arange(horizon) - place_N1) ** 2))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # No bias on the keys: it would add the same number to all logits of a head.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.join = nn.Linear(width, width)
        self.dense_norm = nn.LayerNorm(width)
        self.dense = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.norm_out = nn.LayerNorm(width)

    def forward(self, frames_BTX: Tensor) -> Tensor:
        """The newest frame's features (B, W) in the light of the others."""
        tokens_BTW = self.embed(frames_BTX)
        normed_BTW = self.norm(tokens_BTW)
        heads = (self.heads, -1)
        query_B1ND = self.query(normed_BTW[:, -1:]).unflatten(2, heads)
        key_BTND = self.key(normed_BTW).unflatten(2, heads)
        value_BTND = self.value(normed_BTW).unflatten(2, heads)
        logits_BTN = (query_B1ND * key_BTND).sum(3) / math.sqrt(query_B1ND.shape[3])
        weights_BTN = torch.softmax(logits_BTN.float() + self.preference_NT.T, 1)
        seen_BW = (weights_BTN.unsqueeze(3) * value_BTND).sum(1).flatten(1)
        newest_BW = tokens_BTW[:, -1] + self.join(seen_BW)
        out: Tensor = self.norm_out(newest_BW + self.dense(self.dense_norm(newest_BW)))
        return out


def build_fusion(stacking: str, inputs: int, width: int, horizon: int) -> nn.Module | None:
    """The fusion of a stacking over `horizon` frames, (B, T, inputs) to (B, width).

    None for stackings that fuse nothing, and for a single frame: the weights of its memory or
    attention would never get a gradient.
    """
    made = {"recurrent": Recurrence, "attention": Attention}.get(stacking) if horizon > 1 else None
    return None if made is None else made(inputs, width, horizon)

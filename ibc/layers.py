"""Layers that several models share: MLP, dropout, the inference memo."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


def drop(
    h: Tensor, share: float, generator: torch.Generator | None, by_window: bool = False
) -> Tensor:
    """Dropout with masks from the given generator, so that a resumed training draws the same masks.

    by_window: one mask for all N of h (B, N, W). None or a share of 0 leaves h as it is.
    """
    if generator is None or share == 0.0:
        return h
    shape = (len(h), 1, h.shape[-1]) if by_window else h.shape
    # Sixteen random bits a unit, four units a draw: bernoulli_ costs as much as a matrix product.
    # This rounds the share to a 65536th.
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=h.device)
    words.random_(-(2**63), None, generator=generator)
    keep = words.view(torch.int16)[:count].view(shape) >= round(share * 2**16) - 2**15
    return torch.where(keep, h, 0.0).mul_(1.0 / (1.0 - share))


class MLP(nn.Module):
    """Linear layers with ReLU between them and dropout before each but the first."""

    def __init__(self, sizes: list[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """(B, sizes[0]) to (B, sizes[-1])."""
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else drop(x.relu_(), self.dropout, dropout))
        return x


KEPT = 3  # inputs: the lattice of the search, another one beside it, and one that does not repeat


class Memo:
    """Caches what a layer computed, by the bytes of its input, for the next call.

    Only for weights that do not change, without gradients, on a CPU: from a GPU the input would
    have to be copied first, which costs more than it saves.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, Tensor] = {}
        self._whole: list[tuple[Tensor, Tensor]] = []

    def rows(self, inputs: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return compute(inputs), whose rows (axis 0) are independent; computes new rows only.

        The rows of the last call are kept, others are dropped.
        """
        keys = [row.numpy().tobytes() for row in inputs]
        new = {key: i for i, key in enumerate(keys) if key not in self._rows}
        if new:
            made = compute(inputs[list(new.values())])
            self._rows.update(zip(new, made, strict=True))
        self._rows = {key: self._rows[key] for key in keys}
        return torch.stack([self._rows[key] for key in keys])

    def whole(self, inputs: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return compute(inputs), from the cache if one of the last KEPT inputs was the same."""
        known = (entry for entry in self._whole if torch.equal(entry[0], inputs))
        entry = next(known, None) or (inputs.clone(), compute(inputs))
        self._whole = [entry, *(other for other in self._whole if other is not entry)][:KEPT]
        return entry[1]

"""Layers that several models share: MLP, dropout, spectral normalisation, the inference memo."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


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
    """Linear layers with ReLU between them and dropout before each but the first.

    With `spectral` the layers between the first and the last are normalised.
    """

    def __init__(self, sizes: list[int], dropout: float = 0.0, spectral: bool = False) -> None:
        super().__init__()
        self.dropout = dropout
        inner = range(1, len(sizes) - 2) if spectral else ()
        self.layers = nn.ModuleList(
            dense(a, b, i in inner) for i, (a, b) in enumerate(pairwise(sizes))
        )

    def forward(self, x: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """(B, sizes[0]) to (B, sizes[-1])."""
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else drop(x.relu_(), self.dropout, dropout))
        return x


ROUNDS = 8  # of power iteration


class SpectralLinear(nn.Linear):
    """A linear layer whose matrix is divided by its largest singular value.

    u (outputs,): the estimate of the left singular vector. `forward` refines it for ROUNDS rounds
    without storing the result, which also covers weights near those of the estimate, such as
    averaged ones. Only `advance` changes u, once a training step: predictions repeat exactly, and
    a run resumed from weights and buffers continues with the same bits.
    """

    u: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("u", functional.normalize(torch.randn(outputs), dim=0))

    def advance(self) -> None:
        """Update u to the singular vector of the present weights, in place."""
        self.u.copy_(self._iterate()[0])

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        u, v = self._iterate()
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight / torch.dot(u, self.weight @ v)
        return functional.linear(x, weight, self.bias)

    @torch.no_grad()
    def _iterate(self) -> tuple[Tensor, Tensor]:
        u, weight = self.u, self.weight
        with torch.autocast(weight.device.type, enabled=False):
            for _ in range(ROUNDS):
                v = functional.normalize(weight.T @ u, dim=0)
                u = functional.normalize(weight @ v, dim=0)
        return u, v


def dense(inputs: int, outputs: int, spectral: bool) -> nn.Linear:
    """A linear layer, with spectral normalisation if asked."""
    return SpectralLinear(inputs, outputs) if spectral else nn.Linear(inputs, outputs)


def advance(model: nn.Module) -> None:
    """Advance every spectral layer of the model."""
    for module in model.modules():
        if isinstance(module, SpectralLinear):
            module.advance()


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
        new: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            if key not in self._rows:
                new.setdefault(key, i)
        if new:
            made = compute(inputs[list(new.values())])
            self._rows.update(zip(new, made, strict=True))
        self._rows = {key: self._rows[key] for key in keys}
        return torch.stack([self._rows[key] for key in keys])

    def whole(self, inputs: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return compute(inputs), from the cache if one of the last KEPT inputs was the same."""
        for at, (known, result) in enumerate(self._whole):
            if torch.equal(known, inputs):
                self._whole.insert(0, self._whole.pop(at))
                return result
        result = compute(inputs)
        self._whole = [(inputs.clone(), result), *self._whole[: KEPT - 1]]
        return result

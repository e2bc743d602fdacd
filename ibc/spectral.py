"""Spectral normalisation of dense layers, W / sigma(W) with sigma the gain (Miyato et al. 2018).

In training and in evaluation `forward` is the same function of W and u and changes nothing;
`advance` alone moves u, once a training forward. So predictions repeat themselves, and a run that
is resumed from its weights and buffers goes on to the bit.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

ROUNDS = 8


class SpectralLinear(nn.Linear):
    """A linear layer whose matrix is divided by its largest singular value.

    u (outputs,): the left singular vector, as far as power iteration has found it. From there
    `forward` goes ROUNDS further without keeping them, which also covers weights that are near
    those that u was found for, as averaged ones are.
    """

    u: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("u", functional.normalize(torch.randn(outputs), dim=0))

    def advance(self) -> None:
        """Move u towards the singular vector of the weights as they are now, in place."""
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
    """A linear layer, normalised or not."""
    return SpectralLinear(inputs, outputs) if spectral else nn.Linear(inputs, outputs)


def advance(model: nn.Module) -> None:
    """Advance every spectral layer of the model."""
    for module in model.modules():
        if isinstance(module, SpectralLinear):
            module.advance()

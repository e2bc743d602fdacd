"""EnergyModel: encode the observation once, score N actions. Lower energy is better.

Legend: B batch, N actions scored per observation, D action dimensions, F features, W width.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibc.checks import check_float, check_int


@dataclass(frozen=True)
class EnergyConfig:
    """The late-fusion head: `depth` hidden layers of `width` units over (features, action)."""

    width: int = 256
    depth: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_int("energy.width", self.width, 1, 8192)
        check_int("energy.depth", self.depth, 1, 32)
        check_float("energy.dropout", self.dropout, 0.0, 0.9)


class EnergyModel(nn.Module):
    """E(x, a) by an MLP over the concatenation of features and action (late fusion).

    The first layer is linear in the concatenation, W [f; a] = W_f f + W_a a, so it is computed as
    `observe` (B rows, once an observation, whatever the number of actions and of sampling rounds)
    and `score` (B x N rows, two columns).
    """

    def __init__(self, features: int, action_dim: int, config: EnergyConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.observation = nn.Linear(features, config.width)
        self.action = nn.Linear(action_dim, config.width, bias=False)
        self.hidden = nn.ModuleList(
            nn.Linear(config.width, config.width) for _ in range(config.depth - 1)
        )
        self.out = nn.Linear(config.width, 1)

    def observe(self, features_BF: Tensor) -> Tensor:
        """The observation's share of the first layer, (B, W)."""
        context_BW: Tensor = self.observation(features_BF)
        return context_BW

    def score(
        self, context_BW: Tensor, actions_BND: Tensor, dropout: torch.Generator | None = None
    ) -> Tensor:
        """Energies (B, N) in float32; `dropout` draws the masks, None leaves dropout out.

        The first and the last layer stay in float32 under autocast: bf16 would round actions and
        energies to one part in 256.
        """
        with torch.autocast(actions_BND.device.type, enabled=False):
            h = self.action(actions_BND).add_(context_BW.float().unsqueeze(1)).relu_()
        for layer in self.hidden:
            h = layer(self._drop(h, dropout)).relu_()
        with torch.autocast(actions_BND.device.type, enabled=False):
            energies: Tensor = self.out(self._drop(h, dropout).float()).squeeze(-1)
        return energies

    def forward(self, features_BF: Tensor, actions_BND: Tensor) -> Tensor:
        """Energies (B, N) of N actions for each observation."""
        return self.score(self.observe(features_BF), actions_BND)

    def _drop(self, h: Tensor, generator: torch.Generator | None) -> Tensor:
        return drop(h, self.dropout, generator)


def drop(h: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Dropout with masks from a generator of its own, so that training resumes to the bit."""
    if generator is None or share == 0.0:
        return h
    keep = torch.empty_like(h).bernoulli_(1.0 - share, generator=generator)
    return h * keep.mul_(1.0 / (1.0 - share))


class MLP(nn.Module):
    """Linear layers with ReLU between them and dropout before each but the first."""

    def __init__(self, sizes: list[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """(B, sizes[0]) to (B, sizes[-1])."""
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == 0 else layer(drop(functional.relu(x), self.dropout, dropout))
        return x

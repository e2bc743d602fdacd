"""Energy models: encode the observation once, score N actions. Lower energy is better.

Legend: B batch, N actions scored per observation, D action dimensions, F features, W width.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ibc.config.implicit import EnergyConfig
from ibc.layers import MLP, Memo, drop

Energy = Callable[[Tensor], Tensor]
BLOCK = 2**18  # hidden units of one layer computed at once where that is free: 1 MiB


class ConcatEnergy(nn.Module):
    """E(x, a) by one head over the concatenation of features and action.

    The first layer is linear in the concatenation, W [f; a] = W_f f + W_a a, so it is computed as
    `observe` (B rows, once an observation, whatever the number of actions and of sampling rounds)
    and `score` (B x N rows of D columns).
    """

    def __init__(self, features: int, action_dim: int, config: EnergyConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, config.dropout
        self.by_window = config.dropout_masks == "window"
        width = config.width
        self.observation = nn.Linear(features, width)
        self.action = nn.Linear(action_dim, width, bias=False)
        # Initialised as one layer over the concatenation: the default for the action's half alone,
        # with so few inputs, is so large that training is slower.
        bound = 1.0 / math.sqrt(features + action_dim)
        for half in (self.observation.weight, self.observation.bias, self.action.weight):
            nn.init.uniform_(half, -bound, bound)
        self.hidden = nn.ModuleList(
            [ResidualDense(width) for _ in range(config.depth // 2)]
            if config.head == "resnet"
            else [nn.Linear(width, width) for _ in range(config.depth - 1)]
        )
        self.out = nn.Linear(width, 1)

    def observe(self, features_BF: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """The observation's part of the first layer, (B, W)."""
        context_BW: Tensor = self.observation(features_BF)
        return context_BW

    def score(
        self, context_BW: Tensor, actions_BND: Tensor, dropout: torch.Generator | None = None
    ) -> Tensor:
        """Energies (B, N) in float32; `dropout` draws the masks, None leaves dropout out.

        Actions of shape (1, N, D) are scored for every observation. The first and the last layer
        stay in float32 under autocast: bf16 would round actions and energies to one part in 256.
        On a CPU, without gradients and dropout, candidates are scored in blocks that fit the cache.
        """
        (B, W), N = context_BW.shape, actions_BND.shape[1]
        blocks = (
            dropout is None and actions_BND.device.type == "cpu" and not torch.is_grad_enabled()
        )
        if not blocks or B * N * W <= BLOCK:
            return self._score(context_BW, actions_BND, dropout)
        columns = min(N, max(1, BLOCK // W))
        rows = max(1, BLOCK // (columns * W))
        actions_BND = actions_BND.expand(B, -1, -1)
        parts = zip(torch.split(context_BW, rows), torch.split(actions_BND, rows), strict=True)
        return torch.cat(
            [
                torch.cat([self._score(c, a, None) for a in torch.split(acts, columns, 1)], 1)
                for c, acts in parts
            ]
        )

    def _score(
        self, context_BW: Tensor, actions_BND: Tensor, dropout: torch.Generator | None
    ) -> Tensor:
        with torch.autocast(actions_BND.device.type, enabled=False):
            h = self.action(actions_BND) + context_BW.float().unsqueeze(1)
        if self.config.head == "resnet":
            for block in self.hidden:
                h = block(h, self.dropout, dropout, self.by_window)
            h = h.relu()
        else:
            # Rows in one dimension: ReLU in place on a view would cost a copy of the gradient.
            rows, h = h.shape[:2], h.relu_()
            for layer in self.hidden:
                h = drop(h, self.dropout, dropout, self.by_window).flatten(0, 1)
                h = layer(h).relu_().unflatten(0, rows)
        h = drop(h, self.dropout, dropout, self.by_window)
        with torch.autocast(actions_BND.device.type, enabled=False):
            energies: Tensor = self.out(h.float()).squeeze(-1)
        return energies


class ResidualDense(nn.Module):
    """Two dense layers, each after a ReLU, and a shortcut (He et al. 2016b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, x: Tensor, share: float, dropout: torch.Generator | None, by_window: bool
    ) -> Tensor:
        """(B, N, W) to (B, N, W), with dropout of `share` as in `drop`."""
        h = self.first(drop(x.relu(), share, dropout, by_window)).relu_()
        out: Tensor = x + self.second(drop(h, share, dropout, by_window))
        return out


class ProductEnergy(nn.Module):
    """E(x, a) = -<u(x), v(a)> / sqrt(W): log density as a learned basis over the actions.

    Scoring N actions for B observations takes B + N passes through the towers and one matrix
    product instead of B x N passes, where the actions are the same for all observations.
    """

    by_window = False

    def __init__(self, features: int, action_dim: int, config: EnergyConfig) -> None:
        super().__init__()
        self.memo: Memo | None = None
        width, depth = config.width, config.depth
        self.observation = MLP([features, *[width] * (depth + 1)], config.dropout)
        self.action = nn.Linear(action_dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.scale = 1.0 / math.sqrt(width)

    def observe(self, features_BF: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """u(x), (B, W)."""
        context_BW: Tensor = self.observation(features_BF, dropout)
        return context_BW

    def score(
        self, context_BW: Tensor, actions_BND: Tensor, dropout: torch.Generator | None = None
    ) -> Tensor:
        """Energies (B, N) in float32; actions of shape (1, N, D) are scored for every observation.

        Dropout is applied to observations only. First layer and product stay in float32.
        """
        shared = len(actions_BND) == 1
        if self.memo is None or not shared or torch.is_grad_enabled():
            v = self._tower(actions_BND)
        else:  # a lattice is the same at every step
            v = self.memo.whole(actions_BND, self._tower)
        with torch.autocast(actions_BND.device.type, enabled=False):
            u_BW = context_BW.float() * -self.scale
            v_BNW = v.float().view(*actions_BND.shape[:2], -1)
            energies: Tensor = (
                u_BW @ v_BNW[0].T if shared else torch.bmm(v_BNW, u_BW.unsqueeze(2)).squeeze(2)
            )
        return energies

    def _tower(self, actions_BND: Tensor) -> Tensor:
        """v(a), (B * N, W)."""
        with torch.autocast(actions_BND.device.type, enabled=False):
            # Rows in one dimension: ReLU in place on a view would cost a copy of the gradient.
            v: Tensor = self.action(actions_BND.flatten(0, 1)).relu_()
        for layer in self.hidden:
            v = layer(v).relu_()
        return v


EnergyModel = ConcatEnergy | ProductEnergy


def build_energy(features: int, action_dim: int, config: EnergyConfig) -> EnergyModel:
    """The energy model of the configured fusion."""
    if config.fusion == "concat":
        return ConcatEnergy(features, action_dim, config)
    return ProductEnergy(features, action_dim, config)


def slope(energy: Energy, actions_BSD: Tensor, *, graph: bool = False) -> tuple[Tensor, Tensor]:
    """Energies (B, S) and dE/da (B, S, D), also under no_grad.

    graph: keep the graph, to train on them.
    """
    with torch.enable_grad():
        actions_BSD = actions_BSD.detach().requires_grad_()
        energies_BS = energy(actions_BSD)
        (gradient_BSD,) = torch.autograd.grad(energies_BS.sum(), actions_BSD, create_graph=graph)
    return (energies_BS if graph else energies_BS.detach()), gradient_BSD

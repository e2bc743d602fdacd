"""Mixtures of Gaussians over normalised chunks, and the proposal that is made of one.

Legend: B batch, S samples per observation, M components, D action dimensions, W width.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibc.config.explicit import MDNConfig
from ibc.config.implicit import EnergyConfig
from ibc.data.normalizer import BOUND
from ibc.layers import MLP, drop


class Mixture(NamedTuple):
    """log_weights (B, M), normalised; means (B, M, D); stds (B, M, D)."""

    log_weights: Tensor
    means: Tensor
    stds: Tensor


class Proposal(NamedTuple):
    """What candidates are drawn from: a mixture, and a share of uniform draws within the bounds.

    The share keeps the density above 0 in the bounds, so that the energy is learned in all of them.
    Draws of the mixture may lie outside.
    """

    mixture: Mixture
    uniform_share: float

    def detach(self) -> "Proposal":
        """The same without gradients."""
        return self._replace(mixture=Mixture(*(value.detach() for value in self.mixture)))

    def draw(self, units_BSX: Tensor, normals_BSD: Tensor) -> Tensor:
        """Samples (B, S, D) by uniform numbers (B, S, D + 2) and normal ones (B, S, D)."""
        log_weights_BM, means_BMD, stds_BMD = self.mixture
        cumulative_BM = log_weights_BM.double().exp().cumsum(1)
        target_BS = units_BSX[..., 0].double() * cumulative_BM[:, -1:]
        picks_BS = torch.searchsorted(cumulative_BM, target_BS, right=True)
        picks_BS1 = picks_BS.clamp_(max=cumulative_BM.shape[1] - 1).unsqueeze(2)
        means_BSD, stds_BSD = (v.take_along_dim(picks_BS1, 1) for v in (means_BMD, stds_BMD))
        far_BS1 = units_BSX[..., 1:2] < self.uniform_share
        uniform_BSD = units_BSX[..., 2:] * (2 * BOUND) - BOUND
        return torch.where(far_BS1, uniform_BSD, means_BSD + stds_BSD * normals_BSD)

    def log_density(self, actions_BSD: Tensor) -> Tensor:
        """The log density (B, S) of actions, exact; actions (1, S, D) are those of all rows."""
        share, D = self.uniform_share, actions_BSD.shape[2]
        inside_BS = (actions_BSD.abs() <= BOUND).all(2)
        far_BS = torch.where(inside_BS, math.log(share) - D * math.log(2 * BOUND), -math.inf)
        if share == 1.0:
            return far_BS.expand(len(self.mixture.means), -1)
        each = Mixture(*(value.unsqueeze(1) for value in self.mixture))
        return torch.logaddexp(log_likelihood(each, actions_BSD) + math.log1p(-share), far_BS)


class ProposalHead(nn.Module):
    """Features to a proposal; hidden layers of the energy's size."""

    def __init__(
        self,
        features: int,
        dimensions: int,
        energy: EnergyConfig,
        config: MDNConfig,
        uniform_share: float,
    ) -> None:
        super().__init__()
        self.head, self.out = layers(features, dimensions, energy, config)
        self.config, self.uniform_share = config, uniform_share

    def forward(self, features_BF: Tensor, dropout: torch.Generator | None = None) -> Proposal:
        """What is proposed for every row."""
        mixture = read_features(self.head, self.out, features_BF, self.config, dropout)
        return Proposal(mixture, self.uniform_share)


def layers(
    features: int, dimensions: int, energy: EnergyConfig, config: MDNConfig
) -> tuple[MLP, nn.Linear]:
    """The hidden layers of a mixture's head, and its last one."""
    head = MLP([features, *[energy.width] * energy.depth], energy.dropout)
    return head, nn.Linear(energy.width, outputs(config.components, dimensions))


def read_features(
    head: MLP,
    out: nn.Linear,
    features_BF: Tensor,
    config: MDNConfig,
    dropout: torch.Generator | None = None,
) -> Mixture:
    """The mixture that these layers give; the last one stays in float32 under autocast."""
    h_BW = drop(head(features_BF, dropout).relu_(), head.dropout, dropout)
    with torch.autocast(h_BW.device.type, enabled=False):
        raw_BX = out(h_BW.float())
    return mixture(raw_BX, config.components, config.min_std)


def outputs(components: int, dimensions: int) -> int:
    """Size of a network's output for a mixture."""
    return components * (1 + 2 * dimensions)


def mixture(raw_BX: Tensor, components: int, min_std: float) -> Mixture:
    """The mixture of a network's raw output (B, M * (1 + 2 D)), in float32."""
    raw_BMX = raw_BX.float().reshape(len(raw_BX), components, -1)
    D = raw_BMX.shape[2] // 2
    return Mixture(
        torch.log_softmax(raw_BMX[..., 0], 1),
        raw_BMX[..., 1 : 1 + D],
        functional.softplus(raw_BMX[..., 1 + D :]) + min_std,
    )


def log_likelihood(given: Mixture, actions_BD: Tensor) -> Tensor:
    """The log density (B,) of one chunk a row, finite even far from all components."""
    z_BMD = (actions_BD.unsqueeze(-2) - given.means) / given.stds
    log_BMD = -0.5 * z_BMD.square() - given.stds.log() - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(given.log_weights + log_BMD.sum(-1), -1)

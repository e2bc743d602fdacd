"""The explicit policy that implicit behavioral cloning is compared with.

Legend: B batch, H action horizon, A = 2, D = H * A.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ibc.base import Batch, Policy, PolicyConfig
from ibc.energy import MLP
from ibc.normalize import Normalizer


class MSEPolicy(Policy):
    """Regression of the normalised action on the same encoder; a head of the same size."""

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        widths = [config.energy.width] * config.energy.depth
        sizes = [self.encoder.out_features, *widths, 2 * config.action_horizon]
        self.head = MLP(sizes, config.energy.dropout)

    def compute_loss(
        self,
        batch: Batch,
        generator: torch.Generator,
        augment: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error; loss_ratio is its share of the error of the batch's mean action."""
        obs = self.prepare(batch)
        targets_BD, clipped = self.encode_targets(batch, obs)
        predicted_BD = self.head(self.encoder(obs, augment), augment)
        loss = (predicted_BD.float() - targets_BD).square().mean()
        chance = (targets_BD - targets_BD.mean(0)).square().mean().clamp(min=1e-12)
        return loss, {"loss_ratio": loss.detach() / chance, "clipped_share": clipped}

    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """The regressed action; nothing is drawn."""
        actions_BD = self.head(self.encoder(dict(obs))).float().clamp(-1.0, 1.0)
        return {"policy": self.normalizer.decode(actions_BD, self.newest_agent(obs))}

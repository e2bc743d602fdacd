"""A plain fp32 implicit policy: Diffusion Policy's network for low-dimensional PushT.

Written simply, from its description: the observation is repeated for every candidate;
MLP(observation, action) with 4 hidden layers, ReLU and dropout 0.1 is the energy; InfoNCE over the
demonstrated action and N uniform ones; AdamW; DFO with 1024 samples and 5 iterations.

Legend: B windows, K = N + 1 candidates, S samples, F features, D = 2.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLES, ROUNDS, NOISE = 1024, 5, 0.03


class PlainEnergy(nn.Module):
    """Energies (B, K) of candidates (B, K, D) for observations (B, F)."""

    def __init__(self, features: int, width: int, depth: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        sizes = [features + 2] + [width] * depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 1)

    def forward(self, obs_BF: Tensor, actions_BKD: Tensor) -> Tensor:
        """Every candidate gets a copy of its observation."""
        repeated = obs_BF.unsqueeze(1).expand(-1, actions_BKD.shape[1], -1)
        x = torch.cat([repeated, actions_BKD], -1)
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        energies: Tensor = self.out(x).squeeze(-1)
        return energies


class PlainTrainer:
    """Trains on random windows of normalised observations (L, F) and actions (L, D)."""

    def __init__(
        self, obs_LF: Tensor, actions_LD: Tensor, width: int, negatives: int, batch: int, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.obs_LF, self.actions_LD = obs_LF, actions_LD
        self.negatives, self.batch = negatives, batch
        self.net = PlainEnergy(obs_LF.shape[1], width)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6
        )
        self.order = torch.randperm(len(obs_LF))

    def loss(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return InfoNCE, the mean over the rows."""
        positives = self.actions_LD[rows].unsqueeze(1)
        drawn = torch.rand(len(rows), self.negatives, 2, generator=generator) * 2 - 1
        energies_BK = self.net(self.obs_LF[rows], torch.cat([positives, drawn], 1))
        return functional.cross_entropy(-energies_BK, torch.zeros(len(rows), dtype=torch.long))

    def step(self) -> float:
        """Make one optimiser step and return its loss."""
        if len(self.order) < self.batch:
            self.order = torch.randperm(len(self.obs_LF))
        rows, self.order = self.order[: self.batch], self.order[self.batch :]
        loss = self.loss(rows)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def act(self, obs_BF: Tensor) -> Tensor:
        """Return an action (B, D) for each observation, drawn from the last samples."""
        self.net.eval()
        samples_BSD = torch.rand(len(obs_BF), SAMPLES, 2) * 2 - 1
        for r in range(ROUNDS):
            weights_BS = torch.softmax(-self.net(obs_BF, samples_BSD), 1)
            if r < ROUNDS - 1:
                picks = torch.multinomial(weights_BS, SAMPLES, replacement=True)
                samples_BSD = samples_BSD.gather(1, picks.unsqueeze(-1).expand(-1, -1, 2))
                samples_BSD = samples_BSD + NOISE * torch.randn_like(samples_BSD)
        pick = torch.multinomial(weights_BS, 1)
        self.net.train()
        return samples_BSD.gather(1, pick.unsqueeze(-1).expand(-1, -1, 2)).squeeze(1)

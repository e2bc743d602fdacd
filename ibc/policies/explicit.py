"""Explicit policies on the same encoder, the baselines of implicit behavioral cloning.

Legend: B batch, H action horizon, A = 2, D = H * A, W width, L noise levels.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import BOUND, Normalizer
from ibc.layers import MLP, drop
from ibc.policies import diffusion, mixture
from ibc.policies.base import Batch, Policy


class MSEPolicy(Policy):
    """Regression of the normalised action on the same encoder; a head of the same size."""

    kind = "mse"

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        widths = [config.energy.width] * config.energy.depth
        sizes = [self.encoder.out_features, *widths, 2 * config.action_horizon]
        self.head = MLP(sizes, config.energy.dropout)

    def compute_loss(
        self, batch: Batch, generator: torch.Generator, augment: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error; loss_ratio is its share of the error of the batch's mean action."""
        obs = self.prepare(batch)
        targets_BD, clipped = self.encode_targets(batch, obs)
        predicted_BD = self.head(self.encoder(obs, augment), augment)
        loss = (predicted_BD.float() - targets_BD).square().mean()
        return loss, {"loss_ratio": loss.detach() / _variance(targets_BD), "clipped_share": clipped}

    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """The regressed action; nothing is drawn."""
        actions_BD = self.head(self.encoder(dict(obs))).float().clamp(-BOUND, BOUND)
        return {"policy": self.normalizer.decode(actions_BD, self.newest_agent(obs))}


class MDNPolicy(Policy):
    """A mixture of Gaussians over the normalised chunk (Bishop 1994); a head of the same size."""

    kind = "mdn"

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        widths = [config.energy.width] * config.energy.depth
        self.head = MLP([self.encoder.out_features, *widths], config.energy.dropout)
        outputs = mixture.outputs(config.mdn.components, 2 * config.action_horizon)
        self.out = nn.Linear(config.energy.width, outputs)

    def compute_loss(
        self, batch: Batch, generator: torch.Generator, augment: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log likelihood per action dimension, in nats; it may well be negative.

        loss_ratio compares it with one Gaussian fitted to the batch's actions, as e^(difference):
        the ratio, per dimension, of the volumes over which the two spread their probability. A
        model that ignores the observation has 1, one with a third of every deviation 1/3.
        """
        obs = self.prepare(batch)
        targets_BD, clipped = self.encode_targets(batch, obs)
        given = self._mixture(self.encoder(obs, augment), augment)
        dimensions = targets_BD.shape[1]
        loss = -mixture.log_likelihood(given, targets_BD).mean() / dimensions
        chance = -mixture.one_gaussian(targets_BD, self.config.mdn.min_std) / dimensions
        ratio = (loss.detach() - chance).clamp(max=10.0).exp()
        return loss, {"loss_ratio": ratio, "clipped_share": clipped}

    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """The mean of largest weight ("argmax") and the configured readout ("policy")."""
        given, agent_BA = self.density(obs), self.newest_agent(obs)
        read = mixture.read_mixture(given, self.config.mdn.readout, generators)
        return {
            name: self.normalizer.decode(actions_BD.clamp(-BOUND, BOUND), agent_BA)
            for name, actions_BD in (("argmax", mixture.mode(given)), ("policy", read))
        }

    def density(self, obs: Mapping[str, Tensor]) -> mixture.Mixture:
        """The mixture over the normalised chunk, for prepared observations."""
        return self._mixture(self.encoder(dict(obs)))

    def _mixture(
        self, features_BF: Tensor, dropout: torch.Generator | None = None
    ) -> mixture.Mixture:
        h_BW = drop(self.head(features_BF, dropout).relu_(), self.config.energy.dropout, dropout)
        with torch.autocast(h_BW.device.type, enabled=False):
            raw_BX = self.out(h_BW.float())
        return mixture.mixture(raw_BX, self.config.mdn.components, self.config.mdn.min_std)


class DiffusionPolicy(Policy):
    """A compact Diffusion Policy (Chi et al. 2023): the chunk is denoised by a small network."""

    kind = "diffusion"
    signal: Tensor

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        self.denoiser = diffusion.Denoiser(
            self.encoder.out_features, config.action_horizon, config.diffusion
        )
        self.register_buffer("signal", diffusion.signal_shares(config.diffusion))

    def compute_loss(
        self, batch: Batch, generator: torch.Generator, augment: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the chunks predicted at a noise level drawn for each window.

        loss_ratio is its share of the chunks' variance.
        """
        config, obs = self.config.diffusion, self.prepare(batch)
        targets_BD, clipped = self.encode_targets(batch, obs)
        chunks_BD = targets_BD / config.spread
        B, device = len(chunks_BD), chunks_BD.device
        level_B = torch.randint(config.train_steps, (B,), generator=generator, device=device)
        noise_BD = torch.randn(chunks_BD.shape, generator=generator, device=device)
        noised_BD = diffusion.add_noise(chunks_BD, noise_BD, self.signal[level_B])
        context_BW = self.denoiser.observe(self.encoder(obs, augment))
        predicted_BD = self.denoiser(context_BW, noised_BD, level_B)
        loss = (predicted_BD - chunks_BD).square().mean()
        return loss, {"loss_ratio": loss.detach() / _variance(chunks_BD), "clipped_share": clipped}

    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """One chunk a row, denoised from noise of its own."""
        predict = partial(self.denoiser, self.denoiser.observe(self.encoder(dict(obs))))
        D, config = 2 * self.action_horizon, self.config.diffusion
        actions_BD = diffusion.denoise(predict, D, config, self.signal, generators)
        return {"policy": self.normalizer.decode(actions_BD, self.newest_agent(obs))}


def _variance(targets_BD: Tensor) -> Tensor:
    return (targets_BD - targets_BD.mean(0)).square().mean().clamp(min=1e-12)

"""Explicit policies on the same encoder, the baselines of implicit behavioral cloning.

Legend: B batch, H action horizon, A = 2, D = H * A, M components of a mixture,
W width, L noise levels.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import BOUND, Normalizer
from ibc.layers import MLP
from ibc.policies import diffusion
from ibc.policies.base import Batch, Policy
from ibc.sampling.mixture import Mixture, layers, log_likelihood, read_features


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
        features_BF, taught, metrics = self.taught_features(batch, obs, augment)
        predicted_BD = self.head(features_BF, augment)
        loss = (predicted_BD.float() - targets_BD).square().mean()
        ratio = loss.detach() / _variance(targets_BD)
        return loss + taught, {"loss_ratio": ratio, "clipped_share": clipped, **metrics}

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
        self.head, self.out = layers(
            self.encoder.out_features, 2 * config.action_horizon, config.energy, config.mdn
        )

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
        features_BF, taught, metrics = self.taught_features(batch, obs, augment)
        given = self._mixture(features_BF, augment)
        dimensions = targets_BD.shape[1]
        loss = -log_likelihood(given, targets_BD).mean() / dimensions
        chance = -one_gaussian(targets_BD, self.config.mdn.min_std) / dimensions
        ratio = (loss.detach() - chance).clamp(max=10.0).exp()
        return loss + taught, {"loss_ratio": ratio, "clipped_share": clipped, **metrics}

    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """The mean of largest weight ("argmax") and the configured readout ("policy")."""
        given, agent_BA = self.density(obs), self.newest_agent(obs)
        read = read_mixture(given, self.config.mdn.readout, generators)
        return {
            name: self.normalizer.decode(actions_BD.clamp(-BOUND, BOUND), agent_BA)
            for name, actions_BD in (("argmax", mode(given)), ("policy", read))
        }

    def density(self, obs: Mapping[str, Tensor]) -> Mixture:
        """The mixture over the normalised chunk, for prepared observations."""
        return self._mixture(self.encoder(dict(obs)))

    def _mixture(self, features_BF: Tensor, dropout: torch.Generator | None = None) -> Mixture:
        return read_features(self.head, self.out, features_BF, self.config.mdn, dropout)


def one_gaussian(actions_BD: Tensor, min_std: float) -> Tensor:
    """Mean log likelihood of a batch of actions under one diagonal Gaussian fitted to it.

    A dimension's deviation is floored at min_std, as those of the mixture are.
    """
    variance_D = actions_BD.var(0, correction=0).clamp(min=min_std**2)
    return -0.5 * (torch.log(2 * math.pi * variance_D) + 1.0).sum()


def mode(given: Mixture) -> Tensor:
    """The mean (B, D) of the component of largest weight."""
    return _picked(given.means, given.log_weights.argmax(1))


def read_mixture(given: Mixture, readout: str, generators: Sequence[torch.Generator]) -> Tensor:
    """One chunk (B, D) a row; row b draws from generators[b], equally many numbers per readout."""
    device, (M, D) = given.means.device, given.means.shape[1:]
    units = [torch.rand(1, generator=g, device=g.device) for g in generators]
    normals = [torch.randn(D, generator=g, device=g.device) for g in generators]
    cumulative_BM = given.log_weights.double().exp().cumsum(1)
    unit_B1 = torch.stack(units).to(device).double() * cumulative_BM[:, -1:]
    picks_B = torch.searchsorted(cumulative_BM, unit_B1, right=True).clamp_(max=M - 1).squeeze(1)
    means_BD = _picked(given.means, picks_B)
    if readout == "component":
        return means_BD
    return means_BD + _picked(given.stds, picks_B) * torch.stack(normals).to(device)


def _picked(of_components_BMD: Tensor, picks_B: Tensor) -> Tensor:
    return of_components_BMD[torch.arange(len(picks_B), device=picks_B.device), picks_B]


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
        features_BF, taught, metrics = self.taught_features(batch, obs, augment)
        context_BW = self.denoiser.observe(features_BF)
        predicted_BD = self.denoiser(context_BW, noised_BD, level_B)
        loss = (predicted_BD - chunks_BD).square().mean()
        ratio = loss.detach() / _variance(chunks_BD)
        return loss + taught, {"loss_ratio": ratio, "clipped_share": clipped, **metrics}

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

"""IBCPolicy, and building and loading a policy of any kind.

Legend: B batch, K = N + 1 candidates, S samples, H action horizon, A = 2, D = H * A.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ibc import inference, losses, negatives
from ibc.base import Batch, Policy, PolicyConfig, load_weights, read_config
from ibc.checks import check
from ibc.energy import build_energy
from ibc.explicit import DiffusionPolicy, MDNPolicy, MSEPolicy
from ibc.normalize import Normalizer
from ibc.windows import Windows

__all__ = ["IBCPolicy", "Policy", "PolicyConfig", "build_policy", "fit_normalizer", "load_policy"]


class IBCPolicy(Policy):
    """Implicit behavioral cloning: the action of least energy (Florence et al. 2021)."""

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        self.energy = build_energy(
            self.encoder.out_features, 2 * config.action_horizon, config.energy
        )

    def compute_loss(
        self,
        batch: Batch,
        generator: torch.Generator,
        augment: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE over the demonstrated action and `count` counter-examples."""
        obs = self.prepare(batch)
        positives_BD, clipped = self.encode_targets(batch, obs)
        negatives_BND, correction_BK = negatives.sample(
            self.config.negatives, positives_BD, self._stay(obs), generator
        )
        context_BW = self.energy.observe(self.encoder(obs, augment), augment)
        energies_B1 = self.energy.score(context_BW, positives_BD.unsqueeze(1), augment)
        energies_BN = self.energy.score(context_BW, negatives_BND, augment)
        energies_BK = torch.cat([energies_B1, energies_BN], 1)
        loss = losses.info_nce(energies_BK, correction_BK).mean()
        chance = losses.info_nce(torch.zeros_like(energies_BK), correction_BK).mean()
        return loss, {
            "loss_ratio": loss.detach() / chance,
            "clipped_share": clipped,
            **losses.candidate_statistics(energies_BK, correction_BK),
        }

    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """The lowest energy found ("argmax") and the configured readout ("policy")."""
        context_BW = self.energy.observe(self.encoder(dict(obs)))
        rows, config = len(context_BW), self.config.inference
        check(len(generators) == rows, f"there must be {rows} generators", len(generators))

        def energy(actions_BSD: Tensor) -> Tensor:
            return self.energy.score(context_BW, actions_BSD)

        if config.sampler == "lattice":
            samples = inference.lattice(energy, config.lattice, generators, self.device)
        else:
            dimensions = 2 * self.action_horizon
            samples = inference.dfo(energy, dimensions, config, generators, self.device)
        bandwidth = self.normalizer.lengths(config.bandwidth)
        bandwidth_D = bandwidth.expand(self.action_horizon, 2).flatten()
        agent_BA = self.newest_agent(obs)
        return {
            name: self.normalizer.decode(
                inference.read_out(samples, readout, bandwidth_D), agent_BA
            )
            for name, readout in (("argmax", "argmax"), ("policy", config.readout))
        }

    def _stay(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The normalised action "stay where you are", (B, D)."""
        agent_BA = self.newest_agent(obs)
        stay_BHA = agent_BA[:, None].expand(-1, self.action_horizon, -1)
        return self.normalizer.encode(stay_BHA, agent_BA).clamp(-1.0, 1.0)

    @classmethod
    def load(cls, directory: Path | str) -> Self:
        """The energy policy saved in the directory; ValueError if another kind is."""
        policy = load_policy(directory)
        if not isinstance(policy, cls):
            raise ValueError(
                f'{directory} must hold a policy of kind "ibc", got "{policy.config.kind}"'
            )
        return policy


def fit_normalizer(config: PolicyConfig, train: Windows) -> Normalizer:
    """The normaliser of a policy from the training windows (images are not read)."""
    light = Windows(train.demos, train.episodes, "state", 1, config.action_horizon)
    batch = light.batch(np.arange(len(light)))
    agent_BA = torch.as_tensor(batch["state"])[:, -1, :2]
    return Normalizer.fit(config.action, torch.as_tensor(batch["action"]), agent_BA)


def build_policy(config: PolicyConfig, normalizer: Normalizer, *, generator_seed: int) -> Policy:
    """A policy with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_seed)
        return _CLASSES[config.kind](config, normalizer)


def load_policy(directory: Path | str) -> Policy:
    """The policy of any kind saved in the directory, on the CPU, with inference weights.

    ValueError names the file and the first thing in it that does not fit. No code is run and no
    memory taken beyond the file's own tensors.
    """
    config = read_config(Path(directory))
    with torch.device("meta"):
        normalizer = Normalizer.blank(config.action, config.action_horizon)
        policy = _CLASSES[config.kind](config, normalizer)
    load_weights(policy, Path(directory))
    return policy


_CLASSES: dict[str, type[Policy]] = {
    "ibc": IBCPolicy,
    "mse": MSEPolicy,
    "mdn": MDNPolicy,
    "diffusion": DiffusionPolicy,
}

"""Implicit behavioral cloning: a policy that searches for the action of least energy.

Legend: B batch, N negatives, K = N + 1 candidates, F features, H action horizon, A = 2, D = H * A
(or as many of these columns as a part has), P columns before a part.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ibc.config.checks import check
from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import Normalizer
from ibc.energy import autoregressive, losses
from ibc.energy.models import EnergyModel
from ibc.policies.base import Batch, Policy
from ibc.sampling import negatives
from ibc.sampling.readout import Samples, read_out
from ibc.sampling.search import Warm, search


class IBCPolicy(Policy):
    """Implicit behavioral cloning: the action of least energy (Florence et al. 2021).

    `energy` is one model over the whole chunk, or a list of one for each part of it
    (ibc/energy/autoregressive.py); `parts` covers both.
    """

    kind = "ibc"

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        self.energy = autoregressive.build(
            self.encoder.out_features, config.action_horizon, config.energy
        )

    @property
    def parts(self) -> list[tuple[slice, EnergyModel]]:
        """The columns of a chunk (B, D) that are scored together, with their energy model."""
        columns = autoregressive.parts(self.config.energy.conditionals, self.action_horizon)
        models = self.energy if isinstance(self.energy, nn.ModuleList) else [self.energy]
        return [(part, cast(EnergyModel, m)) for part, m in zip(columns, models, strict=True)]

    @property
    def uses_previous(self) -> bool:
        """Whether samples start around the action executed last."""
        return self.config.inference.warm_start > 0.0

    def compute_loss(
        self, batch: Batch, generator: torch.Generator, augment: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE over the demonstrated action and `count` counter-examples, mean of all parts.

        loss_ratio is InfoNCE alone over its chance level ln(N + 1).
        """
        obs = self.prepare(batch)
        positives_BD, clipped = self.encode_targets(batch, obs)
        features_BF, stay_BD = self.encoder(obs, augment), self._stay(obs)
        found = []
        for part, model in self.parts:
            given_BF = autoregressive.condition(features_BF, positives_BD[:, : part.start])
            context_BW = model.observe(given_BF, augment)
            own_BD = positives_BD[:, part]
            found.append(
                self._part_loss(model, context_BW, own_BD, stay_BD[:, part], generator, augment)
            )
        mean = {name: torch.stack([part[name] for part in found]).mean() for name in found[0]}
        return mean.pop("loss"), {"clipped_share": clipped, **mean}

    def _part_loss(
        self,
        model: EnergyModel,
        context_BW: Tensor,
        positives_BD: Tensor,
        stay_BD: Tensor,
        generator: torch.Generator,
        augment: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """The loss of one energy model, with numbers to watch."""
        config, correction_BK = self.config, None
        chains: dict[str, Tensor] = {}
        if config.negatives.moved:
            energy = partial(model.score, context_BW.detach())
            negatives_BND, chains = negatives.moved(
                config.negatives, positives_BD, energy, generator
            )
        else:
            negatives_BND, correction_BK = negatives.sample(
                config.negatives, positives_BD, stay_BD, generator
            )
        energies_BK = losses.score_candidates(
            model, context_BW, positives_BD, negatives_BND, augment
        )
        loss = losses.info_nce(energies_BK, correction_BK).mean()
        chance = losses.info_nce(torch.zeros_like(energies_BK), correction_BK).mean()
        numbers = {
            "loss_ratio": loss.detach() / chance,
            **losses.candidate_statistics(energies_BK, correction_BK),
            **chains,
        }
        if config.loss.gradient_penalty > 0.0:
            places_BND = negatives_BND.expand(len(context_BW), -1, -1)
            energy = partial(model.score, context_BW)
            penalty, slope = losses.gradient_penalty(energy, places_BND, config.loss)
            loss = loss + config.loss.gradient_penalty * penalty
            numbers |= {"gradient_penalty": penalty.detach(), "action_gradient": slope}
        return {"loss": loss, **numbers}

    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """The lowest energy found ("argmax") and the configured readout ("policy")."""
        readout = self.config.inference.readout
        found, _ = self.search(obs, generators, (readout, "argmax"))
        return {"argmax": found["argmax"], "policy": found[readout]}

    def act(
        self,
        obs: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
        previous: Tensor | None = None,
    ) -> Tensor:
        """Actions (B, H, 2) px by the configured readout, warm-started if so configured."""
        readout = self.config.inference.readout
        return self.search(obs, generators, (readout,), previous)[0][readout]

    def search(
        self,
        obs: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
        readouts: Sequence[str],
        previous: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Samples]:
        """Actions (B, H, 2) px by every readout, and the samples of the chunk's first part.

        A readout settles one part of the chunk after the other, each given its earlier parts.
        """
        features_BF, agent_BA = self.encoder(dict(obs)), self.newest_agent(obs)
        B, config = len(features_BF), self.config.inference
        check(len(generators) == B, f"there must be {B} generators", len(generators))
        bandwidth_D = self._lengths(config.bandwidth)
        warm = self._warm(previous, agent_BA)
        found = {readout: torch.empty(B, 0, device=self.device) for readout in readouts}
        first: Samples | None = None
        for part, model in self.parts:
            for readout, earlier_BP in found.items():
                if first is None or part.start > 0:  # the first part is the same for all readouts
                    given_BF = autoregressive.condition(features_BF, earlier_BP)
                    samples = search(
                        partial(model.score, model.observe(given_BF)),
                        part.stop - part.start,
                        config,
                        generators,
                        self.device,
                        warm and Warm(warm.centre[:, part], warm.spread[part]),
                    )
                    first = first or samples
                own_BD = read_out(samples, readout, bandwidth_D[part])
                found[readout] = torch.cat([earlier_BP, own_BD], 1)
        assert first is not None
        actions = {name: self.normalizer.decode(a_BD, agent_BA) for name, a_BD in found.items()}
        return actions, first

    def energies(self, obs: Mapping[str, Tensor], actions_BKD: Tensor) -> Tensor:
        """Energies (B, K) of normalised actions for prepared observations, summed over the parts.

        Actions of shape (1, K, D) are scored for every observation. Sums can be compared only where
        the energy is joint: the energy of a part is defined up to a constant that depends on the
        parts before it.
        """
        features_BF = self.encoder(dict(obs))
        B, K = len(features_BF), actions_BKD.shape[1]
        total_BK = torch.zeros(B, K, device=self.device)
        for part, model in self.parts:
            own_BKD = actions_BKD[..., part]
            if part.start == 0:
                total_BK = total_BK + model.score(model.observe(features_BF), own_BKD)
                continue
            own_BKD = own_BKD.expand(B, -1, -1)
            earlier_BKP = actions_BKD[..., : part.start].expand(B, -1, -1)
            given_XF = autoregressive.condition(
                features_BF.repeat_interleave(K, 0), earlier_BKP.flatten(0, 1)
            )
            energies_X1 = model.score(model.observe(given_XF), own_BKD.flatten(0, 1).unsqueeze(1))
            total_BK = total_BK + energies_X1.view(B, K)
        return total_BK

    def _lengths(self, px: float) -> Tensor:
        """A length in px in normalised units of every column, (D,)."""
        return self.normalizer.lengths(px).expand(self.action_horizon, 2).flatten()

    def _warm(self, previous: Tensor | None, agent_BA: Tensor) -> Warm | None:
        """The action executed last, for every step of the chunk: a target that stays."""
        if previous is None or not self.uses_previous:
            return None
        rule = f"previous actions must have the shape ({len(agent_BA)}, n, 2), n at least 1"
        shape = tuple(previous.shape)
        ok = len(shape) == 3 and shape[1] > 0 and shape[::2] == (len(agent_BA), 2)
        check(ok, rule, shape)
        last_B1A = previous[:, -1:].to(self.device, torch.float32)
        centre_BD = self.normalizer.encode(
            last_B1A.expand(-1, self.action_horizon, -1), agent_BA
        ).clamp(-1.0, 1.0)
        return Warm(centre_BD, self._lengths(self.config.inference.warm_noise))

    def _stay(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The normalised action "stay where you are", (B, D)."""
        agent_BA = self.newest_agent(obs)
        stay_BHA = agent_BA[:, None].expand(-1, self.action_horizon, -1)
        return self.normalizer.encode(stay_BHA, agent_BA).clamp(-1.0, 1.0)

"""Implicit behavioral cloning: a policy that searches for the action of least energy.

Legend: B batch, N negatives, K = N + 1 candidates, F features, H action horizon, A = 2, D = H * A
(or as many of these columns as a part has), P columns before a part.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ibc.config.checks import check
from ibc.config.policy import PolicyConfig
from ibc.data import symmetry
from ibc.data.normalizer import Normalizer
from ibc.energy import autoregressive, losses
from ibc.energy.models import Energy, EnergyModel
from ibc.policies.base import Batch, Policy
from ibc.sampling import negatives
from ibc.sampling.mixture import Proposal, ProposalHead, log_likelihood
from ibc.sampling.readout import Samples, read_out
from ibc.sampling.search import Warm, cells, search

Conditional = Callable[[int, Tensor], Energy]


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
        self.proposal: ProposalHead | None = None
        if config.negatives.sampler == "proposal":
            self.proposal = ProposalHead(
                self.encoder.out_features,
                2 * config.action_horizon,
                config.energy,
                config.mdn,
                config.negatives.uniform_share,
            )

    @property
    def parts(self) -> list[tuple[slice, EnergyModel]]:
        """The columns that are scored together, with their energy model."""
        models = self.energy if isinstance(self.energy, nn.ModuleList) else [self.energy]
        return [(part, cast(EnergyModel, m)) for part, m in zip(self.columns, models, strict=True)]

    @property
    def columns(self) -> list[slice]:
        """The columns of a chunk (B, D) that are scored together."""
        return autoregressive.parts(self.config.energy.conditionals, self.action_horizon)

    def compute_loss(
        self, batch: Batch, generator: torch.Generator, augment: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE over the demonstrated action and `count` counter-examples, mean of all parts.

        loss_ratio is InfoNCE alone over its chance level, that of equal energies (ln(N + 1) without
        a correction). A proposal learns by its own likelihood (proposal_loss, per dimension), which
        also trains the encoder; only its gradient is added, because a log density has no zero.
        """
        obs = self.prepare(batch)
        positives_BD, clipped = self.encode_targets(batch, obs)
        features_BF, taught, metrics = self.taught_features(batch, obs, augment)
        agent_BA = self.newest_agent(obs)
        stay_BD = self._held(agent_BA, agent_BA)
        proposal = learned = self._propose(features_BF, augment)
        if learned is not None:
            proposal = learned.detach()
        found = []
        for part, model in self.parts:
            given_BF = autoregressive.condition(features_BF, positives_BD[:, : part.start])
            context_BW = model.observe(given_BF, augment)
            own_BD = positives_BD[:, part]
            found.append(
                self._part_loss(
                    model, part, context_BW, own_BD, stay_BD[:, part], proposal, generator, augment
                )
            )
        mean = {name: torch.stack([part[name] for part in found]).mean() for name in found[0]}
        loss = mean.pop("loss") + taught
        if learned is not None:
            own_loss = -log_likelihood(learned.mixture, positives_BD).mean() / positives_BD.shape[1]
            mean["proposal_loss"] = own_loss.detach()
            loss = loss + (own_loss - own_loss.detach())
        return loss, {"clipped_share": clipped, **metrics, **mean}

    def _part_loss(
        self,
        model: EnergyModel,
        part: slice,
        context_BW: Tensor,
        positives_BD: Tensor,
        stay_BD: Tensor,
        proposal: Proposal | None,
        generator: torch.Generator,
        augment: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """The loss of one energy model, with numbers to watch."""
        config, correction_BK = self.config, None
        chains: dict[str, Tensor] = {}
        if config.loss.form == "likelihood":
            negatives_BND = cells(config.loss.lattice, positives_BD.shape[1], self.device)
        elif config.negatives.moved:
            energy = partial(model.score, context_BW.detach())
            negatives_BND, chains = negatives.moved(
                config.negatives, positives_BD, energy, generator
            )
        elif proposal is not None:
            negatives_BND, correction_BK = negatives.proposed(
                proposal, positives_BD, config.negatives.count, generator
            )
        else:
            negatives_BND, correction_BK = negatives.sample(
                config.negatives, positives_BD, stay_BD, generator
            )
        energies_BK = losses.score_candidates(
            model, context_BW, positives_BD, negatives_BND, augment
        )
        if proposal is not None:
            assert correction_BK is not None
            energies_BK = energies_BK + correction_BK  # as in `_energy`
        if config.loss.form == "likelihood":
            target_BS = None
            if config.loss.soft_px > 0.0:
                lengths_D = self._lengths(config.loss.soft_px)[part]
                target_BS = losses.soft_target(negatives_BND, positives_BD, lengths_D)
            loss = losses.likelihood(energies_BK, target_BS).mean()
            chance = torch.tensor(math.log(negatives_BND.shape[1]), device=self.device)
        else:
            loss = losses.info_nce(energies_BK, correction_BK).mean()
            chance = losses.info_nce(torch.zeros_like(energies_BK), correction_BK).mean()
        numbers = {
            "loss_ratio": loss.detach() / chance,
            **losses.candidate_statistics(energies_BK, correction_BK),
            **chains,
        }
        if config.loss.gradient_penalty > 0.0:
            places_BND = negatives_BND.expand(len(context_BW), -1, -1)
            whole = _energy(model, context_BW, proposal)
            penalty, slope = losses.gradient_penalty(whole, places_BND, config.loss)
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

        A readout settles one part of the chunk after the other, each given its earlier parts. With
        `inference.mirror` every row is searched on the same side of the goal's axis, so that a
        mirrored observation gives the mirrored action, random draws included.
        """
        if self.config.inference.mirror:
            away_B = symmetry.side(self.newest_agent(obs)) < 0.0
            obs = _mirrored_where(away_B, obs)
            if previous is not None:
                previous = _mirrored_where(away_B, {"action": previous})["action"]
        conditional, agent_BA = self.conditional(obs), self.newest_agent(obs)
        B, config = len(agent_BA), self.config.inference
        bandwidth_D = self._lengths(config.bandwidth)
        warm = self._warm(previous, agent_BA)
        proposal = self.proposed(obs) if config.sampler == "proposal" else None
        found = {readout: torch.empty(B, 0, device=self.device) for readout in readouts}
        first: Samples | None = None
        for index, part in enumerate(self.columns):
            for readout, earlier_BP in found.items():
                if first is None or part.start > 0:  # the first part is the same for all readouts
                    samples = search(
                        conditional(index, earlier_BP),
                        part.stop - part.start,
                        config,
                        generators,
                        self.device,
                        warm and Warm(warm.centre[:, part], warm.spread[part]),
                        proposal,
                    )
                    first = first or samples
                own_BD = read_out(samples, readout, bandwidth_D[part])
                found[readout] = torch.cat([earlier_BP, own_BD], 1)
        assert first is not None
        actions = {name: self.normalizer.decode(a_BD, agent_BA) for name, a_BD in found.items()}
        if config.mirror:
            actions = {
                n: _mirrored_where(away_B, {"action": a})["action"] for n, a in actions.items()
            }
            reflect = symmetry.Reflection(self.normalizer, self.action_horizon)
            samples_BSD = first.actions.expand(B, -1, -1)
            back_BSD = reflect(samples_BSD, self.columns[0])
            first = first._replace(
                actions=torch.where(away_B[:, None, None], back_BSD, samples_BSD)
            )
        return actions, first

    def conditional(self, obs: Mapping[str, Tensor]) -> Conditional:
        """The energies of each part of a chunk for prepared observations of B rows.

        `conditional(k, earlier)` maps actions (X, N, D) of part k, or (1, N, D) for all rows, to
        energies (X, N), given the normalised columns before it, (X, P); X is B or a multiple of it.
        With `inference.mirror` they are the mean over the observation and its mirror image.
        """
        own = self._conditional(self.encoder(dict(obs)))
        if not self.config.inference.mirror:
            return own
        reflect = symmetry.Reflection(self.normalizer, self.action_horizon)
        other = self._conditional(self.encoder(symmetry.mirror(obs)))

        def both(index: int, earlier_XP: Tensor) -> Energy:
            part = self.columns[index]
            first = own(index, earlier_XP)
            second = other(index, reflect(earlier_XP, slice(part.start)))
            return lambda actions: (first(actions) + second(reflect(actions, part))) / 2

        return both

    def proposed(self, obs: Mapping[str, Tensor]) -> Proposal | None:
        """What candidates are drawn from for prepared observations, if that is learned."""
        return None if self.proposal is None else self._propose(self.encoder(dict(obs)))

    def _propose(
        self, features_BF: Tensor, dropout: torch.Generator | None = None
    ) -> Proposal | None:
        if self.proposal is None:
            return None
        proposal: Proposal = self.proposal(features_BF, dropout)
        return proposal

    def _conditional(self, features_BF: Tensor) -> Conditional:
        proposal = self._propose(features_BF)

        def part(index: int, earlier_XP: Tensor) -> Energy:
            repeats = max(1, len(earlier_XP) // len(features_BF))
            features_XF = features_BF.repeat_interleave(repeats, 0) if repeats > 1 else features_BF
            model = self.parts[index][1]
            context_XW = model.observe(autoregressive.condition(features_XF, earlier_XP))
            return _energy(model, context_XW, proposal)

        return part

    def energies(self, obs: Mapping[str, Tensor], actions_BKD: Tensor) -> Tensor:
        """Energies (B, K) of normalised actions for prepared observations, summed over the parts.

        Actions of shape (1, K, D) are scored for every observation. Sums can be compared only where
        the energy is joint: the energy of a part is defined up to a constant that depends on the
        parts before it.
        """
        conditional, B, K = self.conditional(obs), len(self.newest_agent(obs)), actions_BKD.shape[1]
        total_BK = torch.zeros(B, K, device=self.device)
        for index, part in enumerate(self.columns):
            own_BKD = actions_BKD[..., part]
            if part.start == 0:
                earlier_BP = torch.empty(B, 0, device=self.device)
                total_BK = total_BK + conditional(0, earlier_BP)(own_BKD)
                continue
            own_X1D = own_BKD.expand(B, -1, -1).flatten(0, 1).unsqueeze(1)
            earlier_XP = actions_BKD[..., : part.start].expand(B, -1, -1).flatten(0, 1)
            total_BK = total_BK + conditional(index, earlier_XP)(own_X1D).view(B, K)
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
        last_BA = previous[:, -1].to(self.device, torch.float32)
        return Warm(self._held(last_BA, agent_BA), self._lengths(self.config.inference.warm_noise))

    def _held(self, target_BA: Tensor, agent_BA: Tensor) -> Tensor:
        """One target (px) for every step of the chunk, normalised, (B, D)."""
        chunk_BHA = target_BA[:, None].expand(-1, self.action_horizon, -1)
        return self.normalizer.encode(chunk_BHA, agent_BA).clamp(-1.0, 1.0)


def _energy(model: EnergyModel, context_BW: Tensor, proposal: Proposal | None) -> Energy:
    """The model's energy; beside a proposal q, that of the model minus log q."""
    if proposal is None:
        return partial(model.score, context_BW)
    return lambda actions: model.score(context_BW, actions) - proposal.log_density(actions)


def _mirrored_where(rows_B: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values whose given rows are mirrored."""
    other = symmetry.mirror(values)
    return {
        name: torch.where(rows_B.view(-1, *[1] * (value.dim() - 1)), other[name], value)
        for name, value in values.items()
    }

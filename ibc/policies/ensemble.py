"""Several energy policies as one: the action of least mean energy."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ibc.config.checks import check
from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import Normalizer
from ibc.energy.models import Energy
from ibc.policies.base import Batch, Policy
from ibc.policies.implicit import Conditional, IBCPolicy
from ibc.sampling.mixture import Mixture, Proposal


class EnsemblePolicy(IBCPolicy):
    """`policy.members` energy policies of one config, whose energies are averaged.

    Averaging energies multiplies densities: an action must be probable to all members. Training
    trains each member on the same windows and counter-examples.
    """

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        del self.encoder, self.energy, self.proposal  # each member has its own
        alone = dataclasses.replace(config, members=1)
        self.members = nn.ModuleList(
            IBCPolicy(
                alone, Normalizer(config.action, normalizer.low.clone(), normalizer.high.clone())
            )
            for _ in range(config.members)
        )

    @property
    def policies(self) -> list[IBCPolicy]:
        """The members."""
        return [member for member in self.members if isinstance(member, IBCPolicy)]

    def compute_loss(
        self, batch: Batch, generator: torch.Generator, augment: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of the members' losses and metrics."""
        losses, metrics = zip(
            *(member.compute_loss(batch, generator, augment) for member in self.policies),
            strict=True,
        )
        means = {name: torch.stack([each[name] for each in metrics]).mean() for name in metrics[0]}
        return torch.stack(losses).mean(), means

    def features(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The features of all members side by side, (B, F)."""
        return torch.cat([member.features(obs) for member in self.policies], 1)

    def conditional(self, obs: Mapping[str, Tensor]) -> Conditional:
        """The mean energies of all members, see `IBCPolicy.conditional`."""
        members = [member.conditional(obs) for member in self.policies]

        def mean(index: int, earlier_XP: Tensor) -> Energy:
            energies = [member(index, earlier_XP) for member in members]
            return lambda actions: torch.stack([each(actions) for each in energies]).mean(0)

        return mean

    def proposed(self, obs: Mapping[str, Tensor]) -> Proposal | None:
        """The mixture of the members' mixtures."""
        found = [p for p in (member.proposed(obs) for member in self.policies) if p is not None]
        if not found:
            return None
        parts = zip(*(proposal.mixture for proposal in found), strict=True)
        log_weights, *moments = (torch.cat(part, 1) for part in parts)
        joined = Mixture(log_weights - math.log(len(found)), *moments)
        return found[0]._replace(mixture=joined)


def ensemble(policies: Sequence[Policy]) -> EnsemblePolicy:
    """One policy of several trained ones, with copies of their weights.

    ValueError unless they are energy policies of one network, one search and the same bounds; how
    they were trained may differ.
    """
    check(len(policies) >= 2, "an ensemble must have at least two policies", len(policies))
    kinds = sorted({policy.config.kind for policy in policies})
    check(
        kinds == ["ibc"], 'an ensemble averages energies: its policies must be of kind "ibc"', kinds
    )
    first = policies[0]
    for other in policies[1:]:
        for name, value in _compared(first.config).items():
            found = _compared(other.config)[name]
            check(
                found == value, f"the policies of an ensemble must have one {name}", [value, found]
            )
        for name in ("low", "high"):
            mine, theirs = (getattr(p.normalizer, name) for p in (first, other))
            rule = "the policies of an ensemble must have the same bounds of actions"
            check(torch.equal(mine, theirs), rule, [mine.tolist(), theirs.tolist()])
    members = [
        member
        for policy in policies
        for member in (policy.policies if isinstance(policy, EnsemblePolicy) else [policy])
    ]
    config = dataclasses.replace(first.config, members=len(members))
    made = EnsemblePolicy(config, first.normalizer)
    for own, member in zip(made.members, members, strict=True):
        own.load_state_dict(member.state_dict())
    return made


def _compared(config: PolicyConfig) -> dict[str, Any]:
    """The parts of a config that members share, not how they were trained."""
    names = ("obs_mode", "obs_horizon", "action_horizon", "execute")
    parts = ("encoder", "action", "energy", "inference")
    found = {f"policy.{name}": getattr(config, name) for name in (*names, *parts)}
    proposed = config.negatives.sampler == "proposal"
    share = config.negatives.uniform_share
    return {**found, "proposal": (config.mdn, share) if proposed else None}

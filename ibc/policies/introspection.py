"""Looking into a policy: its energy landscape and the candidates it chose from.

Everything is about the first action of a chunk, the one for the newest frame. The landscape of a
policy with a density is the negative log density. Acting uses none of this.

Legend: B batch, S samples per observation, N places of the lattice, H action horizon, A = 2,
D = H * A, M components.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ibc.config.checks import check_int
from ibc.data.normalizer import BOUND
from ibc.policies.base import Policy
from ibc.policies.explicit import MDNPolicy
from ibc.policies.implicit import IBCPolicy
from ibc.sampling.mixture import Mixture, log_likelihood


class View(NamedTuple):
    """actions (B, H, 2) px, as predicted, and what they were chosen from.

    candidates (B, S, 2) px with their probabilities (B, S): an energy policy's samples of the
    first action, a mixture's components; None for other policies. Some may lie off the board; an
    action chosen there is moved to the board's edge.
    """

    actions: Tensor
    candidates: Tensor | None
    probabilities: Tensor | None


@torch.no_grad()
def view(
    policy: Policy,
    obs: Mapping[str, Tensor],
    generators: Sequence[torch.Generator],
    previous: Tensor | None = None,
) -> View:
    """Return a prediction, with the random draws of `predict_action`, and its candidates."""
    prepared = policy.prepare(obs)
    if isinstance(policy, IBCPolicy):
        readout = policy.config.inference.readout
        found, samples = policy.search(prepared, generators, (readout,), previous)
        actions_BHA = found[readout]
        if samples.actions.shape[-1] == 1:
            return View(actions_BHA, None, None)  # samples of one coordinate, not of a position
        probabilities_BS = torch.softmax(samples.log_weights, 1)
        first_BSA = samples.actions[..., :2].expand(len(probabilities_BS), -1, -1)
        return View(actions_BHA, _places(policy, prepared, first_BSA), probabilities_BS)
    actions_BHA = policy.act(prepared, generators, previous)
    if isinstance(policy, MDNPolicy):
        given = policy.density(prepared)
        first_BMA = given.means[..., :2].clamp(-BOUND, BOUND)
        return View(actions_BHA, _places(policy, prepared, first_BMA), given.log_weights.exp())
    return View(actions_BHA, None, None)


@torch.no_grad()
def landscape(
    policy: Policy, obs: Mapping[str, Tensor], actions_BHA: Tensor, side: int
) -> Tensor | None:
    """Return energies (B, side, side) of first actions, rows down and columns to the right.

    They are at the middles of `side` cells along each axis of `window`, in nats, each row's up to
    a constant. Later actions of a chunk count as in actions_BHA px where one energy is over the
    whole chunk, and not at all where each action has an energy of its own. None for a policy that
    has neither an energy nor a density.
    """
    check_int("side", side, 2, 1000)
    prepared = policy.prepare(obs)
    line = (torch.arange(side, device=policy.device) + 0.5) * (2 * BOUND / side) - BOUND
    lattice_NA = torch.cartesian_prod(line, line)
    if isinstance(policy, IBCPolicy):
        energies_BN = _energies(policy, prepared, actions_BHA, line, lattice_NA)
    elif isinstance(policy, MDNPolicy):
        # Of the first action alone: a diagonal Gaussian's marginal is its first two columns.
        log_weights_BM, *moments = policy.density(prepared)
        mean_B1MA, std_B1MA = (value_BMD[:, None, :, :2] for value_BMD in moments)
        of_first = Mixture(log_weights_BM[:, None], mean_B1MA, std_B1MA)
        energies_BN = -log_likelihood(of_first, lattice_NA)
    else:
        return None
    return energies_BN.view(-1, side, side).transpose(1, 2)


def window(policy: Policy, obs: Mapping[str, Tensor]) -> Tensor:
    """Return where first actions are compared: lower and upper corner (B, 2, A) in px.

    An action outside the board is moved to the board's edge.
    """
    bounds_2A = torch.stack([policy.normalizer.low, policy.normalizer.high]).reshape(2, -1, 2)[:, 0]
    agent_BA = policy.newest_agent(policy.prepare(obs))
    if policy.config.action.frame == "board":
        return bounds_2A.expand(len(agent_BA), -1, -1)
    return agent_BA[:, None] + bounds_2A


def _energies(
    policy: IBCPolicy,
    prepared: Mapping[str, Tensor],
    actions_BHA: Tensor,
    line_S: Tensor,
    lattice_NA: Tensor,
) -> Tensor:
    conditionals = policy.config.energy.conditionals
    conditional, B = policy.conditional(prepared), len(policy.newest_agent(prepared))
    first = conditional(0, torch.empty(B, 0, device=policy.device))
    if conditionals == "dimensions":
        # Each energy is defined up to a constant that depends on the dimension before it, so the
        # two can only be added as log densities, normalised over the line.
        side, line_1S1 = len(line_S), line_S[None, :, None]
        x_BS = torch.log_softmax(-first(line_1S1), 1)
        y_XS = torch.log_softmax(-conditional(1, line_S.repeat(B)[:, None])(line_1S1), 1)
        return -(x_BS[:, :, None] + y_XS.view(-1, side, side)).flatten(1)
    if conditionals == "steps" or policy.action_horizon == 1:
        return first(lattice_NA[None])
    chunk_BD = policy.normalizer.encode(
        actions_BHA.to(policy.device, torch.float32), policy.newest_agent(prepared)
    )
    later_BND = chunk_BD[:, None, 2:].expand(-1, len(lattice_NA), -1)
    first_BNA = lattice_NA.expand(len(chunk_BD), -1, -1)
    return policy.energies(prepared, torch.cat([first_BNA, later_BND], 2))


def _places(policy: Policy, prepared: Mapping[str, Tensor], first_BSA: Tensor) -> Tensor:
    """First actions (B, S, A), normalised, in px."""
    agent_BA = policy.newest_agent(prepared)
    normalizer = policy.normalizer
    low_A, high_A = (b.reshape(-1, 2)[0] for b in (normalizer.low, normalizer.high))
    places_BSA = first_BSA * (high_A - low_A) / 2 + (high_A + low_A) / 2
    if normalizer.config.frame == "agent":
        places_BSA = places_BSA + agent_BA[:, None]
    return places_BSA

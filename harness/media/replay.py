"""A recorded episode's decisions, computed again: candidates, energies and plans of each state.

Observations follow from the recorded states, and a policy's random draws from the episode's seed:
the candidates are those of the episode, up to rounding, as the batch has one row here.

Legend: T obs horizon, H action horizon, S candidates, A = 2.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.argument_checks import ObsMode
from envs.physics.geometry import keypoints
from envs.rendering.observations import render_observations
from harness.core import seeds
from harness.media.recorder import Floats, Step
from ibc.policies import introspection
from ibc.policies.base import Policy

SIDE = 61  # grid points of a landscape along an axis: odd, so that one lies in the middle


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a policy computed before it acted.

    corners (2, A) px: lower and upper corner of the window of candidate actions. energies (rows,
    columns) over it, or None. candidates (S, A) px with probabilities (S,), or None. plan (H, A)
    px. age: steps since the plan was made.
    """

    corners: Floats
    energies: Floats | None
    candidates: Floats | None
    probabilities: Floats | None
    plan: Floats
    age: int = 0


def observe(states: Sequence[Floats], at: int, horizon: int, mode: ObsMode) -> dict[str, Tensor]:
    """Return the observations (1, T, ...) of a policy at step `at`; the first state is repeated."""
    seen = np.stack([states[max(0, i)] for i in range(at - horizon + 1, at + 1)])
    made: dict[str, NDArray[Any]]
    if mode == "image":
        made = {"image": render_observations(seen), "agent_pos": seen[:, :2]}
    else:
        made = {mode: seen if mode == "state" else keypoints(seen)}
    return {
        name: torch.from_numpy(value.astype(np.float32) if value.dtype == float else value)[None]
        for name, value in made.items()
    }


def decide(
    policy: Policy,
    obs: dict[str, Tensor],
    generator: torch.Generator,
    previous: Tensor | None = None,
    side: int | None = SIDE,
) -> Decision:
    """Return a policy's decision for one observation; `side` None leaves out the energies."""
    seen = introspection.view(policy, obs, [generator], previous)
    energies = None if side is None else introspection.landscape(policy, obs, seen.actions, side)

    def plain(value: Tensor) -> Floats:
        return value[0].cpu().numpy().astype(np.float64)

    return Decision(
        corners=plain(introspection.window(policy, obs)),
        energies=None if energies is None else plain(energies),
        candidates=None if seen.candidates is None else plain(seen.candidates),
        probabilities=None if seen.probabilities is None else plain(seen.probabilities),
        plan=plain(seen.actions[:, : policy.executed]),
    )


def decisions(
    policy: object,
    seed: int,
    steps: Sequence[Step],
    wanted: Callable[[int], bool] = lambda step: True,
) -> Iterator[Decision | None]:
    """Yield the decision behind each step; None at the last state, and for foreign policies.

    The steps of a chunk share a decision. Energies are computed for chunks with a `wanted` step.
    """
    if not isinstance(policy, Policy):
        yield from (None for _ in steps)
        return
    with policy.acting():  # a lattice of candidates is the same at every step
        states = [step.state for step in steps]
        generator = seeds.episode_generator(seed)
        previous = torch.full((1, 1, 2), torch.nan)
        current: Decision
        for at, step in enumerate(steps):
            if step.action is None:
                yield None
                continue
            age = at % policy.executed
            if age == 0:
                chunk = range(at, min(at + policy.executed, len(steps)))
                obs = observe(states, at, policy.obs_horizon, policy.obs_mode)
                given = previous if policy.uses_previous else None
                side = SIDE if any(wanted(i) for i in chunk) else None
                current = decide(policy, obs, generator, given, side)
                taken = [action for i in chunk if (action := steps[i].action) is not None]
                previous = torch.from_numpy(np.stack(taken).astype(np.float32))[None]
            yield dataclasses.replace(current, age=age)

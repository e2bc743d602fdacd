"""Episodes looked at again: what a policy weighed in each state that it passed.

What was recorded are states and actions; observations follow from states, and a policy's draws
from the episode's seed. So the candidates are those of the very episode, but for the last bits:
here a policy sees one observation at a time and not a block's.

Legend: T obs horizon, H action horizon, S candidates, A = 2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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

SIDE = 61  # places of a landscape along an axis: odd, so that one lies in the middle


@dataclass(frozen=True)
class Look:
    """What a policy weighed before it acted, as arrays.

    corners (2, A) px: the window in which actions are compared, lower and upper. energies (rows,
    columns) over it, None where there are none. candidates (S, A) px with probabilities (S,), None
    where nothing was weighed. plan (H, A) px. age: steps since it was made.
    """

    corners: Floats
    energies: Floats | None
    candidates: Floats | None
    probabilities: Floats | None
    plan: Floats
    age: int = 0


def observe(states_T5: Sequence[Floats], mode: ObsMode) -> dict[str, Tensor]:
    """Return the observations (1, T, ...) that a policy is given in these states."""
    states = np.stack(states_T5)
    made: dict[str, NDArray[Any]]
    if mode == "image":
        made = {"image": render_observations(states), "agent_pos": states[:, :2]}
    else:
        made = {mode: states if mode == "state" else keypoints(states)}
    return {
        name: torch.from_numpy(value.astype(np.float32) if value.dtype == float else value)[None]
        for name, value in made.items()
    }


def history(states: Sequence[Floats], at: int, horizon: int) -> list[Floats]:
    """Return the newest `horizon` states up to `at`, the first one repeated where there is none."""
    return [states[max(0, i)] for i in range(at - horizon + 1, at + 1)]


def look(
    policy: Policy,
    obs: dict[str, Tensor],
    generator: torch.Generator,
    previous: Tensor | None = None,
    side: int | None = SIDE,
) -> Look:
    """Return what a policy weighs for one observation; side None leaves the landscape out."""
    seen = introspection.view(policy, obs, [generator], previous)
    energies = None if side is None else introspection.landscape(policy, obs, seen.actions, side)

    def plain(value: Tensor | None) -> Floats | None:
        return None if value is None else value[0].cpu().numpy().astype(np.float64)

    corners, plan = (
        plain(introspection.window(policy, obs)),
        plain(seen.actions[:, : policy.executed]),
    )
    assert corners is not None
    assert plan is not None
    return Look(corners, plain(energies), plain(seen.candidates), plain(seen.probabilities), plan)


def looks(
    policy: object,
    seed: int,
    steps: Sequence[Step],
    wanted: Callable[[int], bool] = lambda step: True,
) -> Iterator[Look | None]:
    """Yield for every step what the policy weighed for it; None at the last state.

    Steps of one chunk share a look. `wanted` says which steps need a landscape: the others' have
    none. A policy that is none of this project's has nothing to show: all are None.
    """
    if not isinstance(policy, Policy):
        yield from (None for _ in steps)
        return
    with policy.acting():  # the lattice of candidates is the same at every step
        yield from _looks(policy, seed, steps, wanted)


def _looks(
    policy: Policy, seed: int, steps: Sequence[Step], wanted: Callable[[int], bool]
) -> Iterator[Look | None]:
    states = [step.state for step in steps]
    generator = seeds.episode_generator(seed)
    previous = torch.full((1, 1, 2), torch.nan)
    current: Look | None = None
    for at, step in enumerate(steps):
        if step.action is None:
            yield None
            continue
        age = at % policy.executed
        if age == 0:
            chunk = range(at, min(at + policy.executed, len(steps)))
            obs = observe(history(states, at, policy.obs_horizon), policy.obs_mode)
            given = previous if policy.uses_previous else None
            side = SIDE if any(wanted(i) for i in chunk) else None
            current = look(policy, obs, generator, given, side)
            taken = [action for i in chunk if (action := steps[i].action) is not None]
            previous = torch.from_numpy(np.stack(taken).astype(np.float32))[None]
        assert current is not None
        yield Look(**{**vars(current), "age": age})

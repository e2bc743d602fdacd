"""Langevin chains: actions moved down the gradient of the energy, with noise.

    standard:  a <- a - s dE/da + sqrt(2 s) noise N(0, 1)
    google:    a <- a - clip(s (dE/da / 2 + noise N(0, 1)), limit)

With noise 1 and small steps s the standard form draws from exp(-E) (the unadjusted Langevin
algorithm). Google's form, which published runs used, has noise of the size of the step instead of
its root, and so does not: its chains settle near minima instead.

Legend: B batch, S samples per observation, D action dimensions.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ibc.checks import check, check_choice, check_float, check_int
from ibc.normalize import BOUND

Energy = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LangevinConfig:
    """A chain in normalised action units (bounds +-1).

    form: the rule of a step, see the module. steps: of one run, whose step size falls from
    first_step to last_step with the given power of the share still to go. repeats: runs, one after
    the other, the later ones from repeat_step (None: from first_step again). noise: 1 for the
    density exp(-E), 0 for plain descent. limit: the largest move along an axis; in the standard
    form it holds for the gradient's part alone, so that steep energies do not throw samples about.
    """

    form: Literal["standard", "google"] = "standard"
    steps: int = 100
    repeats: int = 1
    first_step: float = 0.1
    last_step: float = 1e-5
    power: float = 2.0
    noise: float = 1.0
    limit: float | None = None
    repeat_step: float | None = None

    def __post_init__(self) -> None:
        check_choice("langevin.form", self.form, ("standard", "google"))
        check_int("langevin.steps", self.steps, 1, 10_000)
        check_int("langevin.repeats", self.repeats, 1, 100)
        check_float("langevin.last_step", self.last_step, 0.0, open_low=True)
        for name in ("first_step", "repeat_step"):
            value = getattr(self, name)
            if value is not None:
                check_float(f"langevin.{name}", value, 0.0, 10.0)
                rule = f"langevin.{name} must be at least langevin.last_step {self.last_step:g}"
                check(value >= self.last_step, rule, value)
        check_float("langevin.power", self.power, 0.0, 100.0)
        check_float("langevin.noise", self.noise, 0.0, 100.0)
        if self.limit is not None:
            check_float("langevin.limit", self.limit, 0.0, open_low=True)

    def step_sizes(self) -> Iterator[float]:
        """The size of every step of all runs."""
        for run in range(self.repeats):
            again = run > 0 and self.repeat_step is not None
            first = self.repeat_step if again else self.first_step
            assert first is not None
            for k in range(self.steps):
                left = 1.0 - k / max(1, self.steps - 1)
                yield (first - self.last_step) * left**self.power + self.last_step


class Chain(NamedTuple):
    """Where the samples ended (B, S, D), their energies (B, S), and numbers to watch.

    chain_energy_drop: mean energy before less after. chain_gradient_first, _last: mean largest
    |dE/da| of an axis before and after. chain_move: mean distance gone. chain_at_bounds: share of
    samples that ended with an axis at its bound.
    """

    actions: Tensor
    energies: Tensor
    statistics: dict[str, Tensor]


def chain(
    energy: Energy,
    start_BSD: Tensor,
    config: LangevinConfig,
    normal: Callable[[], Tensor],
    *,
    clip: bool = True,
) -> Chain:
    """Run the chain from start_BSD; `normal` gives the next standard normal numbers (B, S, D).

    No gradient goes through the chain, whatever the caller's mode; `energy` maps (B, S, D) to
    (B, S) and must not hold on to a graph of its own (detach the observation's part). clip: keep
    the samples inside the bounds after every step.
    """
    actions_BSD = start_BSD.detach()
    first: tuple[Tensor, Tensor] | None = None
    for step in config.step_sizes():
        energies_BS, gradient_BSD = slope(energy, actions_BSD)
        first = first or (energies_BS, gradient_BSD)
        if config.form == "google":
            move_BSD = _limited(step * (0.5 * gradient_BSD + config.noise * normal()), config.limit)
            actions_BSD = actions_BSD - move_BSD
        else:
            drift_BSD = _limited(step * gradient_BSD, config.limit)
            scatter_BSD = math.sqrt(2.0 * step) * config.noise * normal()
            actions_BSD = actions_BSD - drift_BSD + scatter_BSD
        if clip:
            actions_BSD = actions_BSD.clamp(-BOUND, BOUND)
    assert first is not None
    energies_BS, gradient_BSD = slope(energy, actions_BSD)
    statistics = {
        "chain_energy_drop": (first[0] - energies_BS).mean(),
        "chain_gradient_first": first[1].abs().amax(-1).mean(),
        "chain_gradient_last": gradient_BSD.abs().amax(-1).mean(),
        "chain_move": (actions_BSD - start_BSD).norm(dim=-1).mean(),
        "chain_at_bounds": (actions_BSD.abs() >= BOUND).any(-1).float().mean(),
    }
    return Chain(actions_BSD, energies_BS, statistics)


def slope(energy: Energy, actions_BSD: Tensor, *, graph: bool = False) -> tuple[Tensor, Tensor]:
    """Energies (B, S) and dE/da (B, S, D), also where the caller has switched gradients off.

    graph: keep what it takes to train on them.
    """
    with torch.enable_grad():
        actions_BSD = actions_BSD.detach().requires_grad_()
        energies_BS = energy(actions_BSD)
        (gradient_BSD,) = torch.autograd.grad(energies_BS.sum(), actions_BSD, create_graph=graph)
    return (energies_BS if graph else energies_BS.detach()), gradient_BSD


def _limited(move_BSD: Tensor, limit: float | None) -> Tensor:
    return move_BSD if limit is None else move_BSD.clamp(-limit, limit)

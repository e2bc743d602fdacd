"""Locates the first NaN or infinity of a training step."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ibc.policies.base import Policy

PACKAGE = Path(__file__).resolve().parents[1]
# Uninitialised memory may hold anything, and a constant may be infinite on purpose, as in a mask.
_MEMORY = ("empty", "new_empty")
_CONSTANT = ("full", "new_full", "fill", "masked_fill", "scalar_tensor", "lift")


class NonFiniteError(ArithmeticError):
    """A loss or a gradient was NaN or infinite; the message names the step and the place."""

    def __init__(self, step: int, place: str) -> None:
        super().__init__(f"training must stay finite, got NaN or inf in {place} at step {step}")


def locate(
    policy: Policy,
    batch: Mapping[str, Any],
    *,
    states: Mapping[str, Tensor] | None = None,
    micro_batch: int | None = None,
) -> str:
    """The first non-finite value of a step: in the data, the weights, an operation or a gradient.

    Repeats the step and checks the result of every operation. states: those of compute_loss's
    generators ("generator", "augment") before the step, and micro_batch as in the step, so that the
    same numbers are drawn.
    """
    for name, value in batch.items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            return f"the training data's {name}"
    for name, parameter in policy.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weights {name}"
    generators = _generators(policy.device, states)
    size = micro_batch or max(len(batch["action"]), 1)
    for at in range(0, len(batch["action"]), size):
        part = {name: value[at : at + size] for name, value in batch.items()}
        place = _first_operation(policy, part, generators)
        if place is not None:
            return place
    return _gradient(policy) or "the loss, though not again when the step was repeated"


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the first operation with a non-finite result from finite inputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.place: str | None = None
        self.modules: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        bare = name.strip("_")
        if self.place is not None or bare.startswith(_MEMORY):
            return func(*args, **kwargs)
        if bare.startswith(_CONSTANT):
            result = func(*args, **kwargs)
            broken = _any(torch.isnan, result)
        else:
            before = _any(_not_finite, [*args, kwargs])  # the operation may write into them
            result = func(*args, **kwargs)
            broken = not before and _any(_not_finite, result)
        if broken:
            self.place = self._here(name)
        return result

    def _here(self, operation: str) -> str:
        if self.modules:
            return f"the output of {self.modules[-1]}"
        frame = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(PACKAGE) and path != Path(__file__):
                where = f"ibc/{path.relative_to(PACKAGE).as_posix()}, line {frame.f_lineno}"
                return f"{frame.f_code.co_name} ({where}: {operation})"
            frame = frame.f_back  # type: ignore[assignment]
        return f"the gradients ({operation})"


def _first_operation(
    policy: Policy, part: Mapping[str, Any], generators: Mapping[str, torch.Generator]
) -> str | None:
    watch = _Watch()
    parameters = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    with _named(policy, watch.modules), watch:
        loss, _ = policy.compute_loss(part, **generators)
        if watch.place is None:
            grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            # In backward order: the last layer gets its gradient first.
            for name, grad in reversed(list(zip(parameters, grads, strict=True))):
                if grad is not None and not torch.isfinite(grad).all():
                    return f"the gradient of {name}"
    return watch.place


@contextmanager
def _named(policy: Policy, stack: list[str]) -> Iterator[None]:
    """Keep the names of the layers that are running on the stack."""

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stack.append(name)

    def leave(*_: Any) -> None:
        stack.pop()

    handles = []
    for name, module in policy.named_modules():
        if next(module.children(), None) is None:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _generators(
    device: torch.device, states: Mapping[str, Tensor] | None
) -> dict[str, torch.Generator]:
    if states is None:
        return {"generator": torch.Generator(device).manual_seed(0)}
    generators = {name: torch.Generator(device) for name in states}
    for name, state in states.items():
        generators[name].set_state(state.cpu())
    return generators


def _gradient(policy: Policy) -> str | None:
    for name, parameter in reversed(list(policy.named_parameters())):
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name}"
    return None


def _not_finite(value: Tensor) -> Tensor:
    return ~torch.isfinite(value)


def _any(holds: Callable[[Tensor], Tensor], values: Any) -> bool:
    return any(
        bool(holds(value).any())
        for value in tree_leaves(values)
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    )

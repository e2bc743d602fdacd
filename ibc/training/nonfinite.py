"""Where the first NaN or infinity of a training step came from."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ibc.policies.base import Policy

PACKAGE = Path(__file__).parent


# What lay in fresh memory is no news, nor is an infinity that was asked for, as in a mask.
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
    """The first non-finite thing on the way: data, weights, an operation, a gradient.

    The step is repeated with every operation watched, moved counter-examples and penalties
    included. states: those of compute_loss's generators ("generator", "augment") before the step,
    and micro_batch its pieces, so that the same numbers are drawn again.
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
    """Remembers where an operation first made something non-finite out of finite numbers."""

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
            broken = not _all(_is_number, result)
        else:
            before = _all(torch.isfinite, [*args, kwargs])  # an operation may write into them
            result = func(*args, **kwargs)
            broken = before and not _all(torch.isfinite, result)
        if broken:
            self.place = self._here(name)
        return result

    def _here(self, operation: str) -> str:
        if self.modules:
            return f"the output of {self.modules[-1]}"
        frame = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.parent == PACKAGE and path != Path(__file__):
                where = f"ibc/{path.name}, line {frame.f_lineno}"
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
            # Backward starts at the end: the last layer is the first to get a wrong gradient.
            for name, grad in reversed(list(zip(parameters, grads, strict=True))):
                if grad is not None and not torch.isfinite(grad).all():
                    return f"the gradient of {name}"
    return watch.place


@contextmanager
def _named(policy: Policy, stack: list[str]) -> Iterator[None]:
    """Keep the names of the modules that are running on the stack."""

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stack.append(name)

    def leave(*_: Any) -> None:
        stack.pop()

    handles = []
    for name, module in policy.named_modules():
        if _is_layer(module):
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_layer(module: nn.Module) -> bool:
    return next(module.children(), None) is None


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


def _is_number(value: Tensor) -> Tensor:
    return ~torch.isnan(value)


def _all(holds: Callable[[Tensor], Tensor], values: Any) -> bool:
    return all(
        bool(holds(value).all())
        for value in tree_leaves(values)
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    )

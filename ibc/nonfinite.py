"""Where the first NaN or infinity of a training step came from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ibc.base import Policy


class NonFiniteError(ArithmeticError):
    """A loss or a gradient was NaN or infinite; the message names the step and the place."""

    def __init__(self, step: int, place: str) -> None:
        super().__init__(f"training must stay finite, got NaN or inf in {place} at step {step}")


def locate(policy: Policy, batch: Mapping[str, Any]) -> str:
    """The first non-finite thing on the way: data, weights, a layer's output, a gradient."""
    for name, value in batch.items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            return f"the training data's {name}"
    for name, parameter in policy.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weights {name}"
    place = _first_layer(policy, batch)
    if place is not None:
        return place
    for name, parameter in policy.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name}"
    return "the loss"


def _first_layer(policy: Policy, batch: Mapping[str, Any]) -> str | None:
    found: list[str] = []
    handles = []
    for name, module in policy.named_modules():
        if next(module.children(), None) is None:

            def watch(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor) and not torch.isfinite(output).all():
                    found.append(name)

            handles.append(module.register_forward_hook(watch))
    try:
        with torch.no_grad():
            policy.compute_loss(batch, torch.Generator(policy.device).manual_seed(0))
    finally:
        for handle in handles:
            handle.remove()
    return f"the output of {found[0]}" if found else None

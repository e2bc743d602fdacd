"""Gradient norms by part of the network: where training moves the weights and where it does not."""

from collections.abc import Mapping

import torch
from torch import nn

DEPTH = 2  # names of modules kept: "encoder.trunk", "energy.hidden"


def group_of(name: str) -> str:
    """The part of the network that a parameter belongs to: the first modules of its name."""
    return ".".join(name.split(".")[:-1][:DEPTH]) or name


@torch.no_grad()
def norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """The Euclidean norm of the gradient of every part; 0 where none came.

    One wait on a GPU for all of them, so it is for some steps of an epoch, not for each.
    """
    groups: dict[str, list[torch.Tensor]] = {}
    for name, parameter in parameters.items():
        found = groups.setdefault(group_of(name), [])
        if parameter.grad is not None:
            found.append(parameter.grad)
    values = [
        torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
        for grads in groups.values()
    ]
    device = next(iter(parameters.values())).device if parameters else torch.device("cpu")
    listed = torch.stack([v.to(device) for v in values]).tolist() if values else []
    return dict(zip(groups, listed, strict=True))

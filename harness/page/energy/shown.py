"""Which policies the page can show, and their numbers as it reads them.

The page's script evaluates the default keypoint policy: two frames, moves in a window around the
agent, a product energy over a lattice, read out by one step of mean shift. An ensemble's energy is
the mean of its members'.
"""

import base64
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.physics.geometry import BLOCK_KEYPOINTS
from harness.core.errors import UserError
from ibc.config.policy import PolicyConfig
from ibc.energy.models import ProductEnergy
from ibc.policies.ensemble import EnsemblePolicy
from ibc.policies.factory import load_policy
from ibc.policies.implicit import IBCPolicy

# In this order, so that the first one that differs says most about a policy.
NEEDED: dict[str, Any] = {
    "kind": "ibc",
    "obs_mode": "keypoints",
    "action_horizon": 1,
    "obs_horizon": 2,
    "encoder.low_dim": "pushing",
    "encoder.stacking": "features",
    "action.frame": "agent",
    "energy.fusion": "product",
    "energy.conditionals": "joint",
    "inference.sampler": "lattice",
    "inference.readout": "mean_shift",
    "inference.mirror": False,
}


def load(folder: Path) -> IBCPolicy:
    """Return the policy saved in a folder, its weights rounded to the 16 bits that the page has.

    UserError for a policy that the page cannot show, ValueError for one that cannot be read.
    """
    policy = load_policy(folder)
    _check(policy.config)
    assert isinstance(policy, IBCPolicy)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            weight.copy_(weight.half().float())
            if not weight.isfinite().all():
                raise UserError(f"{folder}: weights must be finite in 16 bits, given {name}")
    return policy


def numbers(policy: IBCPolicy) -> dict[str, Any]:
    """Return what the script reads of a policy: plain numbers, and the weights in base64.

    Weights are float16, little-endian: of each member the encoder, the observation's and the
    action's tower, of each layer its matrix (outputs, inputs) and its bias.
    """
    models = policy.policies if isinstance(policy, EnsemblePolicy) else [policy]
    members, weights = [], []
    for model in models:
        towers = {name: list(layers) for name, layers in _towers(model)}
        members.append(
            {name: [list(each.weight.shape) for each in layers] for name, layers in towers.items()}
        )
        for layer in (each for layers in towers.values() for each in layers):
            weights += [layer.weight, layer.bias]
    low, high = (b.reshape(-1, 2)[0] for b in (policy.normalizer.low, policy.normalizer.high))
    inference = policy.config.inference
    return {
        "members": members,
        "weights": encode(np.concatenate([_half(weight).ravel() for weight in weights])),
        "low": low.tolist(),
        "high": high.tolist(),
        "lattice": inference.lattice,
        "bandwidth": inference.bandwidth,
        "points": BLOCK_KEYPOINTS.tolist(),
    }


def encode(values: NDArray[Any]) -> str:
    """Return the bytes of an array, little-endian, in base64."""
    little = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode("ascii")


def _check(config: PolicyConfig) -> None:
    for name, needed in NEEDED.items():
        given = functools.reduce(getattr, name.split("."), config)
        if given != needed:
            rule = f"the energy page shows policies with policy.{name} {_plain(needed)}"
            raise UserError(f"{rule}, given {_plain(given)}")
    if config.negatives.sampler == "proposal":
        raise UserError(
            "the energy page shows energies of a network alone, given policy.negatives.sampler "
            "proposal, whose density is a part of the energy"
        )


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _towers(model: IBCPolicy) -> Iterator[tuple[str, Iterator[nn.Linear]]]:
    energy = model.energy
    assert isinstance(energy, ProductEnergy)
    yield "encoder", _linear(model.encoder.layers)
    yield "observation", _linear(energy.observation.layers)
    yield "action", _linear([energy.action, *energy.hidden])


def _linear(layers: Any) -> Iterator[nn.Linear]:
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        yield layer


def _half(weight: Tensor) -> NDArray[np.float16]:
    return weight.detach().to(torch.float16).numpy()

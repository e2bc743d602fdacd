"""Implicit behavioral cloning; knows nothing of Ray, results or where files lie.

The names below are imported when they are first used, so that reading demonstrations or settings
does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibc.config.policy import PolicyConfig
    from ibc.config.training import TrainConfig
    from ibc.policies.base import Policy
    from ibc.policies.explicit import DiffusionPolicy, MDNPolicy, MSEPolicy
    from ibc.policies.factory import build_policy, fit_normalizer, load_policy
    from ibc.policies.implicit import IBCPolicy
    from ibc.training.trainer import Trainer

__all__ = [
    "DiffusionPolicy",
    "IBCPolicy",
    "MDNPolicy",
    "MSEPolicy",
    "Policy",
    "PolicyConfig",
    "TrainConfig",
    "Trainer",
    "build_policy",
    "fit_normalizer",
    "load_policy",
]

_HOME = {
    "DiffusionPolicy": "ibc.policies.explicit",
    "IBCPolicy": "ibc.policies.implicit",
    "MDNPolicy": "ibc.policies.explicit",
    "MSEPolicy": "ibc.policies.explicit",
    "Policy": "ibc.policies.base",
    "PolicyConfig": "ibc.config.policy",
    "TrainConfig": "ibc.config.training",
    "Trainer": "ibc.training.trainer",
    "build_policy": "ibc.policies.factory",
    "fit_normalizer": "ibc.policies.factory",
    "load_policy": "ibc.policies.factory",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ibc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)

"""Implicit behavioral cloning; knows nothing of Ray, results or where files lie.

The names below are imported when they are first used, so that reading demonstrations or settings
does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibc.base import Policy, PolicyConfig
    from ibc.explicit import DiffusionPolicy, MDNPolicy, MSEPolicy
    from ibc.policy import IBCPolicy, build_policy, fit_normalizer, load_policy
    from ibc.train import TrainConfig, Trainer

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
    "DiffusionPolicy": "ibc.explicit",
    "MDNPolicy": "ibc.explicit",
    "MSEPolicy": "ibc.explicit",
    "Policy": "ibc.base",
    "PolicyConfig": "ibc.base",
    "TrainConfig": "ibc.train",
    "Trainer": "ibc.train",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ibc' has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "ibc.policy")), name)

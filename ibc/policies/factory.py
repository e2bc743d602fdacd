"""Building a policy from its config, fitting its normaliser, loading it from a folder."""

from pathlib import Path

import numpy as np
import torch

from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import Normalizer
from ibc.data.symmetry import mirror
from ibc.data.windows import Windows
from ibc.policies.base import Policy, read_config
from ibc.policies.ensemble import EnsemblePolicy
from ibc.policies.explicit import DiffusionPolicy, MDNPolicy, MSEPolicy
from ibc.policies.implicit import IBCPolicy


def fit_normalizer(config: PolicyConfig, train: Windows, *, mirrored: bool = False) -> Normalizer:
    """The normaliser of a policy from the training windows (images are not read).

    mirrored: the bounds hold the mirrored actions, too.
    """
    light = Windows(train.demos, train.episodes, "state", 1, config.action_horizon)
    batch = {k: torch.as_tensor(v) for k, v in light.batch(np.arange(len(light))).items()}
    if mirrored:
        batch = {
            k: torch.cat([v, m])
            for (k, v), m in zip(batch.items(), mirror(batch).values(), strict=True)
        }
    return Normalizer.fit(config.action, batch["action"], batch["state"][:, -1, :2])


def build_policy(config: PolicyConfig, normalizer: Normalizer, *, generator_seed: int) -> Policy:
    """A policy with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_seed)
        return _class(config)(config, normalizer)


def load_policy(directory: Path | str) -> Policy:
    """The policy of any kind saved in the directory, on the CPU, with inference weights.

    ValueError names the file and the first entry that does not fit. Loading runs no code and
    allocates no more memory than the file's tensors.
    """
    return _class(read_config(Path(directory))).load(directory)


def _class(config: PolicyConfig) -> type[Policy]:
    return EnsemblePolicy if config.members > 1 else _CLASSES[config.kind]


_CLASSES: dict[str, type[Policy]] = {
    made.kind: made for made in (IBCPolicy, MSEPolicy, MDNPolicy, DiffusionPolicy)
}

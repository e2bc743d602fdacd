"""The PushT world; knows nothing of learning, Ray or results.

Importing it registers `ibc_harness/PushT-v0` with gymnasium.
"""

import gymnasium

from envs.batched import LockstepPushT
from envs.pusht import PushTEnv

__all__ = ["LockstepPushT", "PushTEnv"]

if "ibc_harness/PushT-v0" not in gymnasium.registry:
    # gymnasium's TimeLimit cuts the episodes, so that make(..., max_episode_steps=N) works.
    gymnasium.register(
        id="ibc_harness/PushT-v0",
        entry_point="envs.pusht:PushTEnv",
        kwargs={"max_episode_steps": None},
        max_episode_steps=300,
    )

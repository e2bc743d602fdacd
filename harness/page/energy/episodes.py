"""The episodes that the page plays: recorded in the exact world, with the page's own weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.protocol import Protocol, blocks
from harness.core import seeds
from harness.core.errors import UserError
from harness.evaluation.policy_source import roll
from harness.media.recorder import Steps
from harness.page.energy.shown import encode
from ibc.policies.implicit import IBCPolicy

SHOWN = 4
MOST = 100  # starts that are tried until there are three solved ones and a failure


class Episode(NamedTuple):
    """An episode of one start.

    states (n + 1, 5) float64: px and rad. taken (n + 1, 4) float32: the action in px, the uniform
    number that its search drew, and the coverage; the last state has no action (NaN).
    """

    seed: int
    success: bool
    states: NDArray[np.float64]
    taken: NDArray[np.float32]

    @property
    def steps(self) -> int:
        """How many actions were taken."""
        return len(self.states) - 1

    def plain(self) -> dict[str, Any]:
        """Return what the script reads of it."""
        return {
            "seed": self.seed,
            "success": self.success,
            "states": encode(self.states),
            "taken": encode(self.taken),
        }


class Recording(NamedTuple):
    """Episodes to show; how many of how many tried starts were solved."""

    episodes: list[Episode]
    solved: int
    tried: int


def record(
    policy: IBCPolicy, protocol: Protocol | None = None, starts: Sequence[int] | None = None
) -> Recording:
    """Return the first three solved episodes and the first failure, of the report starts.

    Where there is no failure, or fewer successes, others take the place. Starts are tried in blocks
    until there are enough. UserError where the policy fails to act.
    """
    torch.set_num_threads(1)  # as evaluations do: more are slower on so small a network
    protocol = protocol or Protocol()
    starts = seeds.REPORT_SEEDS[:MOST] if starts is None else starts
    solved: list[Episode] = []
    failed: list[Episode] = []
    for block in blocks(starts, protocol.block_size):
        outcome = roll(policy, block, protocol, record=block)
        for row in outcome.rows:
            if row["error"] is not None:
                raise UserError(f"start {row['env_seed']} must be acted in, got: {row['error']}")
            if row["success_at_reset"]:
                continue
            episode = _episode(row["env_seed"], row["success"], outcome.steps[row["env_seed"]])
            (solved if row["success"] else failed).append(episode)
        if failed and len(solved) >= SHOWN - 1:
            break
    first = solved[: max(SHOWN - 1, SHOWN - len(failed))]
    return Recording(
        [*first, *failed[: SHOWN - len(first)]], len(solved), len(solved) + len(failed)
    )


def _episode(seed: int, success: bool, steps: Steps) -> Episode:
    # A search over a lattice draws one number for each step, see ibc/sampling/search.py.
    generator = seeds.episode_generator(seed)
    taken = np.full((len(steps), 4), np.nan, np.float32)
    for row, step in zip(taken, steps, strict=True):
        row[2] = torch.rand((1,), generator=generator).item()
        row[3] = step.coverage
        if step.action is not None:
            row[:2] = step.action
    return Episode(seed, success, np.array([step.state for step in steps]), taken)

"""One trial episode of other code before its evaluation: does it run, its range, its time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.config.protocol import Protocol
from harness.core.errors import UserError
from harness.core.text import duration
from harness.evaluation.policy_source import Source, Task, start_block
from harness.evaluation.rollout import Floats, Predicts, evaluate_block

# The agent's radius is 15 px: no policy sends it only here.
CORNER_PX = 10.0


@dataclass(frozen=True)
class TrialEpisode:
    """What a trial episode showed.

    action_ms: of the policy, for each step of the episode alone. block_seconds: what a block of the
    evaluation takes at most. lowest, highest: of all coordinates of its actions, px.
    """

    seed: int
    steps: int
    score: float
    seconds: float
    action_ms: float
    block_seconds: float
    lowest: float
    highest: float

    def describe(self, blocks: int, workers: int) -> str:
        """Return it in one sentence, with what so many blocks take at most."""
        rounds = -(-blocks // max(1, workers))
        return (
            f"seed {self.seed}, {self.steps} steps in {self.seconds:.1f} s, score "
            f"{self.score:.3f}; {self.action_ms:.2g} ms an action, the whole run at most about "
            f"{duration(rounds * self.block_seconds)}"
        )

    @property
    def caution(self) -> str:
        """A warning where no action is a place on the board, else ""."""
        if max(abs(self.lowest), abs(self.highest)) > CORNER_PX:
            return ""
        return (
            f"all actions of the trial episode lie between {self.lowest:.3g} and "
            f"{self.highest:.3g} px, in the board's corner: are these normalised? Actions are "
            "target positions of the agent in px, 0 to 512"
        )


class _Counted:
    """A policy that counts its predictions."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.calls = policy, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["policy"], name)

    def predict_action(self, *given: Any) -> Any:
        self.calls += 1
        return self.policy.predict_action(*given)


def run(policy: Predicts, source: Source, seeds: Sequence[int], protocol: Protocol) -> TrialEpisode:
    """Roll the first seed out, then one step of the first block; no row is kept.

    UserError where the policy fails in one of these.
    """
    counted = _Counted(policy)
    actions: list[Floats] = []

    def watch(_: int, __: Floats, action: Floats | None, ___: float) -> None:
        if action is not None:
            actions.append(action)

    def roll(block: Sequence[int], rules: Protocol) -> list[dict[str, Any]]:
        start_block(counted, Task(source, tuple(block)))
        rows = evaluate_block(counted, block, rules, video=watch)
        failed = next((row for row in rows if row["error"] is not None), None)
        if failed is not None:
            raise UserError(
                f"--policy must act in a trial of {len(block)} episode(s) before the {len(seeds)} "
                f"are run, and {source.factory} failed: {failed['error']}"
            )
        return rows

    began = time.perf_counter()
    (row,) = roll(seeds[:1], protocol)
    seconds, calls, taken = time.perf_counter() - began, counted.calls, np.array(actions)
    steps, most = max(1, row["length"]), protocol.max_episode_steps
    block = seeds[: protocol.block_size]
    together = roll(block, replace(protocol, max_episode_steps=1, execute_delay=0))
    a_call = sum(each["policy_ms"] for each in together) / 1e3
    a_step = (row["env_ms"] + row["render_ms"]) / 1e3 / steps
    return TrialEpisode(
        seed=seeds[0],
        steps=row["length"],
        score=row["score"],
        seconds=seconds,
        action_ms=row["policy_ms"] / steps,
        block_seconds=most * (a_call * calls / steps + a_step * len(block)),
        lowest=float(taken.min(initial=np.inf)),
        highest=float(taken.max(initial=-np.inf)),
    )

"""A policy of another project gives the same rows in any order of blocks."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.config.protocol import Protocol
from harness.evaluation.policy_source import Source, Task, Worker


class Careless:
    """Draws from every global generator, and remembers how often it has acted."""

    def __init__(self) -> None:
        self.acted = 0

    def reset(self) -> None:
        self.acted = 0

    def predict_action(self, obs: dict[str, Tensor], generators: list[torch.Generator]) -> Tensor:
        self.acted += 1
        shift = 10 * random.random() + 10 * np.random.random() + self.acted  # noqa: NPY002
        return obs["state"][:, -1, None, :2].float() + shift * torch.rand(len(generators), 1, 2)


def test_blocks_in_any_order_and_process_give_the_same_rows(tmp_path: Path) -> None:
    source = Source(factory=f"{__name__}:Careless", folder=tmp_path)
    blocks = [(300_000, 300_001), (300_002,), (300_003,)]
    found = []
    for order in (blocks, blocks[::-1]):
        torch.rand(3)  # whatever was drawn before
        tasks = [Task(source, block) for block in order]
        outcomes = Worker(Protocol(max_episode_steps=8)).run(tasks)
        rows = [row for _, outcome in outcomes for row in outcome.rows]
        assert all(row["error"] is None for row in rows)
        kept = ("max_coverage", "action_jerk", "idle_share")
        found.append({row["env_seed"]: [row[name] for name in kept] for row in rows})
    assert found[0] == found[1]
    assert len({tuple(values) for values in found[0].values()}) == 4


@pytest.mark.parametrize("has_reset", [True, False])
def test_a_policy_needs_no_reset(
    has_reset: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_reset:
        monkeypatch.delattr(Careless, "reset")
    source = Source(factory=f"{__name__}:Careless", folder=tmp_path)
    worker = Worker(Protocol(max_episode_steps=3))
    for _ in worker.run([Task(source, (300_000,)), Task(source, (300_001,))]):
        assert worker.loaded is not None
    policy = worker.loaded[1]
    assert isinstance(policy, Careless)
    assert policy.acted == (3 if has_reset else 6)

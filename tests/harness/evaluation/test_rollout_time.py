"""An episode row's time adds up, and progress says rate and time left."""

import io
import time
from collections.abc import Sequence

import pytest
import torch
from rich.console import Console
from torch import Tensor

from harness.config.protocol import Protocol
from harness.evaluation.progress import EvalProgress
from harness.evaluation.rollout import evaluate_block

PAUSE = 0.02


class Slow:
    """Acts after a pause."""

    obs_mode = "image"
    obs_horizon = 2

    def predict_action(
        self, obs: dict[str, Tensor], generators: Sequence[torch.Generator]
    ) -> Tensor:
        """Stay near the middle."""
        time.sleep(PAUSE)
        return torch.full((len(generators), 1, 2), 250.0)


def test_the_times_of_a_block_add_up_to_its_wall_time() -> None:
    steps = 10
    began = time.perf_counter()
    rows = evaluate_block(Slow(), range(300_000, 300_003), Protocol(max_episode_steps=steps))
    wall = (time.perf_counter() - began) * 1e3
    spent = {name: sum(row[f"{name}_ms"] for row in rows) for name in ("policy", "env", "render")}
    assert spent["policy"] >= steps * PAUSE * 1e3
    assert min(spent.values()) > 0
    assert sum(spent.values()) <= wall
    assert sum(spent.values()) > 0.5 * wall
    # Nobody left the batch, so all have the same share.
    assert rows[0]["policy_ms"] == pytest.approx(rows[2]["policy_ms"])


def test_progress_says_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = io.StringIO()
    with EvalProgress(300, Console(file=out, width=100)) as progress:
        now = 120.0
        progress.advance([{"score": 0.5}] * 100)
        assert progress.text() == "score so far 0.500, 5.0 episodes/s, about 40 s left"
        now = 160.0
        progress.advance([{"score": 0.5}] * 200)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("[100/300] ")
    assert lines[1] == "[300/300] score so far 0.500, 5.0 episodes/s"

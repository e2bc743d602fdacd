"""A worker's death costs its block a second go; what the one worker of this process does.

That any number of workers gives the same table is tested in tests/faults/test_faults_evaluation.py.
"""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.protocol import Protocol, blocks
from harness.core.errors import UserError
from harness.evaluation.policy_source import Source, Task, roll
from harness.evaluation.pool import open_pool

SHORT = Protocol(max_episode_steps=12, block_size=4)
BLOCKS = blocks(range(300_000, 300_018), 4)


def table(source: Source, workers: int) -> list[dict[str, Any]]:
    with open_pool(SHORT, workers) as pool:
        tasks = [Task(source, block) for block in BLOCKS]
        rows = [row for _, outcome in pool.run(tasks) for row in outcome.rows]
    return sorted(rows, key=lambda row: int(row["env_seed"]))


DYING = """
import os, signal
from pathlib import Path
from envs import LockstepPushT

def first_x(seed):
    return float(LockstepPushT([seed]).reset()["state"][0, 0])

ONCE, ALWAYS = first_x(300_004), first_x(300_008)
MARKER = Path(__file__).with_name("died")

class Policy:
    def predict_action(self, obs, generators):
        x = float(obs["state"][0, 0, 0])
        if x == ALWAYS or (x == ONCE and not MARKER.exists()):
            MARKER.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return obs["state"][:, :, :2]

def policy():
    return Policy()
"""


@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.slow
def test_the_block_of_a_dead_worker_is_redone(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    rows = table(Source(factory="dying:policy", folder=tmp_path), 2)
    assert (tmp_path / "died").exists()
    assert [row["env_seed"] for row in rows] == list(range(300_000, 300_018))
    # The block that killed its worker once is whole; the one that always does is an error.
    failed = [row["env_seed"] for row in rows if row["error"] is not None]
    assert failed == [300_008, 300_009, 300_010, 300_011]
    assert "its worker died 3 times" in rows[8]["error"]


def test_recording_keeps_the_chosen_episodes_only() -> None:
    class Stay:
        def predict_action(self, obs: Any, generators: Any) -> Any:
            return obs["state"][:, :, :2]

    outcome = roll(Stay(), BLOCKS[0], SHORT, [BLOCKS[0][1], 7])
    assert list(outcome.steps) == [BLOCKS[0][1]]
    assert len(outcome.steps[BLOCKS[0][1]]) == 13


def test_a_fault_outside_of_the_policy_is_in_the_rows() -> None:
    class Odd:
        obs_mode = "smell"

        def predict_action(self, obs: Any, generators: Any) -> Any:
            raise AssertionError

    outcome = roll(Odd(), BLOCKS[0], SHORT)
    assert [row["env_seed"] for row in outcome.rows] == list(BLOCKS[0])
    assert "obs_mode" in outcome.rows[0]["error"]


COUNTING = """
import torch

made, threads = [], set()

class Policy:
    def predict_action(self, obs, generators):
        threads.add(torch.get_num_threads())
        return obs["state"][:, :, :2]

def first():
    made.append("first")
    return Policy()

def second():
    made.append("second")
    return Policy()
"""


def test_one_worker_has_one_thread_and_loads_each_policy_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting_policies.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(str(tmp_path))
    sources = [Source(factory=f"counting_policies:{name}") for name in ("first", "second")]
    before = torch.get_num_threads()
    tasks = [Task(source, block) for source in sources for block in BLOCKS[:2]]
    with open_pool(SHORT, 1) as pool:
        done = [task for task, _ in pool.run(tasks)]
    counting = importlib.import_module("counting_policies")
    assert done == tasks
    assert counting.made == ["first", "second"]
    assert counting.threads == {1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nonsense", "FILE.py:factory, given 'nonsense'"),
        ("no.such:policy", "No module named 'no'"),
        ("envs:nothing", "envs has no nothing"),
        ("envs:os.system", "takes module:factory"),
        ("builtins:dict", "made a dict"),
        (":f", "takes module:factory"),
    ],
)
def test_what_makes_no_policy_is_said(factory: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Source(factory=factory).load()

"""Nodes of a real Ray cluster that go: nothing is lost, nothing counts twice, nothing waits."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cluster.ray_session import ray_session
from harness.config.protocol import Protocol
from harness.config.trial_config import resolve
from harness.core.errors import UserError
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import RayWorkers, open_pool
from harness.storage import checkpoints, tables
from ibc.config.action import ActionConfig
from ibc.data.normalizer import Normalizer
from ibc.policies.factory import build_policy
from tests.commands import LONG, wait_for, without_clocks

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and one node that stays; tests add those that go."""
    from ray.cluster_utils import Cluster

    made = Cluster()
    node = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    made.add_node(num_cpus=0, **node)
    made.add_node(num_cpus=1, num_gpus=1, **node)
    yield made
    made.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 * 2**20)


def rows(folder: Path, kind: str) -> list[dict]:
    return without_clocks(tables.read(folder, kind))


def test_a_sweep_goes_on_where_a_node_went(cluster, commands, undisturbed):
    # Slow enough to be met in the middle; shares of a GPU that is only counted.
    commands.space.write_text(LONG)
    results = commands.results
    node = add_node(cluster)
    options = ("--name", "disturbed", "--address", cluster.address, "--gpus-per-trial", "0.5")
    process = commands.start_sweep(*options)

    def both_run() -> bool:
        found = commands.statuses("disturbed")
        running = [each["status"] == "running" and each.get("step", 0) >= 2 for each in found]
        return len(running) == 2 and all(running)

    wait_for(both_run, 300)
    cluster.remove_node(node, allow_graceful=False)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), out + err
    assert "2/2 trials finished" in out
    for kind in ("trials", "episodes"):
        assert rows(results / "disturbed", kind) == rows(undisturbed, kind)
    attempts = tables.read(results / "disturbed", "trials")["attempts"].to_pylist()
    assert sorted(attempts) == [1, 2]
    curves = tables.read(results / "disturbed", "curves").to_pylist()
    steps = [(row["config_hash"], row["step"]) for row in curves]
    assert len(steps) == len(set(steps)) == 300


def test_a_trial_lies_on_one_node(cluster, commands):
    options = ("--address", cluster.address, "--cpus-per-trial", "2")
    code, _, err = commands.run_sweep(*options)
    assert code == 2
    assert "must fit into the 1 CPUs of the cluster" in err
    assert err.count("\n") == 1


SLOW = """
import time

class Policy:
    def predict_action(self, obs, generators):
        time.sleep(0.01)
        return obs["state"][:, :, :2]

def policy():
    return Policy()
"""


def test_an_evaluation_goes_on_where_a_node_went(cluster, commands, tmp_path):
    (tmp_path / "slow_policy.py").write_text(SLOW)
    words = (ROOT / "run_eval.py", "--policy", "slow_policy:policy", "--seeds", "100")
    code, out, err = commands.run(*words, "--workers", "1", "--results", tmp_path / "one")
    assert code == 0, out + err

    node = add_node(cluster)
    results = tmp_path / "two"
    given = ("--workers", "2", "--address", cluster.address, "--results", results)
    process = commands.start(*words, *given)
    folder = results / "evaluations/slow_policy.policy/episodes"
    wait_for(lambda: len(list(folder.glob("*-part*"))) > 0, 300)
    cluster.remove_node(node, allow_graceful=False)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    # The progress, and nothing of Ray's.
    assert all(" score so far " in line for line in err.splitlines()), err
    found = [
        rows(tmp_path / name / "evaluations/slow_policy.policy", "episodes")
        for name in ("one", "two")
    ]
    assert found[0] == found[1]
    assert [row["env_seed"] for row in found[1]] == list(range(300_000, 300_100))
    assert {row["error"] for row in found[1]} == {None}


def test_a_checkpoint_travels_to_workers_that_share_no_folder(cluster, tmp_path):
    """The folder is gone before any worker loads the weights: they came through Ray."""
    bounds = torch.zeros(2), torch.full((2,), 512.0)
    normalizer = Normalizer(ActionConfig(frame="board", bounds="board"), *bounds)
    config = resolve({"policy.action.frame": "board", "policy.action.bounds": "board"}, {}).policy
    policy = build_policy(config, normalizer, generator_seed=0).eval()
    folder = checkpoints.save(tmp_path, "best", policy, config={}, step=1)
    source, protocol = Source(checkpoint=folder), Protocol(max_episode_steps=12, block_size=4)
    task = Task(source, (300_000, 300_001))
    with open_pool(protocol, 1) as pool:
        ((_, here),) = pool.run([task])

    with ray_session(address=cluster.address):
        crew = RayWorkers(protocol, 1, lambda: None, elsewhere=True)
        crew._files(source)
        shutil.rmtree(folder)
        ((_, far),) = crew.run([task], frozenset())
    timeless = [
        [{k: v for k, v in row.items() if not k.endswith("_ms")} for row in outcome.rows]
        for outcome in (here, far)
    ]
    assert timeless[0] == timeless[1]
    assert timeless[0][0]["error"] is None


def test_a_cluster_without_nodes_ends_with_a_word(cluster):
    source = Source(factory="builtins:dict")
    with ray_session(address=cluster.address):
        crew = RayWorkers(Protocol(), None, lambda: None, elsewhere=True, patience=2.0)
        with pytest.raises(UserError, match=r"--workers must be 1 to the \d CPUs of the cluster"):
            RayWorkers(Protocol(), 9, lambda: None, elsewhere=True)
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
        with pytest.raises(UserError, match="the cluster must have a living CPU, and for 2 s"):
            list(crew.run([Task(source, (300_000,))], frozenset()))

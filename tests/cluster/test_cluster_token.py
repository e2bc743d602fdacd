"""A cluster that asks for a token: who has it runs a sweep, who has not is told so in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import terminal

ROOT = Path(__file__).resolve().parents[2]

# Started by a process of its own: Ray reads these variables once in a process's life.
HEAD = """
import sys
from ray.cluster_utils import Cluster
made = Cluster()
made.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
print(made.address, flush=True)
sys.stdin.read()
made.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_with_a_token_is_joined_by_who_has_it(commands, tmp_path):
    token = "0123456789abcdef" * 4
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=terminal(**given),
    )
    assert head.stdin is not None
    assert head.stdout is not None
    try:
        address = head.stdout.readline().strip()
        words = ("--policy", "envs.expert:policy", "--seeds", "2", "--address", address)
        command = (ROOT / "run_eval.py", *words, "--results", tmp_path / "results")
        wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
        code, _, err = commands.run(*command, **wrong)
        assert code == 2, err
        assert "--address must name a running Ray cluster (whose token" in err
        assert token not in err
        code, out, err = commands.run(*command, **given)
        assert code == 0, out + err
    finally:
        head.stdin.close()
        head.wait(timeout=120)
        head.stdout.close()

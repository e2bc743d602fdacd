"""Private names of Ray are used where they exist; a Ray without them works too."""

import os
import subprocess
import sys
import tempfile

import pytest

from harness.cluster import ray_patches


def test_processes_are_left_out_while_ray_starts_and_only_then():
    from ray._private.node import Node

    before = {name: getattr(Node, name) for name in ray_patches._UNUSED}

    def start():
        assert Node.start_monitor(None) is None
        raise RuntimeError("timed out")

    with pytest.raises(RuntimeError, match="timed out"), ray_patches.without_unused_processes():
        start()
    assert {name: getattr(Node, name) for name in before} == before


def test_trials_run_in_the_workers_that_ray_has_started():
    """Workers with another environment would be started again, each in a second or more."""
    from ray.tune.execution import class_cache

    assert class_cache.DEFAULT_ENV_VARS.keys() <= {"PL_DISABLE_FORK"}
    ray_patches.reuse_started_workers()
    assert class_cache.DEFAULT_ENV_VARS == {}


def test_modules_that_do_not_exist_are_left_alone(monkeypatch):
    for name in ("ray._private.node", "ray._private.worker", "ray.tune.execution.class_cache"):
        monkeypatch.setitem(sys.modules, name, None)
    with ray_patches.without_unused_processes():
        ray_patches.silence_worker_errors()
        ray_patches.reuse_started_workers()


WITHOUT = """
from harness.cluster import ray_patches
from harness.cluster.ray_session import ray_session
ray_patches.LOOPBACK_ONLY = {"RAY_NO_SUCH_NAME": "0"}
ray_patches._PRELOAD = "RAY_no_such_modules"
ray_patches._KEEP_IDLE = "RAY_no_such_limit"
ray_patches._UNUSED = ("start_nothing",)
ray_patches._ERROR_PRINTER = "print_no_such_errors"
ray_patches._FOLDER_ARGUMENT = "_no_such_folder"
ray_patches._TRIAL_ENVIRONMENT = "NO_SUCH_VARIABLES"
with ray_session(cpus=1, gpus=0, preload="json"):
    import ray
    ray_patches.reuse_started_workers()
    from ray import tune
    def trial(config):
        tune.report({"number": config["number"] + 1})
    storage = tune.RunConfig(storage_path=%r, verbose=0)
    found = tune.Tuner(trial, param_space={"number": 41}, run_config=storage).fit()
    print(ray.get(ray.remote(lambda: 1).remote()), found[0].metrics["number"])
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_without_the_private_names_runs_tasks_and_trials(tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Short, because the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT % str(tmp_path)],
            env={**clean, "RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert done.stdout.splitlines()[-1:] == ["1 42"], done.stderr

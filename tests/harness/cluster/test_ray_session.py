"""What fits where, and a Ray that nobody else drives."""

import inspect
import os
import subprocess
import sys
import zipfile

import pytest
import torch

from harness.cluster import ray_session, resources
from harness.cluster.resources import Resources
from harness.core.errors import UserError


def nodes(monkeypatch, *found):
    monkeypatch.setattr(resources, "_nodes", lambda: [Resources(*each) for each in found])


@pytest.mark.parametrize(
    ("cpus", "gpus", "found", "fit"),
    [
        (1, 0, [(2, 0)], 2),
        (1, 0, [(2, 0), (3, 0)], 5),
        (2, 0, [(1, 0), (3, 0)], 1),  # the odd one is left over, the small node too
        (0.5, 0, [(1, 0), (1, 0)], 4),
        (1, 0.25, [(8, 2)], 8),
        (0.25, 0.25, [(1, 1), (4, 0)], 4),
        (1, 0.6, [(8, 2)], 2),  # what is left of two GPUs is not one
        (1, 2, [(8, 3), (8, 4)], 3),
    ],
)
def test_a_trial_lies_on_one_node(monkeypatch, cpus, gpus, found, fit):
    nodes(monkeypatch, *found)
    assert resources.cluster_slots(Resources(cpus, gpus)) == fit


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (2, 0, "must fit into the 1 CPUs of the cluster's largest node (2 in all), given 2"),
        (1, 1, "must fit into the 0 GPUs of the cluster's largest node (2 in all), given 1"),
    ],
)
def test_what_fits_on_no_node_is_refused_with_the_numbers(monkeypatch, cpus, gpus, message):
    nodes(monkeypatch, (1.0, 0.0), (1.0, 0.0))
    with pytest.raises(UserError) as refused:
        resources.cluster_slots(Resources(cpus, gpus))
    assert message in str(refused.value)
    assert resources.cluster_room(Resources(cpus, gpus)) == 0


def test_workers_import_the_checkout_that_was_started(tmp_path, monkeypatch):
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness/__init__.py").touch()
    monkeypatch.setattr(ray_session, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "given"))
    ray_session._lead_workers_here()
    ray_session._lead_workers_here()
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "given"), str(tmp_path)])
    asked = [sys.executable, "-c", "import harness; print(harness.__file__)"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout == f"{tmp_path}/harness/__init__.py\n"  # although this one is installed


def test_a_cluster_gets_our_code_and_nothing_else(tmp_path, monkeypatch):
    from ray._private.runtime_env import packaging

    monkeypatch.delenv("IBC_HARNESS_CACHE", raising=False)
    environment = ray_session._own_code()
    assert environment.keys() == {"py_modules", "excludes"}
    # Older versions of Ray have no such argument and always read .gitignore.
    known = inspect.signature(packaging.create_package).parameters
    options = {"include_gitignore": True} if "include_gitignore" in known else {}
    total = 0
    for folder in environment["py_modules"]:
        excludes = environment["excludes"]
        path = tmp_path / "package.zip"
        path.unlink(missing_ok=True)
        packaging.create_package(folder, path, excludes=excludes, **options)
        names = zipfile.ZipFile(path).namelist()
        assert {name.rpartition(".")[2] for name in names if not name.endswith("/")} <= {
            "py",
            "css",
            "js",
        }
        total += path.stat().st_size
    assert total < 2 * 2**20


CLIENT = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50)
except Exception as error:
    print("refused", type(error).__name__)
else:
    print("CPUs", ray.cluster_resources()["CPU"])
"""


def client(address, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, address],
        env={**clean, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout.strip()


def test_a_session_after_the_import_of_ray_is_a_mistake(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", object())
    for name in ray_session._TOKEN:
        monkeypatch.delenv(name, raising=False)
    mistake = pytest.raises(RuntimeError, match="before the first import of ray")
    with mistake, ray_session.ray_session():
        raise AssertionError


GPUS = """
import sys
from pathlib import Path
from harness.cluster import resources
resources._DEVICES = Path(sys.argv[1])
print(resources.available_gpus(), "torch" in sys.modules)
"""


@pytest.mark.parametrize("device", ["nvidia0", "tty0"])
def test_torch_is_asked_for_gpus_where_there_is_a_driver(tmp_path, device):
    (tmp_path / device).touch()
    done = subprocess.run(
        [sys.executable, "-c", GPUS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    count = torch.cuda.device_count() if device == "nvidia0" else 0
    assert done.stdout.split() == [str(count), str(device == "nvidia0")]


@pytest.mark.ray
@pytest.mark.slow
def test_a_client_without_the_token_is_refused(monkeypatch, tmp_path):
    """And workers import what they are told to before they are asked for anything, and are kept.

    Beside them only what a session needs runs: Ray's agents have other names than their commands.
    """
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    program = """
import os, sys, time
from contextlib import suppress
from pathlib import Path
from harness.cluster import resources
from harness.cluster.ray_session import ray_session
def commands():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            yield path.read_bytes().decode().split("\\0")
with ray_session(cpus=1, gpus=4, preload="mailbox") as scratch:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
    imported, worker = ray.get(ray.remote(lambda: ("mailbox" in sys.modules, os.getpid())).remote())
    print(imported, flush=True)
    group = ray.util.placement_group([{"CPU": 1}])
    ray.get(group.ready())
    time.sleep(2.5)  # Ray ends workers that it thinks needless after a second
    placed = PlacementGroupSchedulingStrategy(group)
    again = ray.remote(num_cpus=1)(lambda: os.getpid()).options(scheduling_strategy=placed).remote()
    print(ray.get(again) == worker)
    print(sorted(Path(words[0]).name for words in commands() if str(scratch) in " ".join(words)))
    assert not [name for name in os.environ if "preload" in name or "limit" in name]
    print(resources.cluster_slots(resources.Resources(0.125, 0.25)), flush=True)
    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
    sys.stdin.read()
assert not scratch.exists()
"""
    home = {"HOME": str(tmp_path)}
    session = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **home},
    )
    try:
        assert session.stdout.readline() == "True\n"
        assert session.stdout.readline() == "True\n"
        assert session.stdout.readline() == "['gcs_server', 'raylet']\n"
        assert session.stdout.readline() == "8\n"
        address, token = session.stdout.readline().split()
        assert len(token) == 64
        assert client(address, **home).startswith("refused ")
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, **home}
        assert client(address, **own) == "CPUs 1.0"
    finally:
        session.communicate("", timeout=120)
    assert session.returncode == 0
    assert not list(tmp_path.rglob("*token*"))  # Ray keeps none in the user's home

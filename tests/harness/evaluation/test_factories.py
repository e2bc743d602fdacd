"""Policies of other code: what is loaded, in which form, and what their hash covers."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.protocol import Protocol
from harness.core.errors import UserError
from harness.evaluation import factories
from harness.evaluation.rollout import evaluate_block

CODE = """
import torch
from offsets import by
from torch import nn

class Policy(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.line = nn.Linear(5, 2)

    def predict_action(self, obs, generators):
        return obs["state"][:, :, :2] + self.scale * by

class Dictionary:
    obs_mode = "keypoints"

    def reset(self):
        self.was_reset = True

    def predict_action(self, obs, deterministic=False):
        assert deterministic is False
        return {"action": 256 + torch.zeros(len(obs["keypoints"]), 8, 2)}

class Alone:
    def predict_action(self, obs):
        return obs["state"][:, :, :2]

class Three(Alone):
    def predict_action(self, obs, generators, more):
        raise AssertionError

def make(scale=1, weights=None):
    return Policy(scale)

def needs_argument(path):
    return Policy(1)

def fails():
    raise OSError("no such weights")

def exits():
    import nothing_of_this_name
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with peers.py, which imports offsets.py, and a file that is none of its own."""
    (tmp_path / "peers.py").write_text(CODE)
    (tmp_path / "offsets.py").write_text("by = 2.0\n")
    (tmp_path / "other.py").write_text("")
    before = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - before[0]:
        del sys.modules[name]
    sys.path[:] = before[1]


def hash_of(folder: Path, factory: str = "./peers.py:make", **arguments: str) -> str:
    """The hash in a fresh process, which has imported none of it."""
    importlib.invalidate_caches()
    for name in ("peers", "offsets"):
        sys.modules.pop(name, None)
    for name in [name for name in sys.modules if name.startswith("policy_")]:
        del sys.modules[name]
    given = tuple(arguments.items())
    torch.rand(1)
    policy = factories.load(factory, folder, given)
    return factories.policy_hash(policy, factory, folder, given)


def test_the_hash_covers_code_arguments_files_and_weights(folder: Path) -> None:
    weights = folder / "weights.bin"
    weights.write_bytes(b"1")
    first = hash_of(folder)
    assert first == hash_of(folder)  # the weights that the factory draws are the same
    assert first == hash_of(folder, "peers:make")
    (folder / "other.py").write_text("changed = True\n")
    assert first == hash_of(folder)
    seen = {first, hash_of(folder, scale="2"), hash_of(folder, weights=str(weights))}
    weights.write_bytes(b"2")
    seen.add(hash_of(folder, weights=str(weights)))
    (folder / "offsets.py").write_text("by = 3.0\n")
    seen.add(hash_of(folder))
    (folder / "peers.py").write_text(
        CODE.replace("nn.Linear(5, 2)", "nn.Linear(5, 2).requires_grad_()")
    )
    seen.add(hash_of(folder))
    policy: Any = factories.load("./peers.py:make", folder)
    policy.line.weight.data += 1
    seen.add(factories.policy_hash(policy, "./peers.py:make", folder))
    assert len(seen) == 7


@pytest.mark.parametrize("name", ["Dictionary", "Alone"])
def test_observations_alone_and_a_dictionary_are_diffusion_policys_form(
    folder: Path, name: str
) -> None:
    policy = factories.load(f"./peers.py:{name}", folder)
    rows = evaluate_block(policy, (300_000, 300_001), Protocol(max_episode_steps=9))
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["length"] == 9
    assert hasattr(policy, "reset") == (name == "Dictionary")  # forwarded, where there is one


def test_arguments_are_numbers_lists_and_text(folder: Path) -> None:
    (folder / "offsets.py").write_text("def by(**given):\n    return Kept(given)\n" + KEPT)
    given = (("a", "3"), ("b", "0.5"), ("c", "true"), ("d", "[1, 2]"), ("e", "x=y"), ("f", "NaN"))
    policy: Any = factories.load("offsets:by", folder, given)
    wanted = {"a": 3, "b": 0.5, "c": True, "d": [1, 2], "e": "x=y", "f": "NaN"}
    assert policy.given == wanted


KEPT = """
class Kept:
    def __init__(self, given):
        self.given = given
    def predict_action(self, obs, generators): ...
"""


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("./peers.py:nothing", (), r"./peers.py has no nothing\(\)"),
        ("./peers:make", (), r"no file ./peers; did you mean ./peers.py:make\?"),
        ("./absent.py:make", (), "no file ./absent.py"),
        ("peers:needs_argument", (), "peers:needs_argument takes: missing a required .*'path'"),
        ("peers:make", (("size", "3"),), "unexpected keyword argument 'size'"),
        ("peers:fails", (), r"peers:fails failed: OSError: no such weights \(peers.py:\d+\)"),
        ("peers:exits", (), "failed: ModuleNotFoundError"),
        ("peers:Three", (), r"\(obs\) as in Diffusion Policy; that of peers:Three takes \(obs, g"),
        ("./broken.py:make", (), "./broken.py cannot be imported: SyntaxError"),
    ],
)
def test_what_makes_no_policy_is_one_line(
    folder: Path, factory: str, arguments: factories.Arguments, message: str
) -> None:
    (folder / "broken.py").write_text("def make(:\n")
    with pytest.raises(UserError, match=message):
        factories.load(factory, folder, arguments)

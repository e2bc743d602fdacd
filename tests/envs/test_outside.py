"""The world beside other packages: the oldest pymunk supported, zarr 2, and the old gym 0.26.

Each installs what it needs into a folder of its own and is skipped where that cannot be had.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from envs.dataset.recording import ARRAYS, Recording

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRAJECTORIES = """
import hashlib, json, sys
import numpy as np, pymunk
from envs.physics.dynamics import World
digests = []
for engine in ("cffi", "pymunk"):
    world, digest = World(engine), hashlib.sha256()
    for seed in range(25):
        random = np.random.default_rng(seed)
        world.reset(seed)
        for action in random.uniform(100, 400, (60, 2)):
            contacts = world.step(action)
            digest.update(world.state.tobytes() + bytes([contacts]))
    digests.append(digest.hexdigest())
print(json.dumps([pymunk.version, *digests]))
"""

OLD_GYM = """
import gym, gymnasium
import numpy as np
import envs
from envs.legacy_gym import OldStepPushTEnv
from gym.utils.env_checker import check_env

ID = "ibc_harness/PushT-v0"
for mode in ("state", "keypoints", "image"):
    old, new = gym.make(ID, obs_mode=mode), gymnasium.make(ID, obs_mode=mode)
    check_env(old.unwrapped, skip_render_check=True)
    seen, other = old.reset(seed=5)[0], new.reset(seed=5)[0]
    for action in np.random.default_rng(0).uniform(0, 512, (40, 2)):
        assert old.observation_space.contains(seen)
        if mode == "image":
            assert seen["image"].dtype == np.uint8
            seen, other = seen["image"], other["image"]
        assert np.array_equal(seen, other)
        seen, *rest, _ = old.step(action)
        other, *expected, _ = new.step(action)
        assert rest == expected
frame_env = gym.make(ID, render_mode="rgb_array")
frame_env.reset(seed=0)
assert frame_env.render().shape == (512, 512, 3)
cut = gym.make(ID, max_episode_steps=4)
cut.reset(seed=0)
assert [cut.step(np.zeros(2))[3] for _ in range(4)] == [False] * 3 + [True]


class Wrapper(gym.Wrapper):
    def reset(self):
        return super().reset()

    def step(self, action):
        observation, reward, done, info = super().step(action)
        return observation, reward, done, info


wrapped = Wrapper(OldStepPushTEnv(obs_mode="keypoints", max_episode_steps=3))
wrapped.seed(7)
first = wrapped.reset()
assert [wrapped.step(np.array([1.0, 1.0]))[2] for _ in range(3)] == [False, False, True]
assert np.array_equal(wrapped.reset(), first)
assert np.array_equal(first, gymnasium.make(ID, obs_mode="keypoints").reset(seed=7)[0])
assert wrapped.render(mode="rgb_array").shape == (512, 512, 3)
print(gym.__version__)
"""

ZARR_2 = """
import sys
import numpy as np
import zarr

# What a reader of Diffusion Policy does with its zarr: opens it, holds the lengths against the
# last episode's end, copies it chunk by chunk into memory, reads and decodes there.
root = zarr.open(sys.argv[1], "r")
assert sorted(root) == ["data", "meta"]
ends = root["meta"]["episode_ends"]
assert all(array.shape[0] == ends[-1] for _, array in root["data"].items())
memory = zarr.MemoryStore()
for group in ("meta", "data"):
    zarr.copy_store(root.store, memory, source_path=group, dest_path=group)
copy = zarr.group(memory)
assert np.diff(np.insert(copy["meta"]["episode_ends"][:], 0, 0)).tolist() == [5, 18, 31]
for name, row in (("img", (96, 96, 3)), ("keypoint", (9, 2)), ("state", (5,)), ("action", (2,))):
    values = copy["data"][name][:]
    assert values.shape == (54, *row), (name, values.shape)
    assert values.dtype == np.float32
    assert [values[at].min() // 1 for at in (0, 5, 23)] == [1, 2, 3], name
print(zarr.__version__)
"""


def attempt(*command: object) -> None:
    """Run an installation; skip the test where it fails."""
    try:
        subprocess.run(
            [str(part) for part in command], check=True, capture_output=True, text=True, timeout=400
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"took too long: {command[0]} {command[-1]}")
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"cannot install {command[-1]} here: {last}")


def run(python: Path, script: str, *paths: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT)))}
    result = subprocess.run(
        [python, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


def test_the_oldest_pymunk_gives_the_same_trajectories(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = next(name for name in project["dependencies"] if name.startswith("pymunk"))
    oldest = re.search(r">=([\d.]+)", wanted)[1]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path)
    attempt(*pip, f"pymunk~={oldest}.0")
    python = Path(sys.executable)
    version, *digests = json.loads(run(python, TRAJECTORIES, tmp_path))
    assert version.startswith(oldest)
    newest, *expected = json.loads(run(python, TRAJECTORIES))
    assert newest != version
    assert digests == expected
    assert len(set(digests)) == 1


def test_zarr_2_reads_what_a_person_recorded(tmp_path: Path) -> None:
    recorded = Recording(tmp_path / "mine.zarr")
    for number in range(3):
        rows = {
            name.removeprefix("data/"): np.full((5 + 13 * number, *row), number + 1.0)
            for name, (row, _) in ARRAYS.items()
            if name.startswith("data/")
        }
        recorded.append(rows, 20_000 + number)
    recorded.close()
    attempt(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    install = (python, "-m", "pip", "install", "--quiet", "numpy<2", "numcodecs<0.13")
    attempt(*install, "zarr==2.16.1")
    script = ZARR_2.replace("sys.argv[1]", repr(str(tmp_path / "mine.zarr")))
    assert run(python, script) == "2.16.1"


def test_the_old_gym_package_steps_the_same_world(tmp_path: Path) -> None:
    attempt(sys.executable, "-m", "venv", tmp_path)
    python = tmp_path / "bin/python"
    attempt(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "gymnasium",
        "pymunk<8",
        "cffi",
        "numpy<2",
        "gym==0.26.2",
    )
    assert run(python, OLD_GYM) == "0.26.2"

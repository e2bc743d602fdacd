"""The examples of docs/POLICIES.md run; adapters call other packages' policies as these expect.

Where LeRobot or Stable-Baselines3 is installed, the same is tested with real policies.
"""

import re
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from envs import PushTEnv
from harness.config.protocol import Protocol
from harness.evaluation import adapters, factories, trial_episode
from harness.evaluation.policy_source import Source, Task, Worker
from harness.evaluation.rollout import evaluate_block

PAGE = Path(__file__).resolve().parents[3] / "docs" / "POLICIES.md"
SEEDS = (300_000, 300_001, 300_002)
SHORT = Protocol(max_episode_steps=12)


def examples() -> dict[str, str]:
    """The page's files by name."""
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return dict(blocks)


@pytest.mark.parametrize("name", ["state.py", "keypoints.py", "images.py"])
def test_the_examples_of_the_page_run(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(examples()[name])
    source = Source(factory=f"./{name}:policy", folder=tmp_path)
    policy = source.load()
    rows = evaluate_block(policy, SEEDS, SHORT)
    assert [row["error"] for row in rows] == [None] * 3
    alone = evaluate_block(policy, SEEDS[1:2], SHORT)[0]
    assert alone["max_coverage"] == pytest.approx(rows[1]["max_coverage"], abs=1e-4)
    found = trial_episode.run(policy, source, SEEDS, SHORT)
    assert 0 <= found.lowest < found.highest
    assert found.caution == ""
    assert found.steps == 12


def test_a_policy_of_the_project_acts_in_a_gymnasium_loop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exec(examples()["rollout.py"], {})
    assert float(capsys.readouterr().out.split()[0]) > 0.8


class LeRobotsOwn(nn.Module):
    """What a LeRobot policy is from outside: queues of a row for each episode, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_features={"observation.images.top": None})
        self.observed: list[dict[str, Tensor]] = []

    def reset(self) -> None:
        self.queue: deque[Tensor] = deque(maxlen=3)

    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        self.observed.append(batch)
        if not self.queue:
            self.queue.extend(torch.full((3, len(batch["observation.state"]), 2), 0.5))
        action = self.queue.popleft()
        assert len(action) == len(batch["observation.state"])
        return action


def test_a_lerobot_policy_sees_the_whole_block_at_every_step() -> None:
    network = LeRobotsOwn()
    policy = adapters.LeRobot(network, before=lambda batch: batch, after=lambda a: 512 * a)
    generators = [torch.Generator() for _ in range(3)]
    obs = {
        "image": torch.full((3, 1, 96, 96, 3), 255, dtype=torch.uint8),
        "agent_pos": torch.arange(6.0).reshape(3, 1, 2),
    }
    assert policy.predict_action(obs, generators).tolist() == [[[256, 256]]] * 3
    # The episode in the middle is over; its last observation stays.
    later = {name: value[::2] + (name == "agent_pos") for name, value in obs.items()}
    assert policy.predict_action(later, generators[::2]).shape == (2, 1, 2)
    assert network.observed[1]["observation.state"].tolist() == [[1, 2], [2, 3], [5, 6]]
    assert network.observed[0]["observation.images.top"].shape == (3, 3, 96, 96)
    assert network.observed[0]["observation.images.top"].unique().tolist() == [1]
    policy.reset()
    assert policy.predict_action(later, generators[::2]).shape == (2, 1, 2)
    network.config.image_features = {}
    with pytest.raises(ValueError, match="must see one camera, it sees 0"):
        adapters.LeRobot(network, None, None)


@pytest.mark.parametrize(
    ("mode", "key"), [("state", None), ("keypoints", None), ("image", "image")]
)
def test_a_stable_baselines_network_sees_the_newest_frame(mode: Any, key: str | None) -> None:
    class Network:
        observation_space = PushTEnv(obs_mode=mode).observation_space

        def predict(self, given: Any, deterministic: bool) -> tuple[np.ndarray[Any, Any], None]:
            assert deterministic
            one = given if key is None else {name: value[0] for name, value in given.items()}
            assert self.observation_space.contains(
                one[0].astype(float)
                if key is None
                else one | {"agent_pos": one["agent_pos"].astype(float)}
            )
            count = len(given if key is None else given[key])
            return np.full((count, 2), 100.0, np.float32), None

    policy = adapters.StableBaselines3(Network())
    assert policy.obs_mode == mode
    rows = evaluate_block(policy, SEEDS, SHORT)
    assert [row["error"] for row in rows] == [None] * 3


@pytest.mark.parametrize("mode", ["keypoints", "image"])
def test_a_diffusion_policy_network_gets_its_own_keys(mode: str) -> None:
    class Network(nn.Linear):
        n_obs_steps = 2

        def reset(self) -> None: ...

        def predict_action(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
            shapes = {name: tuple(value.shape[1:]) for name, value in obs.items()}
            wanted = {"image": (2, 3, 96, 96), "agent_pos": (2, 2)}
            assert shapes == ({"obs": (2, 20)} if mode == "keypoints" else wanted)
            count = len(next(iter(obs.values())))
            return {"action": torch.full((count, 8, 2), 256.0), "action_pred": torch.zeros(1)}

    rows = evaluate_block(adapters.DiffusionPolicy(Network(1, 1), mode), SEEDS, SHORT)
    assert [row["error"] for row in rows] == [None] * 3


def rolled(factory: str, folder: Path, **arguments: str) -> list[dict[str, Any]]:
    given = tuple(arguments.items())
    source = Source(factory=factory, folder=folder, arguments=given)
    orders = [(SEEDS, (300_009,)), ((300_009,), SEEDS)]
    found = []
    for blocks in orders:  # two workers
        tasks = [Task(source, block) for block in blocks]
        outcomes = Worker(Protocol(max_episode_steps=10)).run(tasks)
        rows = sorted((r for _, o in outcomes for r in o.rows), key=lambda row: row["env_seed"])
        assert [row["error"] for row in rows] == [None] * 4
        found.append([(row["final_coverage"], row["action_jerk"]) for row in rows])
    assert found[0] == found[1]
    policy = source.load()
    hashes = {factories.policy_hash(policy, factory, folder, given) for _ in range(2)}
    assert len(hashes) == 1
    return rows


@pytest.mark.parametrize("kind", ["diffusion", "act"])
def test_a_real_lerobot_policy(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("lerobot")
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config
    from lerobot.policies.factory import make_pre_post_processors as make_processors

    inputs = {
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    }
    small = {
        "diffusion": {"num_inference_steps": 2, "down_dims": (16, 32), "n_groups": 4},
        "act": {
            "pretrained_backbone_weights": None,
            **{"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1},
            **{"chunk_size": 8, "n_action_steps": 4},
        },
    }[kind]
    config = make_policy_config(
        kind,
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
        **small,
    )
    bounds = {"min": torch.zeros(2), "max": torch.full((2,), 512.0)}
    bounds |= {"mean": torch.full((2,), 256.0), "std": torch.full((2,), 100.0)}
    pixel = {"mean": 0.5, "std": 0.25, "min": 0.0, "max": 1.0}
    stats = {"observation.state": bounds, "action": bounds}
    stats["observation.image"] = {k: torch.full((3, 1, 1), v) for k, v in pixel.items()}
    get_policy_class(kind)(config).save_pretrained(tmp_path)
    for processor in make_processors(config, dataset_stats=stats):
        processor.save_pretrained(tmp_path)
    rows = rolled("harness.evaluation.adapters:lerobot", tmp_path, path=str(tmp_path))
    assert all(row["action_jerk"] > 0 for row in rows)


@pytest.mark.parametrize("mode", ["state", "image"])
def test_a_real_stable_baselines3_model(mode: Any, tmp_path: Path) -> None:
    package = pytest.importorskip("stable_baselines3")
    kind = "MlpPolicy" if mode == "state" else "MultiInputPolicy"
    model = package.PPO(kind, PushTEnv(obs_mode=mode), seed=0, n_steps=8, device="cpu")
    model.save(tmp_path / "model.zip")
    path = str(tmp_path / "model.zip")
    rolled("harness.evaluation.adapters:stable_baselines3", tmp_path, path=path)

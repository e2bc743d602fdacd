"""Policies of LeRobot, Stable-Baselines3 and Diffusion Policy in the form that --policy takes.

None of these packages is needed to import this module. docs/POLICIES.md shows each in use.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Observations = dict[str, Tensor]
Generators = Sequence[torch.Generator]


def pixels(image: Tensor) -> Tensor:
    """Return images (..., 96, 96, 3) uint8 as (..., 3, 96, 96) from 0 to 1."""
    return image.movedim(-1, -3).float() / 255


class LeRobot:
    """A LeRobot policy of one camera and the agent's position.

    network: a PreTrainedPolicy. before, after: its processors, which normalise the observations and
    bring actions back to px. It is called as in LeRobot's own evaluation: every step, for the whole
    block. An episode that has ended repeats its last observation, since the network's queues hold a
    row for each.
    """

    obs_mode = "image"

    def __init__(self, network: Any, before: Any, after: Any) -> None:
        self.network, self.before, self.after = network, before, after
        images = list(network.config.image_features)
        if len(images) != 1:
            raise ValueError(f"the policy must see one camera, it sees {len(images)}: {images}")
        self.image = images[0]
        self.reset()

    def reset(self) -> None:
        """Forget the queues before another block."""
        self.network.reset()
        self.episodes: dict[torch.Generator, int] = {}
        self.seen: Observations = {}

    def predict_action(self, obs: Observations, generators: Generators) -> Tensor:
        """Return the next action of each episode (b, 1, 2), px."""
        if not self.episodes:
            self.episodes = {generator: row for row, generator in enumerate(generators)}
            self.seen = {name: value[:, -1].clone() for name, value in obs.items()}
        rows = [self.episodes[generator] for generator in generators]
        for name, value in obs.items():
            self.seen[name][rows] = value[:, -1]
        batch = {
            self.image: pixels(self.seen["image"]),
            "observation.state": self.seen["agent_pos"],
        }
        action: Tensor = self.after(self.network.select_action(self.before(batch)))
        return action[rows, None]


def lerobot(path: str, device: str = "cpu") -> LeRobot:
    """Load a policy that `lerobot-train` has saved: its `pretrained_model` folder or hub name."""
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(path)
    config.device = device
    network = get_policy_class(config.type).from_pretrained(path, config=config)
    on_device = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(config, path, preprocessor_overrides=on_device)
    return LeRobot(network, before, after)


class StableBaselines3:
    """The network of a Stable-Baselines3 model that was trained on `PushTEnv`.

    The observations are those that its observation space has: a state, keypoints, or images.
    """

    def __init__(self, network: Any, *, deterministic: bool = True) -> None:
        self.network, self.deterministic = network, deterministic
        space = network.observation_space
        modes: dict[Any, str] = {(5,): "state", (20,): "keypoints"}
        self.alone = modes.get(space.shape)  # a space of several observations has no shape
        self.obs_mode = self.alone or "image"

    def predict_action(self, obs: Observations, generators: Generators) -> Tensor:
        """Return the action of each episode (b, 1, 2), px."""
        newest = {name: value[:, -1].numpy() for name, value in obs.items()}
        given = newest[self.alone] if self.alone else newest
        actions, _ = self.network.predict(given, deterministic=self.deterministic)
        return torch.from_numpy(actions)[:, None]


def stable_baselines3(
    path: str, algorithm: str = "PPO", deterministic: bool = True
) -> StableBaselines3:
    """Load a model's .zip file, trained by `algorithm` (PPO, SAC, TD3, ...)."""
    import stable_baselines3 as package

    model = getattr(package, algorithm).load(path, device="cpu")
    return StableBaselines3(model.policy, deterministic=deterministic)


class DiffusionPolicy:
    """A network of Diffusion Policy's code base, trained on its PushT keypoints or images.

    network: a BaseLowdimPolicy (obs_mode "keypoints") or BaseImagePolicy ("image").
    """

    def __init__(self, network: Any, obs_mode: str = "keypoints") -> None:
        self.network, self.obs_mode = network, obs_mode
        self.obs_horizon = int(network.n_obs_steps)

    def reset(self) -> None:
        """Forget what the network remembers of earlier episodes."""
        self.network.reset()

    def predict_action(self, obs: Observations, generators: Generators) -> Mapping[str, Tensor]:
        """Return the network's dictionary, whose "action" (b, H, 2) is in px."""
        if self.obs_mode == "keypoints":
            given = {"obs": obs["keypoints"]}
        else:
            given = {"image": pixels(obs["image"]), "agent_pos": obs["agent_pos"]}
        device = next(self.network.parameters()).device
        found: Mapping[str, Tensor] = self.network.predict_action(
            {name: value.to(device) for name, value in given.items()}
        )
        return found

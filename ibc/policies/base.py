"""The base of all policies: encoder and normaliser, saving and loading.

Legend: B batch, T obs horizon, H action horizon, A = 2, D = H * A, F features.
"""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from ibc.config.checks import check
from ibc.config.policy import PolicyConfig, config_from_plain
from ibc.data.normalizer import Normalizer
from ibc.data.plain_files import open_plain, read_plain
from ibc.encoders.pose import POINTS, PoseEncoder, build_encoder, pose_loss
from ibc.encoders.state import FRAME_SIZES
from ibc.layers import Memo

FORMAT = 1
MAX_CONFIG_BYTES, MAX_WEIGHT_BYTES = 2**20, 2**32
Batch = Mapping[str, Any]
# Where observations of a mode hold the agent's position.
AGENT = {
    "state": ("state", slice(0, 2)),
    "keypoints": ("keypoints", slice(18, 20)),
    "image": ("agent_pos", slice(0, 2)),
}


class Policy(nn.Module, ABC):
    """A policy that sees raw observations (px, rad, uint8) and gives actions in px.

    obs_mode and obs_horizon: what is observed, and in how many frames, the newest last.
    action_horizon: actions that a prediction holds, the first for the newest frame; executed: how
    many of them `predict_action` returns. uses_previous: whether it reads those executed before.
    """

    kind: ClassVar[str]

    def __init__(self, config: PolicyConfig, normalizer: Normalizer) -> None:
        super().__init__()
        self.config, self.normalizer = config, normalizer
        self.obs_mode, self.obs_horizon = config.obs_mode, config.obs_horizon
        self.action_horizon = config.action_horizon
        self.executed = config.execute or config.action_horizon
        self.uses_previous = config.kind == "ibc" and config.inference.warm_start > 0.0
        self.encoder = build_encoder(config.encoder, config.obs_mode, config.obs_horizon)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.normalizer.low.device

    @abstractmethod
    def predictions(
        self, obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """Actions (B, H, 2) in px by every readout; "policy" is the configured one."""

    @abstractmethod
    def compute_loss(
        self, batch: Batch, generator: torch.Generator, augment: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a batch of windows (raw observations and "action"), and metrics.

        `generator` draws negatives and noise; `augment` random crops and dropout, None for centre
        crops and no dropout.
        """

    @torch.no_grad()
    def predict_action(
        self,
        obs: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
        previous: Tensor | None = None,
    ) -> Tensor:
        """Actions (B, executed, 2) float32 in px for raw observations (B, T, ...).

        Row b draws from generators[b] only. previous: the actions (B, n, 2) px executed since the
        last prediction, NaN in rows where there was none; read only if `uses_previous`.
        ValueError for observations of other names or shapes.
        """
        prepared = self.prepare(obs)
        rows = len(self.newest_agent(prepared))
        check(len(generators) == rows, f"there must be {rows} generators", len(generators))
        return self.act(prepared, generators, previous)[:, : self.executed]

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Faster predictions, with the same bits, while the weights do not change.

        Features of frames and of a lattice of actions are cached for the next prediction.
        """
        cached: list[Any] = [module for module in self.modules() if hasattr(module, "memo")]
        for module in cached:
            module.memo = Memo()
        try:
            yield
        finally:
            for module in cached:
                module.memo = None

    def act(
        self,
        obs: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
        previous: Tensor | None = None,
    ) -> Tensor:
        """The configured one of `predictions`; a policy may compute it alone for less."""
        return self.predictions(obs, generators)["policy"]

    def prepare(self, obs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The observation checked and on the device; images stay uint8, the rest is float32."""
        names = ("image", "agent_pos") if self.obs_mode == "image" else (self.obs_mode,)
        prepared = {}
        for name in names:
            check(name in obs, f"observations must hold {', '.join(names)}", sorted(obs))
            value = torch.as_tensor(obs[name])
            if name == "image":
                check(value.dtype == torch.uint8, "images must be uint8", value.dtype)
                shape = (self.obs_horizon, *value.shape[2:4], 3)
            else:
                shape = (self.obs_horizon, FRAME_SIZES.get(name, 2))
                value = value.to(torch.float32)
            rule = f"observation {name} must have the shape (B, {', '.join(map(str, shape))})"
            check(tuple(value.shape[1:]) == shape, rule, tuple(value.shape))
            prepared[name] = value.to(self.device, non_blocking=True)
        return prepared

    def features(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The encoder's features (B, F) of prepared observations."""
        encoded: Tensor = self.encoder(dict(obs))
        return encoded

    def taught_features(
        self, batch: Batch, obs: dict[str, Tensor], augment: torch.Generator | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Features (B, F) to train on, a loss of their own to add, and its metrics.

        The loss has the value 0 and the gradient of `pose_loss`, so that losses with and without
        it can be compared.
        """
        encoder = self.encoder
        if not isinstance(encoder, PoseEncoder):
            return encoder(obs, augment), torch.zeros((), device=self.device), {}
        rule = "windows must hold the places of the block (block_points) to learn them from"
        check("block_points" in batch, rule, sorted(batch))
        wanted_BX = torch.as_tensor(batch["block_points"]).to(self.device, torch.float32)
        points_BX = encoder.estimate(obs, augment)
        own_loss = pose_loss(points_BX, wanted_BX)
        errors = (points_BX.detach() - wanted_BX).view(-1, POINTS // 2, 2).norm(dim=-1)
        metrics = {"pose_error_px": errors.mean()}
        return encoder.read(points_BX, obs), own_loss - own_loss.detach(), metrics

    def newest_agent(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The agent's position (B, 2) px in the newest frame."""
        name, columns = AGENT[self.obs_mode]
        return obs[name][:, -1, columns]

    def encode_targets(self, batch: Batch, obs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The demonstrated actions (B, D) clipped to the bounds, and the share that was clipped."""
        actions_BHA = torch.as_tensor(batch["action"]).to(self.device, torch.float32)
        shape, H = tuple(actions_BHA.shape), self.action_horizon
        check(shape[1:] == (H, 2), f"actions must have the shape (B, {H}, 2)", shape)
        raw_BD = self.normalizer.encode(actions_BHA, self.newest_agent(obs))
        inside_BD = raw_BD.clamp(-1.0, 1.0)
        return inside_BD, (inside_BD != raw_BD).any(1).float().mean()

    def save(self, directory: Path | str) -> None:
        """Write policy.json and model.safetensors (weights and normaliser) into the directory."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "policy": dataclasses.asdict(self.config)}, indent=2)
        (directory / "policy.json").write_text(text + "\n", encoding="utf-8")
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        # `save_file` would make a file that only its owner can read.
        (directory / "model.safetensors").write_bytes(tensor_bytes(tensors))

    @classmethod
    def load(cls, directory: Path | str) -> Self:
        """The policy of this class saved in the directory, on the CPU, with inference weights.

        ValueError names the file and the first entry that does not fit. Loading runs no code and
        allocates no more memory than the file's tensors.
        """
        config = read_config(Path(directory))
        rule = f'{directory} must hold a policy of kind "{cls.kind}"'
        check(config.kind == cls.kind, rule, config.kind)
        with torch.device("meta"):
            policy = cls(config, Normalizer.blank(config.action, config.action_horizon))
        load_weights(policy, Path(directory))
        return policy


def read_config(directory: Path) -> PolicyConfig:
    """The configuration in policy.json; ValueError where the file is not one of ours."""
    path = directory / "policy.json"
    try:
        with _readable(path):
            content = json.loads(read_plain(path, MAX_CONFIG_BYTES))
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got: {error}") from error
    check(isinstance(content, dict) and "policy" in content, f"{path} must hold a policy", content)
    given = content.get("format")
    check(given == FORMAT, f"{path} must have format {FORMAT}, the only one known here", given)
    return config_from_plain(PolicyConfig, content["policy"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an OSError of the body into a ValueError that names this file of a policy."""
    try:
        check(path.is_file(), "a policy's folder must hold policy.json and model.safetensors", path)
        yield
    except OSError as error:
        raise ValueError(f"{path} must be readable, got: {error.strerror or error}") from error


def load_weights(policy: Policy, directory: Path) -> None:
    """Fill a policy (built on the meta device) from model.safetensors, strictly.

    ValueError names the first tensor that is missing, unknown or of another shape.
    """
    path = directory / "model.safetensors"
    try:
        with _readable(path), open_plain(path, MAX_WEIGHT_BYTES):  # a regular file, no link
            found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got: {error}") from error
    expected = policy.state_dict()
    for name, value in expected.items():
        rule = f"{path} must hold {name} of shape {tuple(value.shape)}"
        check(name in found, rule, "no such tensor")
        check(found[name].shape == value.shape, rule, tuple(found[name].shape))
        check(found[name].dtype == value.dtype, f"{rule} as {value.dtype}", found[name].dtype)
    for name in found:
        check(name in expected, f"{path} must hold only the tensors of this policy", name)
    policy.load_state_dict(found, assign=True)

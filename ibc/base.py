"""What every policy shares: its configuration, its encoder and normaliser, saving and loading."""

from dataclasses import dataclass, field
from typing import Literal

from ibc.checks import check_choice, check_int
from ibc.encoders import EncoderConfig
from ibc.energy import EnergyConfig
from ibc.inference import InferenceConfig
from ibc.negatives import NegativesConfig
from ibc.normalize import ActionConfig

ObsMode = Literal["state", "keypoints", "image"]


@dataclass(frozen=True)
class PolicyConfig:
    """A whole policy.

    kind: "ibc" (energy model) or "mse" (explicit, on the same encoder; energy gives the size of
    its head, and negatives and inference are not read).
    obs_horizon: frames seen, the newest last. action_horizon: actions predicted, the first one
    belonging to the newest frame.
    """

    kind: Literal["ibc", "mse"] = "ibc"
    obs_mode: ObsMode = "keypoints"
    obs_horizon: int = 2
    action_horizon: int = 1
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    action: ActionConfig = field(default_factory=ActionConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)

    def __post_init__(self) -> None:
        check_choice("policy.kind", self.kind, ("ibc", "mse"))
        check_choice("policy.obs_mode", self.obs_mode, ("state", "keypoints", "image"))
        check_int("policy.obs_horizon", self.obs_horizon, 1, 16)
        check_int("policy.action_horizon", self.action_horizon, 1, 16)

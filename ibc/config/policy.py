"""The configuration of a whole policy, its rules, and reading it from plain values."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_type_hints

from ibc.config.action import ActionConfig
from ibc.config.checks import check, check_int, check_options
from ibc.config.encoder import EncoderConfig
from ibc.config.explicit import DiffusionConfig, MDNConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, LossConfig, NegativesConfig

ObsMode = Literal["state", "keypoints", "image"]
JOINT_DIMENSIONS = 5  # of a chunk that DFO can search at once
Config = TypeVar("Config")


@dataclass(frozen=True)
class PolicyConfig:
    """A whole policy.

    kind: "ibc" (energy model), or explicit on the same encoder: "mse" (regression) and "mdn"
    (mixture density), whose heads have the size that `energy` gives, and "diffusion"; negatives,
    loss and inference are not read for these.
    obs_horizon: frames seen, the newest last. action_horizon: actions predicted, the first one
    belonging to the newest frame. execute: how many of them are returned, and so executed before
    the next observation; None for all. members: networks whose energies are averaged, of "ibc".
    """

    kind: Literal["ibc", "mse", "mdn", "diffusion"] = "ibc"
    obs_mode: ObsMode = "keypoints"
    obs_horizon: int = 2
    action_horizon: int = 1
    execute: int | None = None
    members: int = 1
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    action: ActionConfig = field(default_factory=ActionConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    mdn: MDNConfig = field(default_factory=MDNConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    def __post_init__(self) -> None:
        check_options("policy", self)
        check_int("policy.obs_horizon", self.obs_horizon, 1, 16)
        check_int("policy.action_horizon", self.action_horizon, 1, 16)
        if self.execute is not None:
            check_int("policy.execute", self.execute, 1, 16)
            rule = f"policy.execute must not exceed policy.action_horizon {self.action_horizon}"
            check(self.execute <= self.action_horizon, rule, self.execute)
        check_int("policy.members", self.members, 1, 64)
        rule = 'policy.members above 1 needs policy.kind "ibc"'
        check(self.members == 1 or self.kind == "ibc", rule, self.kind)
        check(
            self.encoder.stacking != "channels" or self.obs_mode == "image",
            'encoder.stacking "channels" needs policy.obs_mode "image"',
            self.obs_mode,
        )
        rule = 'encoder.pose needs policy.obs_mode "image", and another encoder.stacking than'
        ok = not self.encoder.pose or (
            self.obs_mode == "image" and self.encoder.stacking != "channels"
        )
        check(ok, f'{rule} "channels"', [self.obs_mode, self.encoder.stacking])
        if self.kind == "ibc":
            self._check_search()
        check(
            self.negatives.sampler != "mixture"
            or not self.negatives.shared
            or self.action.frame == "agent",
            'negatives.shared around the agent needs action.frame "agent"',
            f'action.frame "{self.action.frame}"',
        )

    def _check_search(self) -> None:
        sampler, conditionals = self.inference.sampler, self.energy.conditionals
        check(
            sampler != "lattice" or self.action_horizon == 1,
            'inference.sampler "lattice" needs policy.action_horizon 1 (for chunks take '
            '"autoregressive" with energy.conditionals "steps", "proposal", "langevin" or "dfo")',
            self.action_horizon,
        )
        check(
            (sampler == "autoregressive") == (conditionals != "joint"),
            'inference.sampler "autoregressive" belongs to energy.conditionals "steps" or '
            '"dimensions", the other samplers to "joint"',
            f'sampler "{sampler}" with conditionals "{conditionals}"',
        )
        proposed = self.negatives.sampler == "proposal"
        check(
            proposed or sampler != "proposal",
            'inference.sampler "proposal" draws from that of negatives.sampler "proposal"',
            f'negatives.sampler "{self.negatives.sampler}"',
        )
        check(
            not proposed or conditionals == "joint",
            'negatives.sampler "proposal" proposes whole chunks: energy.conditionals must be '
            '"joint"',
            conditionals,
        )
        check(
            not proposed or self.loss.form == "info_nce",
            'negatives.sampler "proposal" needs loss.form "info_nce", which draws negatives',
            self.loss.form,
        )
        check(
            self.loss.form != "likelihood" or self.action_horizon == 1 or conditionals != "joint",
            'loss.form "likelihood" needs parts of at most two dimensions: policy.action_horizon 1 '
            'or energy.conditionals "steps"',
            f"policy.action_horizon {self.action_horizon}",
        )
        check(
            not self.inference.mirror or conditionals != "dimensions",
            'inference.mirror swaps x and y: energy.conditionals must be "joint" or "steps"',
            conditionals,
        )


def config_warnings(config: PolicyConfig) -> list[str]:
    """Warnings about allowed settings that are known to fail, each with an alternative."""
    D = 2 * config.action_horizon
    if config.kind != "ibc" or config.energy.conditionals != "joint" or D <= JOINT_DIMENSIONS:
        return []
    found = []
    if config.inference.sampler == "dfo":
        found.append(
            f"joint DFO over {D} action dimensions (policy.action_horizon "
            f"{config.action_horizon}) fails beyond about {JOINT_DIMENSIONS}, its samples are too "
            'few: take energy.conditionals "steps" with inference.sampler "autoregressive", or '
            'negatives.sampler and inference.sampler "proposal", or inference.sampler "langevin"'
        )
    if config.negatives.sampler == "uniform":
        found.append(
            f"uniform negatives over {D} action dimensions (policy.action_horizon "
            f"{config.action_horizon}) all lie far from the demonstrated chunk, so that the loss "
            'is soon 0 and teaches nothing near it: take energy.conditionals "steps", or '
            'negatives.sampler "proposal", "langevin" or "mixture"'
        )
    return found


def config_from_plain(cls: type[Config], plain: Any, where: str = "policy") -> Config:
    """A config dataclass from JSON's dicts and lists; unknown keys are refused."""
    assert dataclasses.is_dataclass(cls)
    hints = get_type_hints(cls)
    check(isinstance(plain, dict), f"{where} must be a table", plain)
    unknown = sorted(set(plain) - set(hints))
    check(not unknown, f"{where} has the keys {', '.join(hints)}", ", ".join(unknown))
    values = {}
    for name, value in plain.items():
        if dataclasses.is_dataclass(hints[name]):
            values[name] = config_from_plain(hints[name], value, f"{where}.{name}")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)

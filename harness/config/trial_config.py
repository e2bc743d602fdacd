"""TrialConfig, all settings that determine a trial, with its strict reading and its hash."""

import dataclasses
import difflib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.core.errors import UserError
from harness.core.seeds import SELECT_SEEDS
from ibc.config.checks import check_int
from ibc.config.policy import PolicyConfig
from ibc.config.training import SplitConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class SelectConfig:
    """How the `best` checkpoint is selected: by rollouts on environment seeds from 200000 on.

    seeds: episodes per rollout. every: optimiser steps between rollouts, which take place at ends
    of epochs; 0 for one rollout at the end of training.
    """

    seeds: int = 50
    every: int = 0

    def __post_init__(self) -> None:
        check_int("select.seeds", self.seeds, 1, len(SELECT_SEEDS))
        check_int("select.every", self.every, 0)

    @property
    def env_seeds(self) -> tuple[int, ...]:
        """The environment seeds themselves."""
        return tuple(SELECT_SEEDS[: self.seeds])


@dataclasses.dataclass(frozen=True)
class TrialConfig:
    """The settings of a trial, without its training seed and demonstrations."""

    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    select: SelectConfig = dataclasses.field(default_factory=SelectConfig)

    @functools.cached_property  # used for each training seed of a plan
    def _hash(self) -> str:
        return _hash(to_dict(self))

    @functools.cached_property
    def _training_hash(self) -> str:
        if self.select.every:
            return self._hash
        content = to_dict(self)
        for section, name in OF_INFERENCE:
            del content[section][name]
        return _hash(content)


# Settings that stored configs may lack, each with the value that these mean; sections after what
# they hold. A hash leaves them out at this value, so that stored trials keep their names.
ADDED: dict[str, Any] = {
    "policy.members": 1,
    "policy.encoder.patch": 1,
    "policy.encoder.pose": False,
    "policy.inference.mirror": False,
    "policy.loss.form": "info_nce",
    "policy.loss.lattice": 51,
    "policy.loss.soft_px": 0.0,
    "split.shares": [],
    "train.augment.mirror": 0.0,
    "train.augment.history_noise": 0.0,
    "train.augment.frame_dropout": 0.0,
    "train.augment": {},
}

# Settings that change how a trained policy acts, and nothing that training writes into its weights.
OF_INFERENCE = (("policy", "inference"), ("policy", "execute"), ("select", "seeds"))

BASELINE = "baseline"  # the arm of every question that changes nothing
DEFAULT_BUDGET = "standard"
_SCALARS = frozenset({bool, int, float, str, type(None)})


class ConfigError(UserError):
    """A setting that is not allowed; `key` is its dotted name ("" for the config as a whole)."""

    def __init__(self, key: str, rule: str) -> None:
        super().__init__(rule)
        self.key = key


@functools.cache  # most commands that read results validate no config
def _adapter() -> TypeAdapter[TrialConfig]:
    return TypeAdapter(TrialConfig)


def to_dict(config: TrialConfig) -> dict[str, Any]:
    """Return the config as nested plain values, with lists for tuples."""
    return _plain(config)  # type: ignore[no-any-return]


def from_dict(content: Mapping[str, Any]) -> TrialConfig:
    """Return the config of nested plain values; missing settings have their defaults.

    Strict: "3" is no number, 1.0 is no whole number, unknown keys are refused. ConfigError names
    the setting, the rule and what was given.
    """
    flatten(content)
    try:
        # JSON mode takes mappings for dataclasses and lists for tuples, and stays strict otherwise.
        return _adapter().validate_json(json.dumps(content), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":
            raise ConfigError(key, first["msg"].removeprefix("Value error, ")) from None
        rule = first["msg"].replace("Input should be", "must be").replace("Input", "the value")
        raise ConfigError(key, f"{key} {rule}, given {first['input']!r}") from None


def from_stored(content: Mapping[str, Any]) -> TrialConfig:
    """Return the config that a file holds, also one from before some settings were added."""
    flat = leaves(content)
    lacking = {key: v for key, v in ADDED.items() if key not in flat and not isinstance(v, dict)}
    return resolve(lacking, flat)


def leaves(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names: {"policy.energy.width": 256, ...}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat.update(leaves(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return overrides, nested or dotted, by their full dotted names.

    ConfigError for an unknown key, a value for a section, a mapping for a setting, and a setting
    that is given twice (nested and dotted).
    """
    flat: dict[str, Any] = {}
    for part, value in content.items():
        key = f"{prefix}{part}"
        if key in SECTIONS:
            if not isinstance(value, Mapping):
                raise ConfigError(key, f"{key} must be a mapping of settings, given {value!r}")
            new = flatten(value, f"{key}.")
        elif key in DEFAULTS:
            if isinstance(value, Mapping):
                raise ConfigError(key, f"{key} must be one value, given a mapping")
            new = {key: value}
        else:
            raise ConfigError(key, f"{key} must be a known setting{_did_you_mean(key)}")
        for name in new.keys() & flat.keys():
            raise ConfigError(name, f"{name} must be given once, given nested and dotted")
        flat.update(new)
    return flat


def resolve(*layers: Mapping[str, Any]) -> TrialConfig:
    """Return the defaults overridden by flat layers, later ones last."""
    content: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            *sections, name = key.split(".")
            section = content
            for part in sections:
                section = section.setdefault(part, {})
            section[name] = value
    return from_dict(content)


def config_hash(config: TrialConfig) -> str:
    """Return the hash of a config: 12 hex digits of the SHA-256 of its canonical JSON."""
    return config._hash


def training_hash(config: TrialConfig) -> str:
    """Return the hash of what training depends on.

    With one training seed, configs of one such hash train the same weights. A trial that selects
    among several steps needs the weights of each: it shares them with no other config.
    """
    return config._training_hash


def trial_id(hash_: str, train_seed: int) -> str:
    """Return the name of a trial's folder."""
    return f"{hash_}-s{train_seed}"


def parse_trial_id(id_: str) -> tuple[str, int | None]:
    """Return the config's hash and the training seed of a trial's id; no seed in another name."""
    hash_, _, seed = id_.rpartition("-s")
    return hash_, int(seed) if seed.isascii() and seed.isdecimal() else None


# What others call a setting or a key of the file. Spelling alone would suggest another one.
_ALSO_CALLED = {
    "lr": "learning_rate",
    "batch": "batch_size",
    "bs": "batch_size",
    "wd": "weight_decay",
    "ema": "ema_decay",
    "epochs": "steps",
    "hidden": "width",
    "layers": "depth",
    "seed": "train_seeds",
    "seeds": "train_seeds",
}
_CLOSE = 0.75  # by difflib's ratio: a letter left out, added or swapped in a word of five


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for a similar known word, "" without one."""
    known = list(known)
    word = word.casefold().replace("-", "_")
    if (meant := _ALSO_CALLED.get(word)) in known:
        return f"; did you mean {meant}?"
    near = difflib.get_close_matches(word, known, n=1, cutoff=_CLOSE)
    return f"; did you mean {near[0]}?" if near else ""


def _hash(content: dict[str, Any]) -> str:
    """Return the hash of settings, which are changed in place."""
    for key, before in ADDED.items():
        *sections, name = key.split(".")
        section = functools.reduce(lambda at, part: at.get(part, {}), sections, content)
        if section.get(name, ...) == before:
            del section[name]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _did_you_mean(key: str) -> str:
    """Return the settings that an unknown key may stand for, by its last part; else the rule."""
    section, _, word = key.casefold().replace("-", "_").rpartition(".")
    meant = _ALSO_CALLED.get(word, word)
    if meant == "train_seeds" and section != "select":
        return "; did you mean train_seeds, at the top of the file?"
    named: dict[str, list[str]] = {}
    for name in (*DEFAULTS, *sorted(SECTIONS)):
        named.setdefault(name.rpartition(".")[2], []).append(name)
    if meant not in named:
        meant = next(iter(difflib.get_close_matches(word, named, n=1, cutoff=_CLOSE)), "")
    near = named.get(meant, [])
    if section:  # the one that is most like the whole key, else those of the fewest sections
        near = difflib.get_close_matches(f"{section}.{meant}", near, n=1, cutoff=0.0)
    near = [name for name in near if name.count(".") == min(each.count(".") for each in near)]
    if not near:
        return f"; its section must be one of {', '.join(sorted(SECTIONS))}"
    *others, last = near
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _plain(value: Any) -> Any:
    # dataclasses.asdict copies deeply: seconds for a plan of ten thousand trials.
    names = getattr(value, "__dataclass_fields__", None)
    if names is not None:
        settings = [(name, getattr(value, name)) for name in names]
        return {name: v if type(v) in _SCALARS else _plain(v) for name, v in settings}
    return list(value) if isinstance(value, tuple) else value


DEFAULTS = leaves(to_dict(TrialConfig()))
SECTIONS = frozenset(
    key.rsplit(".", depth)[0] for key in DEFAULTS for depth in range(1, key.count(".") + 1)
)

"""Checked access to the parts of a search-space file; errors name the line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config import trial_config
from harness.config.strict_yaml import Document, Location
from harness.config.trial_config import ConfigError, TrialConfig
from harness.core.errors import UserError
from harness.core.text import one_line
from ibc.config import presets

MAX_LABEL = 80


@dataclass(frozen=True)
class Layer:
    """Overrides by dotted name, and their place in the file."""

    where: Location
    given: object
    flat: Mapping[str, Any]


@dataclass(frozen=True)
class SpaceFile:
    """A parsed file; all methods raise UserError with the file, the line and the rule."""

    document: Document

    def error(self, where: Location, rule: str) -> UserError:
        """Return the error that names the line of this place."""
        return self.document.error(where, rule)

    def mapping(self, where: Location, given: object) -> dict[str, Any]:
        """Return a mapping."""
        if not isinstance(given, dict):
            rule = f"{where[-1]} must be a mapping, given {_short(given)}"
            raise self.error(where, rule)
        return given

    def section(self, where: Location, given: object, known: Sequence[str]) -> dict[str, Any]:
        """Return a mapping with known keys only."""
        content = self.mapping(where, given)
        for key in content:
            if key not in known:
                near = trial_config.nearest(key, list(known)) or f"; known are {', '.join(known)}"
                raise self.error((*where, key), f"{_short(key)} must be a known key{near}")
        return content

    def labels(self, where: Location, given: object) -> dict[str, Any]:
        """Return a mapping whose keys are names to be shown: short and printable."""
        content = self.mapping(where, given)
        if not content:
            raise self.error(where, f"{where[-1]} must name at least one, given none")
        for name in content:
            if not 1 <= len(name) <= MAX_LABEL or one_line(name) != name:
                rule = (
                    f"a name must have 1 to {MAX_LABEL} printable characters, given {name[:90]!r}"
                )
                raise self.error((*where, name), rule)
        return content

    def text(self, where: Location, given: object) -> str:
        """Return a text on one line."""
        if not isinstance(given, str):
            raise self.error(where, f"{where[-1]} must be a text, given {_short(given)}")
        return one_line(given)

    def texts(self, where: Location, given: object) -> tuple[str, ...]:
        """Return a list of texts, of which one alone may stand without a list."""
        listed = given if isinstance(given, list) else [given]
        return tuple(self.text(where, each) for each in listed)

    def whole(self, where: Location, given: object, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        if type(given) is not int or not low <= given <= high:
            rule = f"{where[-1]} must be a whole number from {low} to {high}, given {_short(given)}"
            raise self.error(where, rule)
        return given

    def seeds(self, where: Location, given: object) -> tuple[int, ...]:
        """Return a list of different training seeds."""
        if (
            not isinstance(given, list)
            or not given
            or any(type(seed) is not int or not 0 <= seed < 2**32 for seed in given)
            or len(set(given)) < len(given)
        ):
            rule = "train_seeds must be a list of different whole numbers from 0 to 2^32 - 1"
            raise self.error(where, f"{rule}, given {_short(given)}")
        return tuple(given)

    def layer(self, where: Location, given: object) -> Layer:
        """Return a mapping of settings as overrides."""
        try:
            return Layer(where, given, trial_config.flatten(self.mapping(where, given)))
        except ConfigError as error:
            raise self.error(_locate(where, given, error.key), str(error)) from None

    def layers(self, where: Location, given: object) -> list[Layer]:
        """Return the layer of a preset, if one is named, and that of the other settings."""
        content = dict(self.mapping(where, given))
        if "preset" not in content:
            return [self.layer(where, content)]
        name = content.pop("preset")
        try:
            policy, train = presets.preset(name)
        except ValueError as error:
            raise self.error((*where, "preset"), str(error)) from None
        recipe = trial_config.to_dict(TrialConfig(policy=policy, train=train))
        flat = trial_config.leaves({section: recipe[section] for section in ("policy", "train")})
        return [Layer((*where, "preset"), name, flat), self.layer(where, content)]

    def resolve(self, layers: Sequence[Layer], what: str) -> TrialConfig:
        """Return the config of these layers; an error names the line that set the value."""
        try:
            return trial_config.resolve(*(layer.flat for layer in layers))
        except ConfigError as error:
            for layer in reversed(layers):
                if any(f"{key}.".startswith(f"{error.key}.") for key in layer.flat):
                    where = _locate(layer.where, layer.given, error.key)
                    raise self.error(where, f"{what}: {error}") from None
            raise self.error(layers[-1].where, f"{what}: {error}") from None


def _locate(where: Location, given: object, key: str) -> Location:
    """Return the deepest place under `where` of a dotted key or its section."""
    if isinstance(given, dict):
        for part, content in given.items():
            if part == key or part.startswith(f"{key}."):
                return (*where, part)
            if key.startswith(f"{part}."):
                return _locate((*where, part), content, key[len(part) + 1 :])
    return where


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:57]}..."

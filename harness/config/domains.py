"""The domains of a search: the values that each searched setting can take."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.trial_config import DEFAULTS, ConfigError, flatten, resolve


@dataclass(frozen=True)
class Axis:
    """The domain of one setting: a list of choices, or the numbers in [low, high].

    log: uniform in the logarithm. whole: whole numbers only.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def holds(self, value: object) -> bool:
        """Return whether the domain contains a value; among choices 1, 1.0 and True differ."""
        if self.choices:
            return any(type(value) is type(each) and value == each for each in self.choices)
        allowed = (int,) if self.whole else (int, float)
        return type(value) in allowed and self.low <= value <= self.high  # type: ignore[operator]

    @property
    def middle(self) -> Any:
        """A value in the middle of the domain."""
        if self.choices:
            return self.choices[len(self.choices) // 2]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(middle) if self.whole else middle


def read_axis(key: str, given: object, fixed: Mapping[str, Any]) -> Axis:
    """Read the domain of a setting; ConfigError names the rule that is broken."""
    flatten({key: DEFAULTS.get(key)})
    if key in fixed:
        raise ConfigError(key, f"{key} must be an axis or a fixed setting, given both")
    if isinstance(given, list):
        if not given or any(given[index] in given[:index] for index in range(len(given))):
            raise ConfigError(key, f"{key} must list different choices, given {given!r}")
        for value in given:
            resolve(fixed, {key: value})
        return Axis(choices=tuple(given))
    if not isinstance(given, dict) or not {"low", "high"} <= given.keys() <= {"low", "high", "log"}:
        rule = f"{key} must be a list of choices or a range {{low: , high: , log: }}"
        raise ConfigError(key, f"{rule}, given {given!r}")
    low, high, log = given["low"], given["high"], given.get("log", False)
    if type(low) not in (int, float) or type(high) not in (int, float) or type(log) is not bool:
        raise ConfigError(key, f"{key}: low and high must be numbers and log true or false")
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(key, f"{key}: low must be below high, given {low} and {high}")
    if log and low <= 0:
        raise ConfigError(key, f"{key}: low must be above 0 with log, given {low}")
    whole = type(DEFAULTS[key]) is int
    if whole and not (type(low) is type(high) is int):
        raise ConfigError(key, f"{key} takes whole numbers, given {low} and {high}")
    for value in (low, high):
        resolve(fixed, {key: value})
    return Axis(low=low, high=high, log=log, whole=whole)


def size(axes: Mapping[str, Axis]) -> float:
    """Return the number of points, infinity if a domain is a range."""
    return math.prod(len(axis.choices) or math.inf for axis in axes.values())


def described(parameters: Mapping[str, Any]) -> str:
    """Return a point in words: "learning rate 0.0012, width 256"."""
    last = Counter(key.rpartition(".")[2] for key in parameters)
    parts = []
    for key, value in parameters.items():
        *_, section, short = f".{key}".split(".")
        name = (short if last[short] == 1 else f"{section}.{short}").replace("_", " ")
        parts.append(f"{name} {f'{value:.3g}' if isinstance(value, float) else value}")
    return ", ".join(parts)


def product(axes: Mapping[str, Axis]) -> Iterator[dict[str, Any]]:
    """Yield all points of domains with choices, in the order of nested loops."""
    for values in itertools.product(*(axis.choices for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))

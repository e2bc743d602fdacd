"""A search instead of named arms: the axes of a search-space file and what they may hold."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config import DEFAULTS, ConfigError, TrialConfig, flatten, resolve
from harness.space_file import Layer, SpaceFile
from harness.strict_yaml import Location

MAX_TRIALS = 100_000
TRIALS = 20


@dataclass(frozen=True)
class Axis:
    """What one setting may be: one of some choices, or a number in [low, high].

    log: search the logarithm evenly. whole: whole numbers only.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Search:
    """A search by Optuna for the highest selection score.

    sampler: "tpe" or "random", seeded by `seed`. fixed: the settings that every trial shares.
    """

    text: str
    sampler: str
    seed: int
    trials: int
    track: str
    fixed: Mapping[str, Any]
    axes: Mapping[str, Axis]

    def config(self, parameters: Mapping[str, Any]) -> TrialConfig:
        """Return the config of one point of the search."""
        return resolve(self.fixed, parameters)


def read_search(
    file: SpaceFile, given: object, tracks: Mapping[str, list[Layer]], trials: int | None
) -> Search:
    """Read the `search` section; `trials` overrides its number of trials."""
    where: Location = ("search",)
    content = file.section(where, given, ("ask", "sampler", "seed", "trials", "track", "axes"))
    sampler = content.get("sampler", "tpe")
    if sampler not in ("tpe", "random"):
        raise file.error((*where, "sampler"), f"sampler must be tpe or random, given {sampler!r}")
    track = content.get("track", next(iter(tracks)))
    if track not in tracks or ("track" not in content and len(tracks) > 1):
        rule = f"a search must name its track, one of {', '.join(tracks)}"
        raise file.error((*where, "track"), rule)
    layers = tracks[track]
    fixed = {key: value for layer in layers for key, value in layer.flat.items()}
    file.resolve(layers, f"track {track}")
    axes_at = (*where, "axes")
    axes = {}
    for key, values in file.labels(axes_at, content.get("axes", {})).items():
        try:
            axes[key] = _axis(key, values, fixed)
        except ConfigError as error:
            raise file.error((*axes_at, key), str(error)) from None
    return Search(
        file.text((*where, "ask"), content.get("ask", "")),
        sampler,
        file.whole((*where, "seed"), content.get("seed", 0), 0, 2**32 - 1),
        trials or file.whole((*where, "trials"), content.get("trials", TRIALS), 1, MAX_TRIALS),
        track,
        fixed,
        axes,
    )


def _axis(key: str, given: object, fixed: Mapping[str, Any]) -> Axis:
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

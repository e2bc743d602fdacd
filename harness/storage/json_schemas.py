"""Schemas of the JSON files in a sweep's folder, which may be of unknown origin.

A file that is not whole JSON is torn. One of another schema was not written by this program: a
reader leaves it out, a sweep refuses it.
"""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from harness.config.domains import Axis
from harness.core import files
from harness.core.errors import UserError


@dataclass
class _Arm:
    arm: str
    config_hash: str


@dataclass
class _Question:
    question: str
    arms: list[_Arm]
    text: str = ""
    track: str | None = None
    baseline: str | None = None
    train_seeds: list[int] | None = None


@dataclass
class _Planned:
    config_hash: str
    train_seed: int
    question: str | None = None
    arm: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Dataset:
    path: str
    fingerprint: str
    kind: str = ""


@dataclass
class _Search:
    axes: dict[str, Axis] = field(default_factory=dict)
    text: str = ""
    sampler: str = ""
    trials: int = 0
    rungs: list[int] = field(default_factory=list)
    factor: int | None = None
    confirm: dict[str, Any] | None = None


@dataclass
class _UntilVerdict:
    delta: float
    trials: int


@dataclass
class _Plan:
    schema: int | None = None
    budget: str | None = None
    space: str | None = None
    written: float | None = None
    train_seeds: list[int] = field(default_factory=list)
    dataset: _Dataset | None = None
    provenance: dict[str, Any] | None = None
    code: dict[str, str] | None = None
    questions: list[_Question] = field(default_factory=list)
    baselines: dict[str, str] = field(default_factory=dict)
    trials: list[_Planned] = field(default_factory=list)
    search: _Search | None = None
    until_verdict: _UntilVerdict | None = None


@dataclass
class _Look:
    question: str
    arm: str
    seeds: int
    level: float
    verdict: str
    half_width: float


@dataclass
class _Round:
    trials: list[str]
    finished: list[str] | None
    looks: list[_Look]


@dataclass
class _Rounds:
    schema: Literal[1]
    rounds: list[_Round]


@dataclass
class _Finding:
    name: str
    evidence: str = ""
    mend: str = ""


@dataclass
class _Status:
    status: str = ""
    error: str | None = None
    step: int | None = None
    steps: int | None = None
    best_step: int | None = None
    select_score: float | None = None
    select_success_rate: float | None = None
    train_seconds: float | None = None
    samples_per_second: float | None = None
    select_seconds: float | None = None
    started: float | None = None
    updated: float | None = None
    finished: float | None = None
    attempts: int | None = None
    weights_of: str | None = None
    lacked_room: bool = False


@dataclass
class _Described:
    config_hash: str | None = None
    train_seed: int | None = None
    config: dict[str, Any] | None = None
    sweep: str | None = None
    question: str | None = None
    arm: str | None = None
    track: str | None = None
    step: int | None = None
    policy_hash: str | None = None
    select_score: float | None = None
    select_success_rate: float | None = None


# Each file's description and schema. Unknown keys are ignored.
_SCHEMAS: dict[str, tuple[str, Any]] = {
    "plan.json": ("a sweep's plan", _Plan),
    "rounds.json": ("the rounds of a sweep", _Rounds),
    "health.json": ("a list of what was found wrong", list[_Finding]),
    "status.json": ("a trial's state", _Status),
    "config.json": ("a trial's or a checkpoint's description", _Described),
}


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_SCHEMAS[name][1])


def read(path: Path) -> Any:
    """Return the content of a JSON file of a sweep's folder, checked by the file's name.

    TornFileError when it is not whole JSON, UserError for another schema.
    """
    content = files.read_json(path)
    try:
        _adapter(path.name).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        rule = first["msg"].replace("Input should be", "must be").replace("Input", "the value")
        given = "" if first["type"] == "missing" else f", given {str(first['input'])[:60]!r}"
        raise UserError(
            f"{path} must be {_SCHEMAS[path.name][0]} as this program writes it: "
            f"{f'{place} ' if place else ''}{rule}{given}"
        ) from None
    return content


def read_or(path: Path, default: Any = {}) -> Any:  # noqa: B006 - read only
    """Return what `read` does, `default` where the file is absent or cannot be used.

    See `files.read_or`.
    """
    return files.read_or(default, read, path)

"""What marks a data set as corrections: the attribute "corrections" of its store."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from harness.core import files
from harness.core.errors import UserError
from harness.core.text import one_line

ATTRIBUTE = "corrections"


@dataclasses.dataclass(frozen=True)
class Mark:
    """Where an episode begins: step `step` of the policy's failed episode from the reset `seed`.

    agent_velocity: that of the agent there, in px/s, which a state does not hold.
    """

    seed: int
    step: int
    agent_velocity: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Marks:
    """The policy that failed, the starts that it was tried on, and a mark for each episode.

    policy: its trial or checkpoint; policy_hash: of its weights; starts: the first, and how many.
    A store to which episodes were appended has further ones without a mark.
    """

    policy: str
    policy_hash: str
    starts: tuple[int, int]
    failures: int
    episodes: tuple[Mark, ...]

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the store."""
        return {ATTRIBUTE: dataclasses.asdict(self)}

    def __str__(self) -> str:
        steps = [mark.step for mark in self.episodes]
        first, tried = self.starts
        corrected = len({mark.seed for mark in self.episodes})
        return one_line(
            f"corrections: {len(steps)} episodes continue {corrected} of {self.failures} failures "
            f"of {self.policy} (weights {self.policy_hash}) on the {tried} starts from {first}, at "
            f"steps {min(steps)} to {max(steps)} (median {np.median(steps):.0f})"
        )


def read(store: str | Path, episodes: int) -> Marks | None:
    """Return the marks of a store with so many episodes, None for any that are no corrections.

    UserError for marks of another schema, and for more marks than episodes.
    """
    file = Path(store) / ".zattrs"
    attributes = files.read_json(file) if file.is_file() else None
    if not isinstance(attributes, dict) or ATTRIBUTE not in attributes:
        return None
    try:
        marks = TypeAdapter(Marks).validate_python(attributes[ATTRIBUTE])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (ATTRIBUTE, *first["loc"]))
        raise UserError(f"{file}: {place}: {first['msg']}, given {first['input']!r:.60}") from None
    if not 1 <= len(marks.episodes) <= episodes:
        raise UserError(
            f"{file}: {ATTRIBUTE}.episodes: there must be one mark for each of at most {episodes} "
            f"episodes, given {len(marks.episodes)}"
        )
    return marks

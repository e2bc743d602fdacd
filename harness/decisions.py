"""What a search by successive halving has decided, on the disk before it is carried out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness import files
from harness.axes import Axis
from harness.errors import UserError
from harness.points import Parameters, inside

SCHEMA = 1


class Step(NamedTuple):
    """A decision: this point goes on to this level, 0 for its first rung."""

    number: int
    level: int


@dataclass(frozen=True)
class Decisions:
    """halving.json in a sweep's folder: the points and, in order, what was decided of them.

    base: the hash of what all trials share; with another one the file is of another search. rungs
    in optimiser steps.
    """

    path: Path
    base: str
    factor: int
    rungs: tuple[int, ...]

    def write(self, points: Mapping[int, Parameters], steps: Sequence[Step]) -> None:
        """Write all decisions, atomically."""
        content = {
            "schema": SCHEMA,
            "base": self.base,
            "factor": self.factor,
            "rungs": list(self.rungs),
            "points": {str(number): point for number, point in points.items()},
            "decisions": [list(step) for step in steps],
        }
        files.write_json(content, self.path)

    def read(self, axes: Mapping[str, Axis]) -> tuple[dict[int, Parameters], list[Step]]:
        """Return the points of today's axes and what was decided of them, in order.

        Nothing when there is no file, or a torn one: the trials themselves show how far they were
        sent. UserError when the search was begun with other rungs.
        """
        try:
            content = files.read_json(self.path)
        except FileNotFoundError:
            return {}, []
        except files.TornFileError:
            files.quarantine(self.path)
            return {}, []
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise UserError(f"{self.path} must be of schema {SCHEMA}, as this program writes it")
        if content["base"] != self.base:
            return {}, []
        if (content["rungs"], content["factor"]) != (list(self.rungs), self.factor):
            raise UserError(
                f"a search keeps its rungs: {self.path.parent.name} was begun with rungs at "
                f"{content['rungs']} and factor {content['factor']}, given {list(self.rungs)} and "
                f"{self.factor}; give it another --name"
            )
        points = {
            int(number): point for number, point in content["points"].items() if inside(axes, point)
        }
        steps = [Step(*each) for each in content["decisions"]]
        return points, [step for step in steps if step.number in points]

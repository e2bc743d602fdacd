"""rounds.json: the rounds of a sweep that trains until its verdicts are reached.

A round's trials are written before they run, and its looks before the next round is written, in one
file: whatever is killed, the sweep goes on with the same decisions and looks at no data twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from harness.core import files
from harness.storage import json_schemas

FILE, SCHEMA = "rounds.json", 1
DECIDED = ("helps", "hurts", "no difference")


@dataclass(frozen=True)
class Look:
    """What was seen of one arm of a question, and the level of its interval.

    verdict: one of `analysis.verdicts`; with one of DECIDED it is the arm's last. half_width: of
    the interval. seeds: how many the arm had.
    """

    question: str
    arm: str
    seeds: int
    level: float
    verdict: str = ""
    half_width: float = 1.0

    @property
    def decided(self) -> bool:
        """Whether the verdict is reached."""
        return self.verdict in DECIDED


@dataclass(frozen=True)
class Round:
    """trials: the ids of those that it trains. finished: of those that it looked at for the first
    time, None before its looks.
    """

    trials: tuple[str, ...]
    finished: tuple[str, ...] | None = None
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Rounds:
    """All rounds of a sweep; only the last one may have no looks yet."""

    rounds: tuple[Round, ...] = ()

    @classmethod
    def read(cls, sweep: Path) -> Self:
        """Return the rounds of a sweep's folder; a file that cannot be used counts as none."""
        content = json_schemas.read_or(sweep / FILE)
        return cls(
            tuple(
                Round(
                    tuple(each["trials"]),
                    None if each["finished"] is None else tuple(each["finished"]),
                    tuple(Look(**look) for look in each["looks"]),
                )
                for each in content.get("rounds", [])
            )
        )

    def write(self, sweep: Path) -> None:
        """Write them into a sweep's folder, atomically."""
        content = {"schema": SCHEMA, "rounds": [asdict(each) for each in self.rounds]}
        files.write_json(content, sweep / FILE)

    def __iter__(self) -> Iterator[Round]:
        return iter(self.rounds)

    @property
    def ended(self) -> bool:
        """Whether the last round was looked at, if there is one."""
        return not self.rounds or self.rounds[-1].finished is not None

    @property
    def begun(self) -> dict[str, Round]:
        """All trials in order: their ids with the round that trains them."""
        return {id_: each for each in self.rounds for id_ in each.trials}

    @property
    def finished(self) -> frozenset[str]:
        """The ids of all trials that were looked at."""
        return frozenset(id_ for each in self.rounds for id_ in each.finished or ())

    def latest(self, question: str, arm: str) -> tuple[Look, frozenset[str]] | None:
        """Return the last look at an arm and the ids of the trials that it saw, None without."""
        for last in range(len(self.rounds), 0, -1):
            for look in self.rounds[last - 1].looks:
                if (look.question, look.arm) == (question, arm):
                    return look, Rounds(self.rounds[:last]).finished
        return None

    def looked(self, finished: Sequence[str], looks: Sequence[Look]) -> "Rounds":
        """Return these rounds with the looks of the last one, or of one without trials."""
        *before, last = (*self.rounds, Round(())) if self.ended else self.rounds
        return Rounds((*before, Round(last.trials, tuple(finished), tuple(looks))))

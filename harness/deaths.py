"""Workers that die: why it was, and whether their trial is handed out again."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from harness import memory
from harness.errors import one_line

Cause = Literal["death", "memory", "time"]

# How often a trial begins again after each: a machine's hiccup passes, a lack of memory perhaps,
# and what hangs once hangs again.
AGAIN: dict[Cause, int] = {"death": 2, "memory": 1, "time": 0}

_MAX_TEXT = 300
# Ray guesses for everybody alike from here on.
_GUESSES = "There are some potential root causes"


@dataclass(frozen=True)
class Death:
    """How a worker died: the cause, in words, and its threads' stacks where they are known."""

    cause: Cause
    text: str
    stacks: str = ""

    @property
    def error(self) -> Exception:
        """What the trial failed of."""
        sorts = {"death": RuntimeError, "memory": MemoryError, "time": TimeoutError}
        return sorts[self.cause](self.text)


def explain(said: str, *, killed_for_memory: bool) -> Death:
    """Return what Ray's words for a worker's end come to.

    killed_for_memory: the system has killed a process for memory at about that time.
    """
    detail = one_line(said.partition(_GUESSES)[0])[:_MAX_TEXT]
    more = "" if detail in ("", "None") else f": {detail}"
    if killed_for_memory:
        return Death("memory", f"the system killed its worker for memory{more}")
    if memory.ran_out(said):
        return Death("memory", f"Ray killed its worker for memory{more}")
    return Death("death", f"its worker process died{more}")


class Deaths:
    """Counts them by trial and cause."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Cause]] = Counter()

    def again(self, id_: str, cause: Cause) -> bool:
        """Count a death; return whether the trial is to be tried again."""
        self._counts[id_, cause] += 1
        return self._counts[id_, cause] <= AGAIN[cause]

    def of(self, id_: str) -> int:
        """Return how often a trial's workers died."""
        return sum(count for (its, _), count in self._counts.items() if its == id_)

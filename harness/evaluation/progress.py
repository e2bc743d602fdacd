"""The progress of an evaluation: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from harness.core.text import duration

_QUIET_SECONDS = 10.0


class EvalProgress:
    """Counts episodes on stderr; a context manager."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.total = total
        self.console = console or Console(file=sys.stderr)
        self.done = 0
        self.scores: list[float] = []
        self.note = ""  # shown instead of the mean score so far
        self.began = self.printed = time.monotonic()
        # The text wraps at words, and the bar leaves it room.
        text = TextColumn("{task.fields[text]}", markup=False, table_column=Column())
        bar = BarColumn(bar_width=min(24, self.console.width // 8))
        columns = bar, TextColumn("{task.completed}/{task.total}"), text
        plain = not self.console.is_interactive or total == 0
        self._bar = Progress(*columns, console=self.console, transient=True, disable=plain)
        self._task = self._bar.add_task("episodes", total=total, text="starting")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar; a second time does nothing."""
        self._bar.stop()

    def advance(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count a block's rows."""
        self.done += len(rows)
        self.scores += [row["score"] for row in rows if row.get("score") is not None]
        self._bar.update(self._task, completed=self.done, text=self.text())
        late = time.monotonic() - self.printed > _QUIET_SECONDS
        if self._bar.disable and (late or self.done == self.total):
            self.printed = time.monotonic()
            line = f"[{self.done}/{self.total}] {self.text()}"
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def tick(self) -> None:
        """Update the time left between blocks."""
        if self.done:
            self._bar.update(self._task, text=self.text())

    def text(self) -> str:
        """Return the score so far, the rate and the time left as text."""
        spent = time.monotonic() - self.began
        rate = self.done / spent if spent else 0.0
        score = f"score so far {sum(self.scores) / len(self.scores):.3f}, " if self.scores else ""
        score = f"{self.note}, " if self.note else score
        if self.done == self.total:
            return f"{score}{rate:.1f} episodes/s"
        # The rate includes the start, so the time left shrinks faster than time passes.
        left = duration((self.total - self.done) / rate) if rate else "unknown"
        bound = "at most" if self.note else "about"
        return f"{score}{rate:.1f} episodes/s, {bound} {left} left"

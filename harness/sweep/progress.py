"""The progress of a sweep: a bar and a live table on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from harness.core.text import duration
from harness.scheduling.jobs import Job
from harness.terminal.formatting import fitted, plain, say, table

HEARTBEAT_SECONDS = 30.0
_COLUMNS = (  # title, metric, format
    ("loss / chance", "train_loss_ratio", ".3f"),
    ("error px", "val_action_error_px", ".1f"),
    ("samples/s", "samples_per_second", ",.0f"),
)


Leader = tuple[float, str]  # a validation score and the trial's name


@dataclass
class _Running:
    label: str
    since: float
    metrics: dict[str, Any] = field(default_factory=dict)

    def step(self) -> str:
        if not self.metrics:
            return "starting"
        step, steps = self.metrics["step"], self.metrics["steps"]
        return "selecting" if step == steps else f"step {step:.0f}/{steps}"

    @property
    def share(self) -> float:
        """How much of its training is done, from 0 to 1."""
        return self.metrics["step"] / self.metrics["steps"] if self.metrics else 0.0


class Progress:
    """Shows running and finished trials; a context manager.

    total: the jobs of this run. slots: how many run in parallel. seconds: the estimate by trial id.
    leader: score and name of the best trial so far, of earlier runs.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        slots: int,
        seconds: Mapping[str, float],
        leader: Leader | None = None,
    ) -> None:
        self.console, self.total, self.slots, self.seconds = console, total, slots, seconds
        self.leader = leader
        self.ended: Counter[str] = Counter()  # finished, stopped, failed; a stopped one may go on
        self._running: dict[str, _Running] = {}
        self._expected = self._taken = 0.0  # of the trials that are over
        self._began = self._printed = time.monotonic()
        # A dumb terminal cannot move its cursor; a pipe or a file is not a terminal at all.
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console, get_renderable=self._render, refresh_per_second=2, transient=True
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, job: Job) -> None:
        """A trial starts or restarts."""
        self._running[job.id] = _Running(job.label, time.monotonic())

    def epoch(self, job: Job, metrics: Mapping[str, Any]) -> None:
        """A trial's epoch has ended."""
        running = self._running.setdefault(job.id, _Running(job.label, time.monotonic()))
        running.metrics.update(metrics)
        self.tick()

    def end(self, job: Job, status: Mapping[str, Any]) -> None:
        """A trial has ended."""
        running = self._running.pop(job.id, _Running(job.label, time.monotonic()))
        took = time.monotonic() - running.since
        good = status.get("status") in ("finished", "stopped")
        state = str(status["status"]) if good else "failed"
        self.ended[state] += 1
        if state == "finished" and job.id in self.seconds:
            self._expected += self.seconds[job.id]
            self._taken += took
        count = f"[{self.ended.total()}/{self.total}]"
        if good:
            self.leader = max(filter(None, (self.leader, (status["select_score"], job.label))))
            score = f"validation score {status['select_score']:.3f}"
            success = f"success {status['select_success_rate']:.0%}"
            at = f" at step {status['step']}" if state == "stopped" else ""
            line = Text(f"{count} {state:<9} {job.label}: {score}, {success}{at}, {duration(took)}")
        else:
            line = Text(f"{count} failed    {job.label}: {status.get('error')}", style="red")
        self._say(line)

    def note(self, text: str) -> None:
        """Print a line that belongs to no trial."""
        self._say(Text(text))

    def tick(self) -> None:
        """Print a line to a plain log when nothing was printed for a while."""
        now = time.monotonic()
        if self._live is None and self._running and now - self._printed > HEARTBEAT_SECONDS:
            running = "; ".join(f"{r.label}: {r.step()}" for r in self._running.values())
            best = f"; {self._best()}" if self.leader else ""
            self._say(Text(f"running   {running}; {self._left()}{best}"))

    def _say(self, line: Text) -> None:
        self._printed = time.monotonic()
        say(self.console, line)  # above a live table

    def _best(self) -> str:
        if self.leader is None:
            return ""
        score, name = self.leader
        return f"best so far {score:.3f}, {name}"

    def _left(self) -> str:
        """Return the time left in words, from the estimates and how good they were so far."""
        if not self.seconds:
            return "time left unknown"
        unknown = sum(self.seconds.values()) / len(self.seconds)
        pace = self._taken / self._expected if self._expected else 1.0
        now = time.monotonic()
        running = sum(
            max(0.0, self.seconds.get(id_, unknown) * pace - (now - r.since))
            for id_, r in self._running.items()
        )
        waiting = max(0, self.total - self.ended.total() - len(self._running)) * unknown * pace
        return f"about {duration((running + waiting) / self.slots)} left"

    def _render(self) -> Group:
        titles = [title for title, _, _ in _COLUMNS]
        made = table("running", "step", *titles, fold=("running",), right=titles)
        for running in self._running.values():
            metrics = running.metrics
            numbers = [f"{metrics[m]:{f}}" if m in metrics else "" for _, m, f in _COLUMNS]
            made.add_row(plain(running.label), running.step(), *numbers)
        fitted(made, self.console.width, titles[::-1])
        so_far = duration(time.monotonic() - self._began)
        head = (
            f"{self.ended['finished']} of {self.total} finished, {len(self._running)} running, "
            + (f"{self.ended['stopped']} stopped early, " if self.ended["stopped"] else "")
            + f"{self.ended['failed']} failed; {so_far} so far, {self._left()}"
        )
        done = self.ended.total() + sum(running.share for running in self._running.values())
        bar = ProgressBar(total=max(1, self.total), completed=min(done, self.total))
        best = [plain(self._best())] if self.leader else []
        return Group(Padding(bar, 0), Text(head, style="bold"), *best, made)

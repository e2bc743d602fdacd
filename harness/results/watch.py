"""`python -m harness.results watch`: a running sweep's progress, live or as lines of a log."""

import argparse
import sys
import time

import pyarrow as pa
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from harness.analysis.sweep_results import counted
from harness.core.errors import INTERRUPTED, OK
from harness.core.text import duration, one_line
from harness.results import output
from harness.results.output import console
from harness.results.watcher import State, Watcher
from harness.storage import lookup
from harness.terminal.formatting import WIDE, fitted, plain, sparkline, table

HEARTBEAT_SECONDS = 60.0
MAX_ERRORS = 3


def command(given: argparse.Namespace) -> int:
    """Show progress until the sweep ends; with --once, --json or --csv its state now."""
    watcher = Watcher(lookup.sweep_dir(given.results, given.sweep))
    state = watcher.look()
    if given.json or given.csv:
        output.put(_content(state), Text(""), as_json=given.json, as_csv=given.csv)
        return OK
    screen = console()
    try:
        if given.once or given.uri or not state.alive:  # an object store's lock cannot be read
            screen.print(shown(state, screen.width))
        elif sys.stdout.isatty() and not screen.is_dumb_terminal:
            _live(watcher, state, screen, given.every)
        else:
            _lines(watcher, state, screen, given.every)
    except KeyboardInterrupt:  # only the watching ends, not the sweep: print nothing
        return INTERRUPTED
    return OK


def _live(watcher: Watcher, state: State, screen: Console, every: float) -> None:
    with Live(shown(state, screen.width), console=screen, auto_refresh=False) as live:
        while state.alive:
            time.sleep(every)
            state = watcher.look()
            live.update(shown(state, screen.width), refresh=True)


def _lines(watcher: Watcher, state: State, screen: Console, every: float) -> None:
    """Print a line for every trial that begins or ends, and the sweep's state once a minute."""
    _say(screen, head(state))
    printed = time.monotonic()
    while state.alive:
        time.sleep(every)
        before, state = state, watcher.look()
        for line in _changes(before, state):
            _say(screen, line)
            printed = time.monotonic()
        if time.monotonic() - printed > HEARTBEAT_SECONDS:
            _say(screen, head(state))
            printed = time.monotonic()
    _say(screen, head(state))


def _say(screen: Console, line: Text) -> None:
    screen.print(line, soft_wrap=True)
    sys.stdout.flush()


def _changes(before: State, now: State) -> list[Text]:
    found, known = [], {trial.trial: trial.status for trial in before.trials}
    for trial in now.trials:
        if trial.status == known.get(trial.trial, "pending"):
            continue
        text = f"{trial.status:<9} {trial.name}"
        if trial.status in ("finished", "stopped") and trial.score is not None:
            text += f": validation score {trial.score:.3f}"
        elif trial.error is not None:
            text += f": {trial.error}"
        found.append(plain(text, "red" if trial.status == "failed" else ""))
    return found


def head(state: State) -> Text:
    """Return one line: the sweep's trials by status and the time left."""
    line = Text.assemble("sweep ", (one_line(state.sweep), "bold"))
    line.append(f": {counted(state.counts) or 'no trials yet'}")
    if not state.alive:
        line.append("; no process is running it")
    elif state.left is not None:
        line.append(f"; about {duration(state.left)} left")
    return line


def shown(state: State, width: int) -> RenderableType:
    """Return a sweep's state: its head, the running trials, the newest errors."""
    parts: list[RenderableType] = [head(state)]
    running, failed = state.having("running"), state.having("failed")
    if running:
        columns = ["running", "step", "loss", "", "samples/s", "left"]
        made = table(*columns, right=("step", "loss", "samples/s", "left"), fold=("running",))
        made.columns[0].min_width = 16
        for trial in running:
            made.add_row(
                plain(trial.name),
                f"{trial.step:,}" + (f"/{trial.steps:,}" if trial.steps else ""),
                f"{trial.loss[-1]:.3f}" if trial.loss else "",
                sparkline(trial.loss, 24 if width >= WIDE else 8),
                f"{trial.rate:,.0f}" if trial.rate else "",
                "" if trial.left is None else duration(trial.left),
            )
        fitted(made, width, ("samples/s", "", "loss", "left"))
        parts += [Text(""), made]
    if failed:
        newest = sorted(failed, key=lambda trial: -trial.updated)[:MAX_ERRORS]
        parts += [Text(""), Text("newest errors", "bold")]
        parts += [plain(f"{trial.name}: {trial.error}"[:400], "red") for trial in newest]
    return Group(*parts)


def _content(state: State) -> pa.Table:
    rows = []
    for trial in state.trials:
        running = trial.status == "running"
        rows.append(
            {
                "trial": trial.trial,
                "name": trial.name,
                "status": trial.status,
                "step": trial.step if running else None,
                "steps": trial.steps if running else None,
                "train_loss": trial.loss[-1] if trial.loss else None,
                "samples_per_second": trial.rate if running else None,
                "seconds_left": trial.left,
                "select_score": trial.score,
                "error": trial.error,
            }
        )
    return pa.Table.from_pylist(rows)

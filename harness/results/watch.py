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
from harness.terminal.formatting import WIDE, plain, sparkline, table

HEARTBEAT_SECONDS = 60.0


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
    found = []
    errors = dict(now.errors)
    for trial, status in now.statuses.items():
        if status == before.statuses.get(trial, "pending"):
            continue
        text = f"{status:<9} {now.names.get(trial, trial)}"
        if status in ("finished", "stopped") and trial in now.scores:
            text += f": validation score {now.scores[trial]:.3f}"
        elif trial in errors:
            text += f": {errors[trial]}"
        found.append(plain(text, "red" if status == "failed" else ""))
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
    if state.running:
        wide = width >= WIDE
        columns = ["running", "step", "loss", "", "samples/s", "left"]
        made = table(*columns, right=("step", "loss", "samples/s", "left"), fold=("running",))
        made.columns[0].min_width = 16
        for trial in state.running:
            steps = f"{trial.step:,}" + (f"/{trial.steps:,}" if trial.steps else "")
            made.add_row(
                plain(trial.name),
                steps,
                f"{trial.loss[-1]:.3f}" if trial.loss else "",
                sparkline(trial.loss, 24 if wide else 8),
                f"{trial.rate:,.0f}" if trial.rate else "",
                duration(trial.left) if trial.left is not None else "",
            )
        parts += [Text(""), made]
    if state.errors:
        parts += [Text(""), Text("newest errors", "bold")]
        parts += [
            plain(f"{state.names.get(failed, failed)}: {error}"[:400], "red")
            for failed, error in state.errors
        ]
    return Group(*parts)


def _content(state: State) -> pa.Table:
    running = {trial.trial: trial for trial in state.running}
    errors = dict(state.errors)
    rows = []
    for trial, status in state.statuses.items():
        now = running.get(trial)
        rows.append(
            {
                "trial": trial,
                "name": state.names.get(trial, trial),
                "status": status,
                "step": now.step if now else None,
                "steps": now.steps if now else None,
                "train_loss": now.loss[-1] if now and now.loss else None,
                "samples_per_second": now.rate if now else None,
                "seconds_left": now.left if now else None,
                "select_score": state.scores.get(trial),
                "error": errors.get(trial),
            }
        )
    return pa.Table.from_pylist(rows)

"""The plan of a sweep as a table: what is asked, what is done, how long the rest takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.config.plan import BASELINE, Plan
from harness.config.trial_config import config_hash
from harness.core.text import duration
from harness.scheduling.jobs import Job
from harness.sweep.pending import state_of
from harness.trials.estimate import Estimate

MAX_ROWS = 60


# What a trial's status is called before a run; one that runs was begun by a run that was killed.
STATES = {
    "finished": "finished",
    "failed": "failed",
    "stopped": "stopped early",
    "running": "begun",
    "lost": "to be repaired",
    "missing": "missing",
}


def print_plan(
    console: Console,
    plan: Plan,
    jobs: Sequence[Job],
    statuses: Mapping[str, Mapping[str, Any]],
    found: Estimate,
) -> None:
    """Print a row for each arm of each question, with its trials by state and their time."""
    for text in plan.warnings:
        console.print(f"warning: {text}", soft_wrap=True, markup=False, highlight=False)
    if plan.search is not None:
        _print_search(console, plan, statuses)
        return
    of_config: dict[str, list[Job]] = {}
    for job in jobs:
        of_config.setdefault(config_hash(job.config), []).append(job)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("question", "arm", "trials"):
        table.add_column(title, overflow="fold")
    table.add_column("each", justify="right", no_wrap=True)
    asked = {arm.config_hash for question in plan.questions for arm in question.arms}
    rows = [
        ("", f"{BASELINE} ({track})", hash_, hash_)
        for track, hash_ in plan.baselines.items()
        if hash_ not in asked
    ]
    for question in plan.questions:
        baseline = plan.baselines[question.track]
        rows += [(question.name, arm.name, arm.config_hash, baseline) for arm in question.arms]
    before = ""
    for question_name, arm_name, hash_, baseline in rows[:MAX_ROWS]:
        its = of_config[hash_]
        states = Counter(state_of(statuses[job.id]) for job in its)
        seconds = found.seconds.get(its[0].id)
        same = hash_ == baseline and arm_name != BASELINE and bool(question_name)
        table.add_row(
            escape(question_name) if question_name != before else "",
            escape(arm_name),
            f"= {BASELINE}" if same else _words(states),
            duration(seconds) if seconds is not None and not same else "",
        )
        before = question_name
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"... and {len(rows) - MAX_ROWS:,} more arms")


def print_counts(console: Console, folder: Path, states: Counter[str], to_run: int) -> None:
    """Print one line: how many trials stand where, and how many this run is to run."""
    words = _words({"finished": 0, "failed": 0, **states})
    line = f"{folder}: {words}, {to_run} to run"
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _words(states: Mapping[str, int]) -> str:
    """Return "2 finished, 1 failed", in the order of STATES."""
    known = {**STATES, **{state: state for state in states if state not in STATES}}
    return ", ".join(f"{states[s]} {word}" for s, word in known.items() if s in states)


def _print_search(console: Console, plan: Plan, statuses: Mapping[str, Mapping[str, Any]]) -> None:
    search = plan.search
    assert search is not None
    console.print(
        f"{escape(search.text)} {search.trials} points by {search.sampler}, "
        f"{len(plan.train_seeds)} training seed(s) each",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting")
    table.add_column("values")
    for key, axis in search.axes.items():
        values = f"{axis.low:g} to {axis.high:g}" + (" (log)" if axis.log else "")
        table.add_row(key, escape(", ".join(map(str, axis.choices)) if axis.choices else values))
    console.print(table)

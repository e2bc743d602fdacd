"""The plan of a sweep as a table: what is asked, what is done, how long the rest takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.estimate import Estimate
from harness.jobs import Job
from harness.progress import duration
from harness.space import Plan

MAX_ROWS = 60


def print_plan(
    console: Console,
    plan: Plan,
    jobs: Sequence[Job],
    statuses: Mapping[str, Mapping[str, Any]],
    found: Estimate,
) -> None:
    """Print a row for each arm of each question, with its trials by state and their time."""
    if plan.search is not None:
        _print_search(console, plan, statuses)
        return
    of_config: dict[str, list[Job]] = {}
    for job in jobs:
        of_config.setdefault(job.id.rpartition("-s")[0], []).append(job)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("question", "arm", "config"):
        table.add_column(title, overflow="fold")
    for title in ("seeds", "finished", "failed", "begun", "a trial"):
        table.add_column(title, justify="right")
    shown: set[str] = set()
    rows = [(q.name, arm.name, arm.config_hash) for q in plan.questions for arm in q.arms]
    asked = {hash_ for _, _, hash_ in rows}
    rows = [("", f"baseline ({t})", h) for t, h in plan.baselines.items() if h not in asked] + rows
    before = ""
    for question, arm, hash_ in rows[:MAX_ROWS]:
        its = of_config[hash_]
        states = Counter(statuses[job.id].get("status", "new") for job in its)
        seconds = found.seconds.get(its[0].id)
        again = " (as above)" if hash_ in shown else ""
        table.add_row(
            escape(question) if question != before else "",
            escape(arm) + again,
            hash_,
            str(len(its)),
            *(str(states[state] or "") for state in ("finished", "failed", "running")),
            duration(seconds) if seconds is not None else "",
        )
        shown.add(hash_)
        before = question
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"... and {len(rows) - MAX_ROWS:,} more arms")


def _print_search(console: Console, plan: Plan, statuses: Mapping[str, Mapping[str, Any]]) -> None:
    search = plan.search
    assert search is not None
    console.print(
        f"{escape(search.text)} {search.trials} points by {search.sampler}, "
        f"{len(plan.train_seeds)} training seed(s) each"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting")
    table.add_column("values")
    for key, axis in search.axes.items():
        values = f"{axis.low:g} to {axis.high:g}" + (" (log)" if axis.log else "")
        table.add_row(key, escape(", ".join(map(str, axis.choices)) if axis.choices else values))
    console.print(table)

"""The plan of a sweep as a table: questions, arms, the states of their trials, the time of one."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from harness.config.plan import BASELINE, Plan
from harness.config.search_spec import Search
from harness.core.text import duration
from harness.scheduling.jobs import Job
from harness.sweep.estimate import Estimate
from harness.sweep.pending import Work
from harness.terminal.formatting import fitted, plain, say, table

MAX_ROWS = 60

# The name of a status before a run: then, one that is "running" was interrupted.
STATES = {
    "finished": "finished",
    "failed": "failed",
    "stopped": "stopped early",
    "running": "interrupted",
    "lost": "to be repaired",
    "no room": "failed on a full disk",
    "pending": "to run",
}
SAMPLERS = {"tpe": "TPE", "random": "random", "grid": "grid"}


def print_plan(console: Console, plan: Plan, work: Work, found: Estimate) -> None:
    """Print a row for each arm of each question, with its trials by state and the time of one."""
    for text in plan.warnings:
        say(console, f"warning: {text}")
    if plan.search is not None:
        _print_search(console, plan.search, len(plan.train_seeds))
        return
    of_config: dict[str, list[Job]] = {}
    for job in work.asked or work.planned:
        of_config.setdefault(job.config_hash, []).append(job)
    titles = ("question", "arm", "trials", "time each")
    made = table(*titles, fold=titles[:-1], right=titles[-1:])
    asked = {arm.config_hash for question in plan.questions for arm in question.arms}
    planned = {trial.config_hash for trial in plan.trials}
    rows = [
        ("", f"{BASELINE} ({track})", hash_, hash_)
        for track, hash_ in plan.baselines.items()
        if hash_ in planned - asked
    ]
    for question in plan.questions:
        baseline = plan.baselines[question.track]
        rows += [(question.name, arm.name, arm.config_hash, baseline) for arm in question.arms]
    before = ""
    for question_name, arm_name, hash_, baseline in rows[:MAX_ROWS]:
        its = of_config[hash_]
        states = Counter(work.state(job) for job in its)
        seconds = found.seconds.get(its[0].id)
        same = hash_ == baseline and arm_name != BASELINE and bool(question_name)
        made.add_row(
            plain(question_name if question_name != before else ""),
            plain(arm_name),
            f"= {BASELINE}" if same else _words(states),
            duration(seconds) if seconds is not None and not same else "",
        )
        before = question_name
    console.print(fitted(made, console.width, ("time each", "trials")))
    if len(rows) > MAX_ROWS:
        console.print(f"... and {len(rows) - MAX_ROWS:,} more arms")


def print_counts(console: Console, folder: Path, work: Work) -> None:
    """Print one line: how many trials are in which state, and how many this run will run."""
    states = {state: count for state, count in work.states.items() if state != "pending"}
    line = f"{folder}: {_words({'finished': 0, 'failed': 0, **states})}, {work.total} to run"
    left = [job for job in work.typical if work.state(job) != "finished"]
    if shared := sum(job.weights_of is not None for job in left):
        line += f", {shared} of them with another's weights"
    say(console, line)


def _words(states: Mapping[str, int]) -> str:
    """Return "2 finished, 1 failed", in the order of STATES."""
    known = {**STATES, **{state: state for state in states if state not in STATES}}
    return ", ".join(f"{states[s]} {word}" for s, word in known.items() if s in states)


def _print_search(console: Console, search: Search, train_seeds: int) -> None:
    say(
        console,
        f"{search.text} {search.trials} trials, {SAMPLERS[search.sampler]} sampler, "
        f"{train_seeds} training seed(s) each",
    )
    made = table("setting", "values", fold=("setting", "values"))
    for key, axis in search.axes.items():
        values = f"{axis.low:g} to {axis.high:g}" + (" (log)" if axis.log else "")
        made.add_row(
            plain(key), plain(", ".join(map(str, axis.choices)) if axis.choices else values)
        )
    console.print(made)

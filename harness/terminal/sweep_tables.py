"""What is printed of sweeps, trials, episodes and comparisons: 80 columns wide or as many more."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.analysis import verdicts
from harness.analysis.sweep_results import Arm, Sweep, arm_name, of_row, paired
from harness.analysis.verdicts import Answer
from harness.core import seeds
from harness.core.text import duration, one_line
from harness.stats.intervals import Estimate
from harness.storage.lookup import Checkpoint
from harness.terminal.formatting import (
    BAR_HEAD,
    WIDE,
    bar,
    number,
    percent,
    plain,
    signed,
    sparkline,
    table,
)


def sweep_head(sweep: Sweep) -> RenderableType:
    """Return what a sweep is and how far it is."""
    found = states(sweep.counts()) or "no trials yet"
    line = Text.assemble(("sweep ", ""), (one_line(sweep.folder.name), "bold"), f": {found}")
    details = []
    data = sweep.plan.get("dataset")
    if isinstance(data, Mapping):
        details.append(f"demonstrations {data.get('kind')}: {data.get('path')}")
    if sweep.plan.get("budget"):
        details.append(f"budget {sweep.plan['budget']}")
    return Group(line, *([plain("; ".join(details), "dim")] if details else []))


def states(counts: Mapping[str, int]) -> str:
    """Return "3 finished, 1 pending": how many trials have each status."""
    known = ("finished", "running", "stopped", "failed", "pending")
    names = [*known, *sorted(set(counts) - set(known))]
    return ", ".join(f"{counts[name]} {one_line(name)}" for name in names if counts.get(name))


def arms(
    found: Sequence[Arm], width: int, answers: Mapping[str, Answer] | None = None
) -> RenderableType:
    """Return a table for each question, its first arm the one that the others are compared with.

    answers: by question; their sentences stand under the tables, and only what they call a help
    or a hurt is coloured: a table's own intervals stand each alone.
    """
    answers = answers or {}
    blocks: list[RenderableType] = []
    for name in dict.fromkeys(arm.question for arm in found):
        of_question = [arm for arm in found if arm.question == name]
        title = Text.assemble((one_line(name), "bold"), f"  {one_line(of_question[0].text)}")
        answer = answers.get(name)
        blocks += [Text(""), title, Padding(_question(of_question, answer, width), (0, 0, 0, 2))]
        if answer:
            blocks.append(Padding(plain(answer.summary), (0, 0, 0, 2)))
    return Group(*blocks)


def _question(found: Sequence[Arm], answer: Answer | None, width: int) -> Table:
    wide, first = width >= WIDE, found[0]
    # The starts that a verdict is on; each arm's other score stands beside it where there is room.
    reported = answer is not None and answer.reported
    shown = {verdict.arm for verdict in answer.verdicts if verdict.shown} if answer else set()
    main, other = ("report", "select") if reported else ("select", "report")
    against = f"against {one_line(first.arm)[:16]}"
    columns = ["arm", "done", f"{main} score", against, "health"]
    if all(arm.difference is None for arm in found):
        columns.remove(against)
    if wide:
        columns[3:3] = [BAR_HEAD]
        columns[-1:-1] = [f"{main} success"]
        if reported or any(not math.isnan(arm.report.value) for arm in found):
            columns[-1:-1] = [f"{other} score"]
    made = table(*columns, fold=("arm", "health"))
    made.columns[0].min_width = 12
    for arm in found:
        scores = {"select": arm.select, "report": arm.report}
        success = arm.report_success if reported else arm.success
        cells: dict[str, RenderableType] = {
            "arm": plain(arm.arm),
            "done": Text(f"{arm.group.finished}/{len(arm.group.trials)}"),
            "select score": _selected(arm),
            "report score": Text(number(arm.report)),
            BAR_HEAD: bar(scores[main]),
            against: _difference(arm, first, reported=reported, coloured=arm.arm in shown),
            f"{main} success": Text(percent(success)),
            "health": _health(arm),
        }
        made.add_row(*(cells[name] for name in columns))
    return made


def _selected(arm: Arm) -> Text:
    """Return an arm's select score; of a point that a search stopped, the best so far."""
    stopped = [trial for trial in arm.group.trials if trial["status"] == "stopped"]
    if math.isnan(arm.select.value) and len(stopped) == len(arm.group.trials) == 1:
        so_far = number(of_row(stopped[0], "select_score"))
        return Text(f"{so_far} at {stopped[0]['step']}" if so_far else "", style="dim")
    return Text(number(arm.select))


def _difference(arm: Arm, first: Arm, *, reported: bool, coloured: bool) -> Text:
    """Return the difference to a question's first arm; the same config under two names has none."""
    if arm is not first and arm.config_hash == first.config_hash:
        return plain(f"= {one_line(first.arm)[:16]}", "dim")
    difference = arm.difference
    if reported and difference is not None:
        difference = paired(arm.group, first.group, "score", seeds.REPORT_SEEDS)
    text = signed(difference)
    return text if coloured else Text(text.plain)


def _health(arm: Arm) -> Text:
    text = str(arm.as_row()["health"])
    failed = sum(trial["status"] == "failed" for trial in arm.group.trials)
    if failed:
        return Text(f"{failed} failed", style="red")
    return plain(text, "" if text == "ok" else "yellow")


def legend(sweep: Sweep) -> Text:
    """Return how the sweep's numbers are to be read."""
    episodes = max((trial["select_n"] or 0 for trial in sweep.trials), default=0)
    return Text(
        "mean [95 % interval] over training seeds and the selection's "
        f"{episodes} starts (report score: on starts that chose nothing); differences are paired "
        "by start, each interval for itself: `answers` has those that hold together, and the "
        "verdicts. A single training seed says nothing of others.",
        style="dim",
    )


def trials(
    rows: Sequence[Mapping[str, Any]],
    width: int,
    lines: Mapping[str, tuple[str, Sequence[float]]] | None = None,
) -> RenderableType:
    """Return a line for each trial, the best select score first."""
    lines = lines or {}
    kinds = {kind for kind, _ in lines.values()}
    by_step = "by step" if len(kinds) > 1 else next(iter(kinds), "by step")
    bars = 16 if width >= WIDE else 8
    if width >= WIDE:
        columns = ["trial", "arm", "status", "select score", "report score", "report success"]
        columns += [by_step, "step", "time", "samples/s", "tries", "health or error"]
    else:
        by_step = "by step"
        columns = ["trial", "arm", "select score", by_step, "report", "health or error"]
    right, fold = ("step", "time", "samples/s", "tries"), ("arm", "health or error")
    empty = {by_step} if not lines else set()
    if all(row["report_score"] is None for row in rows):
        empty |= {"report", "report score", "report success"}
    columns = [name for name in columns if name not in empty]
    made = table(*columns, right=right, fold=fold)
    made.columns[1].min_width = 16 if width >= WIDE else 10
    for row in rows:
        wide, score = width >= WIDE, number(of_row(row, "select_score"))
        report = of_row(row, "report_score")
        error = row["error"] if row["status"] == "failed" else None
        failed = "red" if row["status"] == "failed" else ""
        cells = {
            "trial": plain(row["trial"]),
            "arm": plain(arm_name(row) if wide else row["arm"] or ""),
            "status": plain(row["status"], failed),
            "select score": Text(score) if score or wide else plain(row["status"], failed),
            "report score": Text(number(report)),
            by_step: sparkline(lines.get(row["trial"], ("", ()))[1], bars),
            "report": Text("" if math.isnan(report.value) else f"{report.value:.3f}"),
            "report success": Text(percent(of_row(row, "report_success_rate"))),
            "step": Text("" if row["step"] is None else str(row["step"])),
            "time": Text("" if row["train_seconds"] is None else duration(row["train_seconds"])),
            "samples/s": Text(
                "" if row["samples_per_second"] is None else f"{row['samples_per_second']:,.0f}"
            ),
            "tries": Text(str(row["attempts"] or "")),
            "health or error": plain(error or row["health"] or "", failed),
        }
        made.add_row(*(cells[name] for name in columns))
    return made


def sweeps(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return a line for each sweep and each evaluation of a policy from elsewhere."""
    made = table("name", "trials", "state", "best select", "best report", fold=("state", "name"))
    for row in rows:
        made.add_row(
            plain(row["name"], "bold"),
            Text(str(row["trials"] or "")),
            plain(row["state"]),
            Text(number(row["select"])),
            Text(number(row["report"])),
        )
    return made


def best(found: Checkpoint, row: Mapping[str, Any]) -> RenderableType:
    """Return which trial is a sweep's best, and how to evaluate it."""
    made = table("", "")
    made.show_header = False
    for name, value in (
        ("trial", f"{row['trial']} of {row['sweep']}"),
        ("arm", arm_name(row)),
        ("chosen as", found.note),
        ("select score", number(of_row(row, "select_score"))),
        ("report score", number(of_row(row, "report_score")) or "not evaluated yet"),
        ("report success", percent(of_row(row, "report_success_rate"))),
        ("step", row["best_step"]),
        ("health", row["health"] or ""),
        ("checkpoint", found.path),
        ("evaluate it", f"python run_eval.py --ckpt best --sweep {row['sweep']} --seeds 500"),
    ):
        if value not in ("", None):
            made.add_row(Text(name), Text(one_line(value), overflow="fold"))
    made.columns[1].no_wrap = False
    made.columns[1].overflow = "fold"
    return made


def cut(shown: RenderableType, lines: int, total: int) -> RenderableType:
    """Return a table with a word on the lines that were left out."""
    if lines == total:
        return shown
    left = total - lines
    return Group(shown, Text(f"... and {left:,} more; --limit 0 shows all", style="dim"))


def sweep(of: Sweep, found: Sequence[Arm], width: int) -> RenderableType:
    """Return all that `show` prints: the head, a table for each question, how to read it."""
    answers = {answer.question: answer for answer in verdicts.answers(of, found)}
    parts = [sweep_head(of), arms(found, width, answers), *_importances(of), Text(""), legend(of)]
    best = of.best()
    if best is not None:
        score = number(of_row(best, "select_score"))
        text = f"best trial: {best['trial']} ({arm_name(best)}), select score {score}"
        evaluate = (
            f"evaluate it: python run_eval.py --ckpt best --sweep {of.folder.name} --seeds 500"
        )
        parts += [Text(""), plain(text), plain(evaluate)]
    return Group(*parts)


def _importances(of: Sweep) -> list[RenderableType]:
    """Return which settings of a search mattered; nothing for other sweeps."""
    search = of.plan.get("search")
    if not search or not search.get("axes") or "train_seeds" not in of.plan:
        return []
    from harness.analysis.importance import (
        importances,  # Optuna takes a second that others need not wait
    )

    found = importances(of.folder)
    made = table("setting", "share of importance", BAR_HEAD, fold=("setting",))
    for row in found.rows:
        share = Estimate(row.value, row.low, row.high, row.n)
        made.add_row(plain(row.key), percent(share), bar(share))
    head = [Text(""), Text("which settings mattered", "bold")]
    return [*head, *([made] if found.rows else []), plain(found.note, "dim")]


def print_sweep(console: Console, folder: Path) -> None:
    """Print a sweep as `python -m harness.results show` does."""
    read = Sweep(folder)
    console.print(sweep(read, read.arms(), console.width))

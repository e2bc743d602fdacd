"""Sweeps, arms and trials as terminal tables, for 80 columns or more."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.analysis import verdicts
from harness.analysis.importance import importances
from harness.analysis.sweep_results import Arm, Sweep, arm_name, counted, health, of_row
from harness.analysis.verdicts import Answer
from harness.core import command_lines
from harness.core.text import duration, one_line
from harness.storage.lookup import Checkpoint
from harness.terminal.forest import INDENT, forest
from harness.terminal.formatting import (
    BAR_HEAD,
    NARROW,
    WIDE,
    bar,
    facts,
    fitted,
    number,
    or_blank,
    percent,
    plain,
    sparkline,
    table,
    whole,
)


def sweep_head(sweep: Sweep) -> RenderableType:
    """Return a sweep's name, progress, data set and budget."""
    found = counted(sweep.counts()) or "no trials yet"
    line = Text.assemble("sweep ", (one_line(sweep.folder.name), "bold"), f": {found}")
    details = ["; ".join(sweep.settings()), sweep.omission]
    caveat = [plain(sweep.caveat, "yellow")] if sweep.caveat else []
    return Group(line, *(plain(text, "dim") for text in details if text), *caveat)


def arms(
    found: Sequence[Arm], width: int, answers: Mapping[str, Answer] | None = None
) -> RenderableType:
    """Return a table of scores for each question, its first arm the baseline.

    answers: by question; they decide which scores are shown where there is no room for both.
    """
    answers = answers or {}
    blocks: list[RenderableType] = []
    for name in dict.fromkeys(arm.question for arm in found):
        of_question = [arm for arm in found if arm.question == name]
        made = _question(of_question, answers.get(name), width)
        blocks += [Text(""), plain(name, "bold"), Padding(made, (0, 0, 0, INDENT))]
    return Group(*blocks)


def _question(found: Sequence[Arm], answer: Answer | None, width: int) -> Table:
    # The score that verdicts are on; where there is room, the other stands beside it.
    reported = answer is not None and answer.reported
    main, other = ("test", "validation") if reported else ("validation", "test")
    columns = ["arm", "done", f"{main} score"]
    if width >= NARROW:
        columns += [f"{main} success", "health"]
    if width >= WIDE:
        columns[3:3] = [BAR_HEAD]
        if reported or any(arm.tested for arm in found):
            columns[-1:-1] = [f"{other} score"]
    made = table(*columns, fold=("arm", "health"))
    made.columns[0].min_width = 12
    for arm in found:
        score, success = arm.scores(reported=reported)
        cells: dict[str, RenderableType] = {
            "arm": _name(arm, found[0], compared=answer is not None),
            "done": Text(f"{arm.group.finished}/{len(arm.group.trials)}"),
            "validation score": _validation(arm),
            "test score": Text(number(arm.report)),
            BAR_HEAD: bar(score),
            f"{main} success": Text(percent(success)),
            "health": _health(arm),
        }
        made.add_row(*(cells[name] for name in columns))
    drop = (f"{other} score", BAR_HEAD, "done", f"{main} success", "health")
    return fitted(made, width - INDENT, drop)


def _name(arm: Arm, first: Arm, *, compared: bool) -> Text:
    """Return an arm's name, with the baseline's where both have the same config."""
    if compared and arm is not first and arm.config_hash == first.config_hash:
        return plain(f"{arm.arm} (= {first.arm})")
    return plain(arm.title)


def _validation(arm: Arm) -> Text:
    """Return an arm's validation score; of a trial that was stopped early, its best so far."""
    stopped = [trial for trial in arm.group.trials if trial["status"] == "stopped"]
    if math.isnan(arm.select.value) and len(stopped) == len(arm.group.trials) == 1:
        so_far = number(of_row(stopped[0], "select_score"))
        return Text(f"{so_far} at {stopped[0]['step']}" if so_far else "", style="dim")
    return Text(number(arm.select))


def _health(arm: Arm) -> Text:
    text = health(arm.group.trials)
    failed = sum(trial["status"] == "failed" for trial in arm.group.trials)
    if failed:
        return Text(f"{failed} failed", style="red")
    return plain(text, "" if text == "ok" else "yellow")


def legend(sweep: Sweep) -> Text:
    """Return how to read the sweep's numbers."""
    episodes = max((trial["select_n"] or 0 for trial in sweep.trials), default=0)
    return Text(
        f"mean [95 % interval] over training seeds and {episodes} selection seeds (test score: "
        "held-out report seeds). Differences are paired by start, their intervals corrected for "
        "multiple comparisons. One training seed gives no interval over training seeds.",
        style="dim",
    )


def trials(
    rows: Sequence[Mapping[str, Any]],
    width: int,
    curves: Mapping[str, tuple[str, Sequence[float]]] | None = None,
    plan: Mapping[str, Any] | None = None,
) -> RenderableType:
    """Return a line for each trial; curves: by trial, see `learning_curves.by_trial`.

    plan: of the sweep, to show the parameters of a search's trials.
    """
    curves, wide = curves or {}, width >= WIDE
    kinds = {kind for kind, _ in curves.values()}
    by_step = kinds.pop() if wide and len(kinds) == 1 else "by step"
    if wide:
        columns = ["trial", "arm", "status", "validation score", "test score", "test success"]
        columns += [by_step, "step", "time", "samples/s", "attempts", "health or error"]
    else:
        columns = ["trial", "arm", "validation score", by_step, "test", "health or error"]
    empty = set() if curves else {by_step}
    if all(row["report_score"] is None for row in rows):
        empty |= {"test", "test score", "test success"}
    columns = [name for name in columns if name not in empty]
    right = ("step", "time", "samples/s", "attempts")
    made = table(*columns, right=right, fold=("arm", "health or error"))
    made.columns[1].min_width = 16 if wide else 10
    for row in rows:
        score, test = number(of_row(row, "select_score")), of_row(row, "report_score")
        failed = row["status"] == "failed"
        error = row["error"] if failed else None
        status = plain(row["status"], "red" if failed else "")
        cells = {
            "trial": plain(row["trial"]),
            "arm": plain(arm_name({**row, "question": row["question"] if wide else ""}, plan)),
            "status": status,
            "validation score": Text(score) if score or wide else status,
            "test score": Text(number(test)),
            by_step: sparkline(curves.get(row["trial"], ("", ()))[1], 16 if wide else 8),
            "test": Text(or_blank(row["report_score"], ".3f")),
            "test success": Text(percent(of_row(row, "report_success_rate"))),
            "step": Text(or_blank(row["step"], "d")),
            "time": Text("" if row["train_seconds"] is None else duration(row["train_seconds"])),
            "samples/s": Text(or_blank(row["samples_per_second"], ",.0f")),
            "attempts": Text(str(row["attempts"] or "")),
            "health or error": plain(error or row["health"] or "", "red" if failed else ""),
        }
        made.add_row(*(cells[name] for name in columns))
    drop = ("attempts", "samples/s", "time", "step", by_step, "test", "test success")
    return fitted(made, width, (*drop, "health or error", "test score", "status", "arm"))


def sweeps(rows: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    """Return a line for each sweep and each evaluation of a policy from elsewhere."""
    made = table("name", "trials", "state", "best validation", "its test", fold=("state", "name"))
    for row in rows:
        made.add_row(
            plain(row["name"], "bold"),
            Text(str(row["trials"] or "")),
            plain(row["state"]),
            Text(number(row["select"])),
            Text(number(row["report"])),
        )
    return fitted(made, width, ("trials", "its test", "best validation", "state"))


def best(
    found: Checkpoint, row: Mapping[str, Any], plan: Mapping[str, Any] | None = None
) -> RenderableType:
    """Return a sweep's best trial and how to evaluate it; plan: see `trials`."""
    shown = (
        ("trial", f"{row['trial']} of {row['sweep']}"),
        ("arm", arm_name(row, plan)),
        ("selected by", found.note),
        ("validation score", number(of_row(row, "select_score"))),
        ("test score", number(of_row(row, "report_score")) or "not evaluated yet"),
        ("test success", percent(of_row(row, "report_success_rate"))),
        ("step", row["best_step"]),
        ("health", row["health"] or ""),
    )
    assert found.trial_dir is not None
    made = facts((name, plain(value)) for name, value in shown if value not in ("", None))
    evaluate = command_lines.evaluate_best(found.trial_dir.parent.parent)
    lines = (f"checkpoint: {found.path}", f"evaluate it: {evaluate}")
    return Group(made, *map(whole, lines))


def cut(shown: RenderableType, lines: int, total: int) -> RenderableType:
    """Return a table with the number of lines that were left out."""
    if lines == total:
        return shown
    left = total - lines
    return Group(shown, Text(f"... and {left:,} more; --limit 0 shows all", style="dim"))


def sweep(of: Sweep, found: Sequence[Arm], width: int) -> RenderableType:
    """Return all that `show` prints: the head, the verdicts, each question's arms, the legend."""
    answers = {answer.question: answer for answer in verdicts.answers(of)}
    parts = [sweep_head(of), *([forest(list(answers.values()), width)] if answers else [])]
    parts += [arms(found, width, answers), *_importances(of, width), Text(""), legend(of)]
    best = of.best()
    if best is not None:
        score = number(of_row(best, "select_score"))
        name = arm_name(best, of.plan)
        text = f"best trial: {best['trial']} ({name}), validation score {score}"
        parts += [
            Text(""),
            plain(text),
            whole(f"evaluate it: {command_lines.evaluate_best(of.folder)}"),
        ]
    return Group(*parts)


def _importances(of: Sweep, width: int) -> list[RenderableType]:
    """Return the importance of a search's settings; nothing for other sweeps."""
    found, note = importances(of.folder)
    if not note:
        return []
    made = table("setting", "importance", BAR_HEAD, fold=("setting",))
    for key, share in found.items():
        made.add_row(plain(key), percent(share), bar(share))
    fitted(made, width, (BAR_HEAD,))
    head = [Text(""), Text("importance of settings", "bold")]
    return [*head, *([made] if found else []), plain(note, "dim")]


def print_sweep(console: Console, folder: Path, asked: Sequence[str] = ()) -> None:
    """Print a sweep as `python -m harness.results show` does; asked: see `Sweep`."""
    read = Sweep(folder, asked)
    console.print(sweep(read, read.arms(), console.width), crop=False)

"""The commands that read results: list, show, answers, trials, episodes, compare, best."""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group as RichGroup
from rich.console import RenderableType
from rich.text import Text

from harness.analysis import groups, learning_curves, sweep_results, verdicts
from harness.analysis.groups import Group
from harness.analysis.sweep_results import Sweep
from harness.config.recipe import recipe
from harness.config.trial_config import from_stored
from harness.core import files, paths
from harness.core.errors import OK, SOME_FAILED, UserError
from harness.core.seeds import OTHER_SEEDS, REPORT_SEEDS, SELECT_SEEDS
from harness.results.output import Answer, console, put
from harness.stats import comparisons, intervals
from harness.storage import json_schemas, lookup, tables
from harness.storage.trial_folder import TrialFolder
from harness.terminal import (
    answer_tables,
    answers_markdown,
    evaluation_tables,
    formatting,
    sweep_tables,
)

# What `--on` takes: the seeds and how the comparison names them.
STARTS = {
    "report": (REPORT_SEEDS, "test starts (report seeds, 300000 and above)"),
    "select": (SELECT_SEEDS, "validation starts (selection seeds, 200000 to 299999)"),
    "other": (OTHER_SEEDS, "other starts (the literature's or demonstrations', below 200000)"),
}


def sweeps(given: argparse.Namespace) -> Answer:
    """List every sweep and every evaluation of a policy from elsewhere."""
    asked, rows = given.question, list[dict[str, Any]]()
    listed: list[tuple[Callable[[Path], dict[str, Any] | None], Path]] = [
        (partial(_of_sweep, asked=asked), folder) for folder in lookup.sweeps(given.results)
    ]
    if not asked:  # which asks no question
        listed += [(_of_evaluation, folder) for folder in lookup.evaluations(given.results)]
    for describe, folder in listed:
        try:
            if (row := describe(folder)) is not None:
                rows.append(row)
        except (OSError, ValueError) as error:  # one broken sweep does not hide the others
            files.leave_out(folder, error)
    if not listed:
        without = lookup.none_readable(given.results)
        raise UserError(f"{given.results} holds no sweep and no evaluation yet{without}")
    lookup.leave_out_unreadable(given.results)
    if not rows and asked:
        raise UserError(f"no sweep in {given.results} asks the question {asked[0][:80]!r}")
    plain = [
        {
            **{name: row[name] for name in ("name", "trials", "state")},
            **groups.estimate_columns("best_select_score", row["select"]),
            **groups.estimate_columns("best_report_score", row["report"]),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(plain), sweep_tables.sweeps(rows, console().width)


def _of_sweep(folder: Path, asked: Sequence[str]) -> dict[str, Any] | None:
    """Return a sweep's line; None where it does not ask all of these questions."""
    trials = tables.read(folder, "trials").to_pylist()
    if asked or any(trial["status"] == "pending" for trial in trials):
        plan = json_schemas.read_or(folder / "plan.json")
        try:
            hidden = sweep_results.left_out(plan, trials, asked)
        except UserError:
            return None
        trials = sweep_results.of_shown(plan, trials, hidden)
    best = sweep_results.best(trials)
    select, report = (
        None if best is None or best[name] is None else sweep_results.of_row(best, name)
        for name in ("select_score", "report_score")
    )
    return {
        "name": folder.name,
        "trials": len(trials),
        "state": sweep_results.counted(Counter(trial["status"] for trial in trials)) or "empty",
        "select": select,
        "report": report,
    }


def _of_evaluation(folder: Path) -> dict[str, Any]:
    group = groups.evaluation_group(folder)
    return {
        "name": f"evaluations/{folder.name}",
        "trials": None,
        "state": f"{group.episodes.num_rows} episodes",
        "select": None,
        "report": intervals.share_interval(group.episodes["score"].to_numpy()),
    }


def show(given: argparse.Namespace) -> Answer:
    """Show a sweep's arms by question; for a search, which settings mattered; an evaluation."""
    if (folder := lookup.tables_dir(given.results, given.sweep)).parent.name == "evaluations":
        content = tables.read(folder, "episodes")
        return content, evaluation_tables.summary(content, console().width)
    sweep = Sweep(lookup.sweep_dir(given.results, given.sweep), given.question)
    arms = sweep.arms()
    rows = [arm.as_row() for arm in arms]
    return pa.Table.from_pylist(rows), sweep_tables.sweep(sweep, arms, console().width)


def answers(given: argparse.Namespace) -> Answer:
    """Show a sweep's answer to each of its questions; into a pipe as answers.md."""
    sweep = Sweep(lookup.sweep_dir(given.results, given.sweep), given.question)
    found = verdicts.answers(sweep)
    if not found and sweep.best_point:
        best = sweep.best() or {}
        rows = [arm.as_row() for arm in sweep.arms() if arm.config_hash == best["config_hash"]]
        return pa.Table.from_pylist(rows[:1]), RichGroup(Text(sweep.best_point))
    if not found:
        what = "has no finished trial" if sweep.plan.get("search") else "has no arms"
        raise UserError(f"{sweep.folder.name} {what}; see `show`")
    screen = console()
    shown: RenderableType = Text(answers_markdown.markdown(sweep, found))
    if screen.is_terminal:
        shown = answer_tables.answers(sweep, found, screen.width)
    return verdicts.table(found), shown


def trials(given: argparse.Namespace) -> Answer:
    """Show a sweep's trials, the highest validation score first."""
    folder = lookup.sweep_dir(given.results, given.sweep)
    content = sweep_results.rows_asked(folder, tables.read(folder, "trials"), given.question)
    content = content.sort_by([("select_score", "descending"), ("trial", "ascending")])
    rows = content.slice(0, given.limit or None).to_pylist()
    curves = learning_curves.by_trial(folder, rows)
    # Only a search's trials are called by a number, and have parameters to be shown.
    searched = any((row["arm"] or "").startswith("#") for row in rows)
    plan = json_schemas.read_or(folder / "plan.json") if searched else {}
    shown = sweep_tables.trials(rows, console().width, curves, plan)
    return content, sweep_tables.cut(shown, len(rows), content.num_rows)


def episodes(given: argparse.Namespace) -> Answer:
    """Show episodes, the lowest score first."""
    folder = lookup.tables_dir(given.results, given.sweep)
    content = tables.read(folder, "episodes")
    if given.trial is not None:
        config_hash, _, seed = given.trial.partition("-s")
        keep = pc.starts_with(content["config_hash"], config_hash)
        if seed:
            keep = pc.and_(keep, pc.equal(pc.cast(content["train_seed"], pa.string()), seed))
        content = content.filter(keep)
        if content.num_rows == 0:
            raise UserError(f"{folder.name} has no episodes of a trial {given.trial[:100]!r}")
    content = content.sort_by([("score", "ascending"), ("env_seed", "ascending")])
    part = content.slice(0, given.limit or None)
    shown = evaluation_tables.episodes(part, console().width)
    return content, sweep_tables.cut(shown, part.num_rows, content.num_rows)


def best(given: argparse.Namespace) -> Answer:
    """Show the trial that `--ckpt best` selects."""
    found = lookup.resolve("best", given.results, given.sweep)
    assert found.trial_dir is not None
    folder = found.trial_dir.parent.parent
    content = tables.read(folder, "trials")
    row = content.filter(pc.equal(content["trial"], found.trial_dir.name))
    plan = json_schemas.read_or(folder / "plan.json")
    shown = sweep_tables.best(found, row.to_pylist()[0], plan)
    if given.yaml is None:
        return row, shown
    path = _write_recipe(given.yaml.expanduser(), found, plan)
    line = formatting.whole(f"train it again: python run_sweep.py {path}")
    return row, RichGroup(shown, line)


def _write_recipe(path: Path, found: lookup.Checkpoint, plan: Mapping[str, Any]) -> Path:
    """Write a trial's config as a search space; UserError where the file exists."""
    assert found.trial_dir is not None
    config = from_stored(TrialFolder(found.trial_dir).read_config()["config"])
    data = (plan.get("dataset") or {}).get("path")
    text = recipe(
        f"{found.sweep}-best",
        config,
        data.split(paths.JOINED) if data else [],
        f"Trial {found.trial_dir.name} of sweep {found.sweep}: {found.note}",
    )
    if path.exists():
        raise UserError(f"--yaml writes a new file, and {path} exists already")
    try:
        with files.atomic(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UserError(f"{path} must be a file that can be written: {error.strerror}") from None
    return path


def compare(given: argparse.Namespace) -> Answer | int:
    """Compare two arms, trials or evaluations, paired by start.

    With --fail-if-worse it is a gate: it prints its answer and returns the exit code.
    """
    margin = given.fail_if_worse
    if margin is not None and not 0 <= margin < 1:
        raise UserError(f"--fail-if-worse takes a score from 0 to below 1, given {margin:g}")
    read: dict[Path, Sweep] = {}  # both sides may be of one sweep, which is read once
    a, b = (_group(given, name, read) for name in (given.a, given.b))
    delays = [set(pc.fill_null(group.episodes["execute_delay"], 0).to_pylist()) for group in (a, b)]
    if all(delays) and delays[0] != delays[1]:
        raise UserError(
            "a comparison needs the same --execute-delay, and that of "
            f"{given.a[:60]!r} is {min(delays[0])}, that of {given.b[:60]!r} {min(delays[1])}"
        )
    for which in [given.on] if given.on else STARTS:
        seeds, what = STARTS[which]
        found = [
            groups.compare(a, b, column, seeds) for column in ("score", "success", "final_coverage")
        ]
        if found[0].difference.n:
            grids = intervals.common(a.grid("score", seeds), b.grid("score", seeds))
            more = comparisons.pair(grids[0].values, grids[1].values)
            rows = [each.as_row(given.a, given.b, which) for each in found]
            rows[0] |= more.columns()
            shown = answer_tables.comparison(found, more, (a.name, b.name), what, console().width)
            if margin is None:
                return pa.Table.from_pylist(rows), shown
            passed = comparisons.not_worse(found[0].difference, margin)
            rows[0] |= {"margin": margin, "passed": passed is True}
            gate = answer_tables.gate(found[0], more, margin, passed)
            content = pa.Table.from_pylist(rows)
            put(content, RichGroup(shown, gate), as_json=given.json, as_csv=given.csv)
            return OK if passed else SOME_FAILED
    raise UserError(
        f"a comparison needs starts that both were evaluated on, and {given.a[:60]!r} and "
        f"{given.b[:60]!r} have none in common"
    )


def _group(given: argparse.Namespace, name: str, read: dict[Path, Sweep]) -> Group:
    if name.startswith("evaluations/"):
        return groups.evaluation_group(lookup.tables_dir(given.results, name))
    sweep, _, inner = name.rpartition(":")
    folder = lookup.sweep_dir(given.results, sweep or given.sweep)
    if folder not in read:
        read[folder] = Sweep(folder, starts=[seeds for seeds, _ in STARTS.values()])
    return read[folder].find_group(inner)

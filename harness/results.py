"""`python -m harness.results`: what sweeps and evaluations came to; reads files only."""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.text import Text

from harness import checkpoint, errors, report, stats, store, summary, verdicts
from harness.errors import OK, UserError
from harness.summary import Group, Sweep

_PIPE_WIDTH = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = _parser().parse_args(arguments)
    if not given.results.is_dir():
        raise UserError(f"--results must be the folder that sweeps lie in, given {given.results}")
    run = getattr(given, "run")  # noqa: B009 - argparse's namespace has no declared fields
    content, shown = run(given)
    _put_out(given, content, shown)
    return OK


def _parser() -> argparse.ArgumentParser:
    shared = errors.ArgumentParser(add_help=False)
    shared.add_argument("--results", type=Path, default=store.RESULTS, metavar="DIR")
    form = shared.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list of objects")
    form.add_argument("--csv", action="store_true", help="comma-separated values")
    parser = errors.ArgumentParser(prog="python -m harness.results", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=text, parents=[shared])
        made.set_defaults(run=run)
        return made

    command("list", _list, "every sweep and evaluation")
    show = command("show", _show, "a sweep's arms, by question")
    trials = command("trials", _trials, "a sweep's trials, the best first")
    episodes = command("episodes", _episodes, "episode rows, the worst first")
    episodes.add_argument("--trial", metavar="TRIAL", help="of this trial (or its start) only")
    for made in (trials, episodes):
        made.add_argument("--limit", type=int, default=50, metavar="N", help="lines (50; 0: all)")
    best = command("best", _best, "the trial that `--ckpt best` stands for")
    answers = command("answers", _answers, "what a sweep says to each of its questions, in words")
    for made in (show, trials, episodes, best, answers):
        made.add_argument("sweep", nargs="?", metavar="SWEEP", help="the newest when left out")
    compare = command("compare", _compare, "two arms, trials or evaluations, paired by start")
    compare.add_argument("a", help="an arm, a config's hash, a trial, or SWEEP:NAME of another")
    compare.add_argument("b", help="what it is compared with")
    compare.add_argument("--sweep", metavar="SWEEP", help="where a and b are (newest)")
    compare.add_argument("--on", choices=("report", "select"), help="which starts (report if any)")
    return parser


def _put_out(given: argparse.Namespace, content: pa.Table, shown: RenderableType) -> None:
    if given.json:
        print(json.dumps(_finite(content.to_pylist()), indent=1, ensure_ascii=True))
    elif given.csv:
        pyarrow.csv.write_csv(content, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        console().print(shown)


def console() -> Console:
    """Return a console as wide as the terminal; into a pipe 160 columns, so that nothing is cut."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(width=width, highlight=False, emoji=False)


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: plain(value) for name, value in row.items()} for row in rows]


Answer = tuple[pa.Table, RenderableType]


def _list(given: argparse.Namespace) -> Answer:
    rows = [_of_sweep(folder) for folder in checkpoint.sweeps(given.results)]
    rows += [_of_evaluation(folder) for folder in _evaluations(given.results)]
    if not rows:
        raise UserError(f"{given.results} holds no sweep and no evaluation yet")
    plain = [
        {
            **{name: row[name] for name in ("name", "trials", "state")},
            **summary.estimate_columns("best_select_score", row["select"]),
            **summary.estimate_columns("best_report_score", row["report"]),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(plain), report.sweeps(rows)


def _of_sweep(folder: Path) -> dict[str, Any]:
    trials = store.read(folder, "trials").to_pylist()
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial["status"]] = counts.get(trial["status"], 0) + 1
    state = ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "empty"
    best = {
        name: max(
            (report.of_row(trial, name) for trial in trials if trial[name] is not None),
            key=lambda estimate: estimate.value,
            default=None,
        )
        for name in ("select_score", "report_score")
    }
    return {
        "name": folder.name,
        "trials": len(trials),
        "state": state,
        "select": best["select_score"],
        "report": best["report_score"],
    }


def _of_evaluation(folder: Path) -> dict[str, Any]:
    group = summary.evaluation_group(folder)
    return {
        "name": f"evaluations/{folder.name}",
        "trials": None,
        "state": f"{group.episodes.num_rows} episodes",
        "select": None,
        "report": stats.mean_interval(group.episodes["score"].to_numpy()),
    }


def _evaluations(results: Path) -> list[Path]:
    return sorted(path.parent for path in (results / "evaluations").glob("*/episodes"))


def _sweep(given: argparse.Namespace) -> Sweep:
    return Sweep(checkpoint.sweep_dir(given.results, given.sweep))


def _show(given: argparse.Namespace) -> Answer:
    sweep = _sweep(given)
    arms = sweep.arms()
    rows = [arm.as_row() for arm in arms]
    return pa.Table.from_pylist(rows), report.sweep(sweep, arms, console().width)


def _answers(given: argparse.Namespace) -> Answer:
    sweep = _sweep(given)
    found = verdicts.answers(sweep)
    if not found:
        raise UserError(f"{sweep.folder.name} is a search and asks no question; see `show`")
    text = verdicts.markdown(sweep)
    shown = Markdown(text) if sys.stdout.isatty() else Text(text)
    return pa.Table.from_pylist(verdicts.rows(found)), shown


def _trials(given: argparse.Namespace) -> Answer:
    folder = checkpoint.sweep_dir(given.results, given.sweep)
    content = store.read(folder, "trials").sort_by(
        [("select_score", "descending"), ("trial", "ascending")]
    )
    rows = content.slice(0, given.limit or None).to_pylist()
    shown = report.trials(rows, console().width)
    return content, report.cut(shown, len(rows), content.num_rows)


def _episodes(given: argparse.Namespace) -> Answer:
    name = given.sweep or ""
    if name.startswith("evaluations/"):
        folder = _evaluation(given.results, name)
    else:
        folder = checkpoint.sweep_dir(given.results, given.sweep)
    content = store.read(folder, "episodes")
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
    shown = report.episodes(part, console().width)
    return content, report.cut(shown, part.num_rows, content.num_rows)


def _evaluation(results: Path, name: str) -> Path:
    folder = results / "evaluations" / store.check_name(name.partition("/")[2], "an evaluation")
    if not (folder / "episodes").is_dir():
        known = ", ".join(f"evaluations/{path.name}" for path in _evaluations(results)) or "none"
        raise UserError(f"there is no {name} under {results}; there are: {known}")
    return folder


def _best(given: argparse.Namespace) -> Answer:
    found = checkpoint.resolve("best", given.results, given.sweep)
    assert found.trial_dir is not None
    trials = store.read(found.trial_dir.parent.parent, "trials")
    row = trials.filter(pc.equal(trials["trial"], found.trial_dir.name))
    return row, report.best(found, row.to_pylist()[0])


def _compare(given: argparse.Namespace) -> Answer:
    groups = [_named(given, name) for name in (given.a, given.b)]
    choices = {
        "report": (store.REPORT_SEEDS, "report starts (seeds 300000 and above)"),
        "select": (store.SELECT_SEEDS, "selection starts (seeds 200000 to 299999)"),
    }
    for which in [given.on] if given.on else ["report", "select"]:
        seeds, what = choices[which]
        found = [
            summary.compare(groups[0], groups[1], column, seeds)
            for column in ("score", "success", "final_coverage")
        ]
        if found[0].difference.n:
            rows = [summary.comparison_row(c, given.a, given.b, which) for c in found]
            names = groups[0].name, groups[1].name
            return pa.Table.from_pylist(rows), report.comparison(found, names, what)
    raise UserError(
        f"a comparison needs starts that both were evaluated on, and {given.a[:60]!r} and "
        f"{given.b[:60]!r} have none in common"
    )


def _named(given: argparse.Namespace, name: str) -> Group:
    if name.startswith("evaluations/"):
        return summary.evaluation_group(_evaluation(given.results, name))
    sweep, _, inner = name.rpartition(":")
    folder = checkpoint.sweep_dir(given.results, sweep or given.sweep)
    return Sweep(folder).find_group(inner)


if __name__ == "__main__":
    sys.exit(errors.run(main))

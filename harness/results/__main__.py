"""`python -m harness.results`: what sweeps and evaluations came to; reads files only.

Each command returns its content as a table, for --json and --csv, and what a person is shown.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core import errors, paths
from harness.core.errors import OK, UserError
from harness.remote import trial_sync
from harness.results import output, read, sql, write
from harness.results import watch as results_watch
from harness.results.export import FORMATS, TABLES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = _parser().parse_args(arguments)
    given.uri = given.results if paths.is_uri(given.results) else None
    given.results = _folder(given)
    run = getattr(given, "run")  # noqa: B009 - argparse's namespace has no declared fields
    done = run(given)
    if isinstance(done, int):  # it has shown all itself
        return done
    output.put(*done, as_json=given.json, as_csv=given.csv)
    return OK


def _folder(given: argparse.Namespace) -> Path:
    if given.uri is not None:
        return trial_sync.readable_results(given.uri, getattr(given, "sweep", None))
    folder = Path(given.results).expanduser()
    if not folder.is_dir():
        raise UserError(f"--results must be the folder that sweeps lie in, given {folder}")
    return folder


def _parser() -> argparse.ArgumentParser:
    shared = errors.ArgumentParser(add_help=False)
    shared.add_argument("--results", default=str(paths.RESULTS), metavar="DIR|URI")
    form = shared.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list of objects")
    form.add_argument("--csv", action="store_true", help="comma-separated values")
    parser = errors.ArgumentParser(prog="python -m harness.results", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, *, sweep: bool = True) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=text, parents=[shared])
        made.set_defaults(run=run)
        if sweep:
            made.add_argument("sweep", nargs="?", metavar="SWEEP", help="the newest if left out")
        return made

    _reading(command)
    _deriving(command)
    _drawing(command)
    return parser


def _reading(command: Any) -> None:
    command("list", read.sweeps, "every sweep and evaluation", sweep=False)
    command("show", read.show, "a sweep's arms, by question")
    command("answers", read.answers, "what a sweep says to each of its questions, in words")
    command("best", read.best, "the trial that `--ckpt best` stands for")
    trials = command("trials", read.trials, "a sweep's trials, the best first")
    episodes = command("episodes", read.episodes, "episode rows, the worst first")
    episodes.add_argument("--trial", metavar="TRIAL", help="of this trial (or its start) only")
    query = command("sql", sql.command, "ask the tables in SQL", sweep=False)
    query.add_argument("query", nargs="?", help='"SELECT ..."; left out: the tables, their columns')
    query.add_argument("--sweep", metavar="SWEEP", help="the newest if left out")
    query.add_argument("--all", action="store_true", help="of all sweeps, told apart by `sweep`")
    for made in (trials, episodes, query):
        made.add_argument("--limit", type=_count, default=50, metavar="N", help="lines (0: all)")
    compare = command("compare", read.compare, "two arms, paired by start", sweep=False)
    compare.add_argument("a", help="an arm, a config's hash, a trial, or SWEEP:NAME of another")
    compare.add_argument("b", help="what it is compared with")
    compare.add_argument("--sweep", metavar="SWEEP", help="where a and b are (newest)")
    compare.add_argument("--on", choices=("report", "select"), help="which starts (report if any)")
    watch = command("watch", results_watch.command, "a running sweep, until it ends")
    watch.add_argument("--once", action="store_true", help="show how it stands and leave")
    watch.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="(2)")


def _deriving(command: Any) -> None:
    export = command("export", write.export, "files for other tools and for papers")
    export.add_argument("--to", type=Path, required=True, metavar="DIR|FILE")
    export.add_argument("--format", choices=FORMATS, default="csv", help="(csv)")
    export.add_argument("--table", choices=TABLES, help="only this one")
    export.add_argument("--force", action="store_true", help="replace files that are there")
    command("rebuild", write.rebuild, "derive the tables again from the trials' files")


def _drawing(command: Any) -> None:
    report = command("report", write.report, "a page of the sweep to look at and to mail")
    report.add_argument("--out", type=Path, metavar="FILE", help="(report.html of the sweep)")
    pictures = command("pictures", write.pictures, "animations of the best trials' episodes")
    pictures.add_argument("--trial", action="append", metavar="TRIAL", help="of these; repeatable")
    landscape = command(
        "landscape", write.landscape, "one state's energy for several trials", sweep=False
    )
    write.landscape_options(landscape)


def _count(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 12:
        raise UserError(f"a number of lines is 0 (all) or more, given {text[:60]!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise UserError(f"--every takes 0.1 to 3600 seconds, given {text[:60]!r}")
    return seconds


if __name__ == "__main__":
    sys.exit(errors.run(main))

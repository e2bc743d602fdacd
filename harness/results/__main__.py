"""`python -m harness.results`: read, plot and export sweeps and evaluations; runs no training.

Each command returns its content as a table, for --json and --csv, and what the terminal shows.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.core import command_lines, errors, files, imports, paths
from harness.core.errors import OK, SOME_FAILED, UserError
from harness.core.text import one_line
from harness.results import SUFFIXES, TABLES

# Each command imports what it needs and no more: most read two tables and need no torch.
COMMANDS = {
    "list": ("read:sweeps", "all sweeps and evaluations"),
    "show": ("read:show", "a sweep's arms by question"),
    "answers": ("read:answers", "a sweep's answer to each of its questions"),
    "best": ("read:best", "the trial that `--ckpt best` selects"),
    "trials": ("read:trials", "a sweep's trials, highest score first"),
    "episodes": ("read:episodes", "episodes, lowest score first"),
    "compare": ("read:compare", "two arms, paired by start"),
    "sql": ("sql:command", "query the tables with SQL"),
    "watch": ("watch:command", "a running sweep's progress, until it ends"),
    "export": ("write:export", "tables as CSV, Arrow, Parquet, LaTeX or Markdown"),
    "rebuild": ("write:rebuild", "derive the tables again from the trials' files"),
    "report": ("write:report", "the sweep's HTML report"),
    "pictures": ("draw:pictures", "animations of the best trials' episodes"),
    "study": ("study:command", "renew the answers and figures in README.md and docs/"),
    "ship": ("ship:command", "put an evaluated checkpoint into policies/, with its card"),
    "landscape": ("draw:landscape", "one state's energy for several checkpoints, as a PNG"),
    "energy": ("draw:energy", "an HTML page to move the T and see a keypoint policy's energy"),
}
# Others take SWEEP as an argument.
_SWEEP_OPTION = ("sql", "compare", "landscape", "study", "ship", "energy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = _parser().parse_args(arguments)
    given.uri = given.results if paths.is_uri(given.results) else None
    given.results = _folder(given)
    if arguments is None:  # a process of its own, in which nothing needs pandas
        imports.keep_pandas_out()
    with _left_out() as left_out:
        done = imports.load(f"harness.results.{COMMANDS[given.command][0]}")(given)
        if isinstance(done, int):  # it has printed everything itself
            return done or (SOME_FAILED if left_out else OK)
        imports.load("harness.results.output:put")(*done, as_json=given.json, as_csv=given.csv)
    return SOME_FAILED if left_out else OK


@contextmanager
def _left_out() -> Iterator[set[str]]:
    """Print what is left out or set aside in the body, once each; yields what is left out."""
    said: set[str] = set()
    left_out: set[str] = set()

    def say(record: logging.LogRecord) -> bool:
        text = one_line(record.getMessage())
        if text not in said:
            print(f"warning: {text}", file=sys.stderr)
        said.add(text)
        if text.startswith(files.LEFT_OUT):
            left_out.add(text)
        return True

    handler = logging.NullHandler()
    handler.handle = say  # type: ignore[method-assign]
    logger = logging.getLogger(files.LOG)
    logger.addHandler(handler)
    try:
        yield left_out
    finally:
        logger.removeHandler(handler)


def _folder(given: argparse.Namespace) -> Path:
    if given.uri is not None:
        readable = imports.load("harness.remote.mirror:readable_results")
        return Path(readable(given.uri, getattr(given, "sweep", None)))
    folder = Path(given.results).expanduser()
    if not folder.is_dir():
        raise UserError(f"--results must be the folder that sweeps lie in, given {folder}")
    return folder


def _parser() -> argparse.ArgumentParser:
    shared = errors.ArgumentParser(add_help=False)
    shared.add_argument("--results", default=str(paths.RESULTS), metavar="DIR|URI")
    form = shared.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects")
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    parser = errors.ArgumentParser(prog=command_lines.name("results"), description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    made: dict[str, argparse.ArgumentParser] = {}
    for name, (_, text) in COMMANDS.items():
        made[name] = commands.add_parser(name, help=text, parents=[shared])
        if name in _SWEEP_OPTION:
            made[name].add_argument("--sweep", metavar="SWEEP", help="(default: the newest)")
        elif name != "list":
            made[name].add_argument("sweep", nargs="?", metavar="SWEEP", help="(the newest)")
    for name in ("trials", "episodes", "sql"):
        made[name].add_argument(
            "--limit", type=_count, default=50, metavar="N", help="(50; 0: all)"
        )
    for name in ("list", "show", "answers", "trials", "export", "report"):
        made[name].add_argument(
            "--question",
            action="append",
            default=[],
            metavar="NAME",
            help="only this question; repeatable",
        )
    made["best"].add_argument(
        "--yaml",
        type=Path,
        metavar="FILE.yaml",
        help="write its settings as a search space for run_sweep.py",
    )
    made["episodes"].add_argument("--trial", metavar="TRIAL", help="only this trial (or prefix)")
    made["compare"].add_argument("a", help="an arm, a config hash, a trial, or SWEEP:NAME")
    made["compare"].add_argument("b", help="what to compare it with")
    made["compare"].add_argument(
        "--on",
        choices=("report", "select", "other"),
        help="test, validation or other seeds (the first that both were evaluated on)",
    )
    made["compare"].add_argument(
        "--fail-if-worse",
        type=float,
        metavar="X",
        help="exit code 1 unless it is shown that A's score is not lower than B's by more than X",
    )
    made["sql"].add_argument("query", nargs="?", help='"SELECT ..." (default: list the columns)')
    made["sql"].add_argument("--all", action="store_true", help="all sweeps, see column `sweep`")
    made["watch"].add_argument("--once", action="store_true", help="print the state and exit")
    made["watch"].add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="(2)")
    made["export"].add_argument("--to", type=Path, required=True, metavar="DIR|FILE")
    made["export"].add_argument("--format", choices=tuple(SUFFIXES), default="csv", help="(csv)")
    made["export"].add_argument("--table", choices=TABLES, help="only this table")
    made["export"].add_argument("--force", action="store_true", help="replace existing files")
    made["report"].add_argument(
        "--out", type=Path, metavar="FILE", help="(the sweep's report.html)"
    )
    made["pictures"].add_argument(
        "--trial", action="append", metavar="TRIAL", help="only these trials; repeatable"
    )
    made["pictures"].add_argument(
        "--failures",
        action="store_true",
        help="instead a contact sheet of a trial's failed episodes (the best trial's)",
    )
    made["study"].add_argument(
        "--check", action="store_true", help="write nothing, say what differs (exit code 1)"
    )
    made["study"].add_argument("--store", metavar="SWEEP", help="take in a sweep's tables first")
    shipped = made["ship"]
    shipped.add_argument("--ckpt", required=True, metavar="best|TRIAL|PATH", help="as of run_eval")
    shipped.add_argument("--name", required=True, metavar="NAME", help="pretrained:NAME")
    for name in ("study", "ship"):
        made[name].add_argument(
            "--root", type=Path, default=paths.ROOT, metavar="DIR", help="(the repository)"
        )
    drawn = made["landscape"]
    drawn.add_argument("which", nargs="*", metavar="TRIAL|PATH", help="checkpoints (the best)")
    drawn.add_argument("--seed", type=int, default=300_000, metavar="S", help="start (300000)")
    drawn.add_argument("--step", type=int, default=0, metavar="K", help="demonstrator's step (0)")
    drawn.add_argument("--out", type=Path, metavar="FILE.png", help="(in the sweep's pictures/)")
    made["energy"].add_argument(
        "--ckpt", default="best", metavar="best|TRIAL|PATH", help="the policy (the best)"
    )
    made["energy"].add_argument(
        "--out", type=Path, default=Path("energy.html"), metavar="FILE.html", help="(energy.html)"
    )
    return parser


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


def command() -> int:
    """Run as a console command; return its exit code."""
    return errors.run(main)


if __name__ == "__main__":
    sys.exit(command())

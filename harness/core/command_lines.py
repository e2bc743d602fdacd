"""Command lines to be printed: each runs as it stands, in the working directory of now."""

import shlex
from pathlib import Path
from typing import Literal

from harness.core import paths

Program = Literal["sweep", "eval", "results", "demos"]
_SCRIPTS: dict[Program, str] = {"sweep": "run_sweep.py", "eval": "run_eval.py"}


def name(program: Program) -> str:
    """Return the name of a program: of a file, of a module, or of an installed command."""
    if paths.INSTALLED:
        return f"ibc-{program}"
    return _SCRIPTS.get(program, f"python -m harness.{program}")


def line(program: Program, *words: object, results: Path | None = None) -> str:
    """Return the line that starts a program with these words.

    results: the folder of all sweeps; it is left out where it is the default.
    """
    given = list(map(str, words))
    if results is not None and results.absolute() != paths.RESULTS.absolute():
        note = uri_note(results)
        given += ["--results", note.read_text().strip() if note.is_file() else str(results)]
    begin = name(program)
    if not paths.INSTALLED and program in _SCRIPTS:
        script = paths.ROOT / begin
        here = Path().absolute() == paths.ROOT
        begin = f"python {begin if here else shlex.quote(str(script))}"
    return f"{begin} {shlex.join(given)}".rstrip()


def evaluate_best(sweep: Path) -> str:
    """Return the line that evaluates the best trial of a sweep's folder on the test seeds."""
    words = ("--ckpt", "best", "--sweep", sweep.name, "--seeds", 500)
    return line("eval", *words, results=sweep.parent)


def uri_note(mirror: Path) -> Path:
    """Return the file beside the local copy of an object store's results that holds its URI."""
    return mirror.with_name(f"{mirror.name}.uri")

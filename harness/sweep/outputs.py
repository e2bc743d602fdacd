"""What a sweep leaves for its readers: tables, answers, pictures and a page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.core.errors import lacked_room
from harness.core.imports import load
from harness.core.text import one_line
from harness.storage import tables
from harness.terminal import answers_markdown, formatting, sweep_tables

PICTURE_SECONDS = 60.0  # after so many, no pictures of a further trial are begun


def write(
    folder: Path, console: Console, asked: Sequence[str] = (), *, draw: bool = True
) -> list[Path]:
    """Write tables, answers, pictures and page, print the tables, and return what can be opened.

    asked: the questions whose tables are printed, all that have begun without any. draw: make
    missing pictures, which needs the weights. An error in a picture or the page is printed in one
    line; that of a full disk is raised.
    """

    def say(text: str) -> None:
        formatting.say(console, one_line(text))

    def attempt(what: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except Exception as error:
            if lacked_room(error):
                raise
            say(f"no {what}: {type(error).__name__}: {error}")
            return None

    tables.rebuild(folder)
    answers = answers_markdown.write(folder)
    sweep_tables.print_sweep(console, folder, asked)
    if draw and "finished" in tables.read(folder, "trials")["status"].to_pylist():
        limits = {"seconds": PICTURE_SECONDS, "say": say}
        attempt("pictures", lambda: load("harness.page.gallery:make")(folder, **limits))
    page = attempt("page", lambda: load("harness.page.document:write")(folder))
    return [path for path in (page, answers) if path is not None]

"""What a sweep leaves to be read: tables, answers, pictures and a page."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from harness.core.text import one_line
from harness.storage import tables
from harness.terminal import answers_markdown, sweep_tables

PICTURE_SECONDS = 60.0  # no further trial's pictures are begun after so many


def write(folder: Path, console: Console, *, draw: bool = True) -> list[Path]:
    """Write them, print the tables, and return the files that a person may open.

    draw: make the pictures that are missing, where the weights are at hand. Tables and answers are
    promised; what goes wrong with a picture or the page is said in one line.
    """
    tables.rebuild(folder)
    answers = answers_markdown.write(folder)
    sweep_tables.print_sweep(console, folder)
    if draw:
        _try(lambda: _draw(folder, console), "pictures", console)
    page = _try(lambda: _page(folder), "page", console)
    return [path for path in (page, answers) if path is not None]


def print_paths(console: Console, paths: list[Path]) -> None:
    """Say where they are."""
    for path in paths:
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)


def _draw(folder: Path, console: Console) -> None:
    """Draw the best trial of each kind, a few at most."""
    from harness.page import gallery  # what films need is imported only where some are made

    trials = tables.read(folder, "trials")["status"].to_pylist()
    if "finished" in trials:
        gallery.make(folder, seconds=PICTURE_SECONDS, say=lambda text: _say(console, text))


def _page(folder: Path) -> Path:
    from harness.page import document

    return document.write(folder)


def _try(make: Callable[[], Path | None], what: str, console: Console) -> Path | None:
    try:
        return make()
    except Exception as error:
        _say(console, f"no {what}: {type(error).__name__}: {error}")
        return None


def _say(console: Console, text: str) -> None:
    console.print(one_line(text), soft_wrap=True, markup=False, highlight=False)

"""What a sweep leaves to be read: tables, answers, pictures and a page."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from harness import report, store, verdicts
from harness.errors import one_line

PICTURE_SECONDS = 60.0  # no further trial's pictures are begun after so many


def write(folder: Path, console: Console, *, draw: bool = True) -> list[Path]:
    """Write them, print the tables, and return the files that a person may open.

    draw: make the pictures that are missing, where the weights are at hand. Tables and answers are
    promised; what goes wrong with a picture or the page is said in one line.
    """
    store.rebuild(folder)
    answers = verdicts.write(folder)
    report.print_sweep(console, folder)
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
    from harness import pictures  # what films need is imported only where some are made

    trials = store.read(folder, "trials")["status"].to_pylist()
    if "finished" in trials:
        pictures.make(folder, seconds=PICTURE_SECONDS, say=lambda text: _say(console, text))


def _page(folder: Path) -> Path:
    from harness import page

    return page.write(folder)


def _try(make: Callable[[], Path | None], what: str, console: Console) -> Path | None:
    try:
        return make()
    except Exception as error:
        _say(console, f"no {what}: {type(error).__name__}: {error}")
        return None


def _say(console: Console, text: str) -> None:
    console.print(one_line(text), soft_wrap=True, markup=False, highlight=False)

"""What a sweep leaves to be read, on a results folder without any Ray."""

import errno
import io
import os

from rich.console import Console

from harness.core import errors
from harness.page import document, gallery
from harness.sweep import outputs


def written(folder, **options):
    console = Console(file=io.StringIO(), width=100)
    paths = outputs.write(folder, console, **options)
    return paths, console.file.getvalue()


def test_tables_answers_pictures_and_a_page(tiny_results, monkeypatch):
    folder, drawn = tiny_results / "tiny", []
    monkeypatch.setattr(gallery, "make", lambda folder, **more: drawn.append(folder))
    paths, text = written(folder)
    assert paths == [folder / "report.html", folder / "answers.md"]
    assert all(path.is_file() for path in paths)
    assert (folder / "tables/trials.parquet").is_file()
    assert drawn == [folder]
    assert "no p" not in text


def test_what_goes_wrong_with_a_picture_or_the_page_is_one_line(tiny_results, monkeypatch):
    def fails(*given, **more):
        raise RuntimeError("no room\x1b[31m\nleft")

    folder = tiny_results / "tiny"
    monkeypatch.setattr(gallery, "make", fails)
    monkeypatch.setattr(document, "write", fails)
    paths, text = written(folder)
    assert paths == [folder / "answers.md"]
    assert "no pictures: RuntimeError: no room\\x1b[31m left\n" in text
    assert "no page: RuntimeError: no room\\x1b[31m left\n" in text


def test_a_page_without_room_on_the_disk_is_no_success(tiny_results, monkeypatch, capsys):
    def fails(*given, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(gallery, "make", lambda folder, **more: None)
    monkeypatch.setattr(document, "write", fails)
    assert errors.run(lambda: bool(written(tiny_results / "tiny"))) == 1
    assert "No space left on device; free disk space" in capsys.readouterr().err


def test_nothing_is_drawn_where_the_weights_are_not(tiny_results, monkeypatch):
    monkeypatch.setattr(gallery, "make", None)
    _, text = written(tiny_results / "tiny", draw=False)
    assert "no pictures" not in text

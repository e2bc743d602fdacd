"""The page in a real browser: it needs no network, sorts, filters, fits, prints, is readable."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import generated_sweep
from harness.page import document
from tests.harness.page.browsing import CONTRAST, Shown


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep with every section; its names are untrusted."""
    folder = tmp_path_factory.mktemp("browser") / "made"
    size = generated_sweep.Size(
        configs=7, questions=2, train_seeds=2, select=30, report=30, epochs=5
    )
    generated_sweep.write(folder, size)
    plan = json.loads((folder / "plan.json").read_text())
    evil = "<img src=https://example.com/x onerror=alert(1)>" + "x" * 300
    plan["questions"][0]["text"] = evil
    plan["questions"][0]["arms"][-1]["arm"] = evil
    (folder / "plan.json").write_text(json.dumps(plan))
    for path in sorted((folder / "trials").iterdir())[:2]:
        finding = {"name": "nothing is learned", "evidence": "loss at chance", "mend": "look"}
        (path / "health.json").write_text(json.dumps([finding]))
    failed = sorted((folder / "trials").iterdir())[3] / "status.json"
    failed.write_text(json.dumps({"status": "failed", "attempts": 1, "error": evil}))
    frames = [Image.new("RGB", (96, 96), (0, 60 * k, 0)) for k in range(3)]
    kept = io.BytesIO()
    frames[0].save(kept, "WEBP", save_all=True, append_images=frames[1:], loop=0, duration=200)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.webp").write_bytes(kept.getvalue())
    entry = {"file": "a.webp", "kind": "episode", "label": "best", "arm": evil, "caption": "c"}
    (folder / "pictures" / "index.json").write_text(json.dumps([entry]))
    return document.write(folder)


class Report(Shown):
    """The page of a sweep."""

    def column(self, number: int) -> list[str]:
        rows = self.page.locator("#trial-table tbody tr:visible")
        cell = f"(rows) => rows.map((row) => row.cells[{number}].textContent)"
        return list(rows.evaluate_all(cell))

    def state(self, name: str) -> str:
        head = self.page.locator("#trial-table th", has_text=name).first
        return str(head.get_attribute("aria-sort"))


@pytest.fixture(scope="module")
def opened(browser: Any, report: Path) -> Iterator[dict[str, Report]]:
    """The pages by their options: a page that is shown once serves all tests that want it so."""
    made: dict[str, Report] = {}
    yield made
    for shown in made.values():
        shown.context.close()


@pytest.fixture
def shown(
    browser: Any, report: Path, opened: dict[str, Report], request: pytest.FixtureRequest
) -> Iterator[Report]:
    options = dict(getattr(request, "param", {}))
    key = json.dumps(options)
    if key not in opened:
        opened[key] = Report(browser, report, options.pop("width", 1280), **options)
    yield opened[key]
    assert opened[key].complaints == []


def heads(shown: Report) -> list[str]:
    found = shown.page.locator("#trial-table thead th").all_text_contents()
    return [str(name) for name in found]


@pytest.mark.parametrize(
    "shown",
    [
        {"width": 360, "color_scheme": "light"},
        {"color_scheme": "dark"},
    ],
    indirect=True,
)
def test_it_fits_and_can_be_read(shown: Report) -> None:
    wide = shown.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    found = shown.page.evaluate(CONTRAST)
    assert found["checked"] > 100
    assert found["poor"] == []


def test_sorting_by_mouse_and_by_keyboard(shown: Report) -> None:
    names = heads(shown)
    scores = names.index("validation")
    first = shown.column(scores)
    button = shown.page.get_by_role("button", name="validation")
    button.click()
    assert shown.state("validation") == "descending"
    known = [float(text[:5]) for text in shown.column(scores) if text]
    assert known == sorted(known, reverse=True)
    assert shown.column(scores)[-1] == ""  # the failed trial has no score: last both ways
    button.focus()
    shown.page.keyboard.press("Enter")
    assert shown.state("validation") == "ascending"
    again = [float(text[:5]) for text in shown.column(scores) if text]
    assert again == sorted(known)
    assert shown.column(scores)[-1] == ""
    assert sorted(first) == sorted(shown.column(scores))
    shown.page.get_by_role("button", name="status", exact=True).click()
    assert (shown.state("validation"), shown.state("status")) == ("none", "ascending")
    assert shown.column(names.index("status")) == ["failed"] + ["finished"] * 13


def test_filtering_by_keyboard(shown: Report) -> None:
    status = heads(shown).index("status")
    shown.page.keyboard.press("/")
    assert shown.page.evaluate("document.activeElement.id") == "filter"
    shown.page.keyboard.type("failed")
    assert shown.column(status) == ["failed"]
    assert shown.page.locator("#count").text_content() == "1 of 14 trials"
    shown.page.keyboard.press("Escape")
    assert len(shown.column(0)) == 14
    trial = shown.column(0)[shown.column(status).index("finished")]
    shown.page.get_by_label("Filter").fill(f"finished {trial}")
    assert shown.column(0) == [trial]
    shown.page.get_by_label("Filter").fill("no such word")
    assert shown.column(0) == []
    shown.page.get_by_label("Filter").fill("")


def test_the_theme_can_be_chosen(shown: Report) -> None:
    def paper() -> str:
        return str(shown.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    button = shown.page.locator("#theme")
    button.click()
    assert (button.text_content(), paper()) == ("Theme: light", light)
    button.click()
    assert button.text_content() == "Theme: dark"
    assert paper() != light
    button.click()
    assert (button.text_content(), paper()) == ("Theme: auto", light)


def test_pictures_pause(shown: Report) -> None:
    moving, still = shown.page.locator("img.moving"), shown.page.locator("img.still")
    assert moving.is_visible()
    assert not still.is_visible()
    assert moving.evaluate("(picture) => picture.decode().then(() => picture.naturalWidth)") == 96
    shown.page.get_by_role("button", name="Pause animations").click()
    assert still.is_visible()
    assert not moving.is_visible()


@pytest.mark.parametrize("shown", [{"reduced_motion": "reduce"}], indirect=True)
def test_nothing_moves_for_those_who_do_not_want_it(shown: Report) -> None:
    assert shown.page.locator("img.still").is_visible()
    assert not shown.page.locator("img.moving").is_visible()


@pytest.mark.parametrize("shown", [{"java_script_enabled": False}], indirect=True)
def test_all_is_there_without_scripts(shown: Report) -> None:
    assert shown.page.locator("#trial-table tbody tr").count() == 14
    assert shown.page.locator("#trial-table thead button").count() == 0
    assert not shown.page.locator("#filter").is_visible()
    assert not shown.page.locator("#theme").is_visible()
    assert shown.page.get_by_text("nothing is learned").first.is_visible()


def test_it_prints(shown: Report) -> None:
    printed = shown.page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000


@pytest.mark.parametrize("shown", [{"color_scheme": "dark"}], indirect=True)
def test_it_prints_on_white(shown: Report) -> None:
    shown.page.emulate_media(media="print")
    shown.page.set_viewport_size({"width": 720, "height": 1000})  # A4's, less its margins
    wide = shown.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert shown.page.evaluate(CONTRAST)["poor"] == []

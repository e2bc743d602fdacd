"""Animations show episodes of the tables, are drawn once, and survive an interruption."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.config.protocol import Protocol
from harness.core.errors import UserError
from harness.demos import pictures as sheets
from harness.page import gallery
from harness.page.gallery import INDEX, MAX_BYTES, make, read_index
from harness.results import draw
from harness.results.__main__ import main
from harness.storage import tables

KEYS = {
    "file", "kind", "trial", "arm", "label", "env_seed", "score", "max_coverage", "width",
    "height", "caption", "policy_hash", "version",
}  # fmt: skip


@pytest.fixture
def sweep(tiny_results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny sweep, whose episodes have 30 steps; its pictures have few frames."""
    monkeypatch.setattr(gallery, "Protocol", lambda: Protocol(max_episode_steps=30))
    monkeypatch.setattr(gallery, "MAX_FRAMES", 5)
    monkeypatch.setattr(gallery, "MAX_ENERGY_FRAMES", 3)
    return tiny_results / "tiny"


def test_pictures_are_of_the_best_trials_own_rows_and_are_made_once(sweep: Path) -> None:
    entries = make(sweep)
    assert json.loads((sweep / "pictures" / INDEX).read_text()) == entries
    kinds = {(entry["arm"], entry["kind"], entry["label"]) for entry in entries}
    three = {(arm, "episode", label) for arm in ("energy", "explicit") for label in gallery.LABELS}
    assert kinds == three | {("energy", "energy", "best")}
    rows = tables.read(sweep, "episodes").to_pylist()
    for entry in entries:
        assert entry.keys() == KEYS
        hash_, _, seed = entry["trial"].partition("-s")
        (row,) = (
            row
            for row in rows
            if (row["config_hash"], str(row["train_seed"]), row["env_seed"])
            == (hash_, seed, entry["env_seed"])
        )
        assert (entry["score"], entry["max_coverage"]) == (row["score"], row["max_coverage"])
        assert f"maximum coverage {row['max_coverage']:.0%}" in entry["caption"]
        path = sweep / "pictures" / entry["file"]
        assert path.stat().st_size <= MAX_BYTES
        with Image.open(path) as image:
            assert image.size == (entry["width"], entry["height"])
            assert image.n_frames > 1
    of_arm = [row for row in rows if row["config_hash"] == entries[0]["trial"].partition("-s")[0]]
    seed_rows = [r for r in of_arm if f"s{r['train_seed']}" == entries[0]["trial"].split("-")[1]]
    assert entries[0]["score"] == max(row["score"] for row in seed_rows)
    assert entries[2]["score"] == min(row["score"] for row in seed_rows)

    times = {path.name: path.stat().st_mtime_ns for path in (sweep / "pictures").glob("*.webp")}
    assert make(sweep) == entries
    again = {path.name: path.stat().st_mtime_ns for path in (sweep / "pictures").glob("*.webp")}
    assert again == times


def test_a_killed_run_goes_on_and_other_weights_are_drawn_anew(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    draw = gallery._draw

    def counted(entry: Any, *more: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(entry["file"])
        return draw(entry, *more)

    monkeypatch.setattr(gallery, "_draw", counted)
    with pytest.raises(KeyboardInterrupt):
        make(sweep, seconds=0.0)
    folder = sweep / "pictures"
    assert [entry["file"] for entry in read_index(folder)] == made
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.webp")}
    made.clear()
    monkeypatch.setattr(gallery, "_draw", lambda *a: made.append(a[0]["file"]) or draw(*a))
    said: list[str] = []
    entries = make(sweep, seconds=0.0, say=said.append)
    assert len(entries) == 4  # of the first trial: no second one is begun in no time
    assert len(made) == 2
    assert said == ["pictures of 1 more trials are left out to save time"]
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.webp")}
    assert first.items() <= kept.items()
    # An entry of other weights is not taken for this one, and what nothing names goes.
    index = json.loads((folder / INDEX).read_text())
    index[0]["policy_hash"] = "0" * 12
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "left-over.webp").touch()
    made.clear()
    assert make(sweep, seconds=0.0) == entries
    assert len(made) == 1
    assert not (folder / "left-over.webp").exists()


def test_named_trials_and_those_that_are_not_there(sweep: Path) -> None:
    trial = sorted(path.name for path in (sweep / "trials").iterdir())[0]
    assert {entry["trial"] for entry in make(sweep, [trial, trial])} == {trial}
    with pytest.raises(UserError, match="takes a finished trial of the sweep, given 'x'"):
        make(sweep, ["x"])


def test_failures_are_a_contact_sheet_of_the_trials_own_rows(tiny_results, monkeypatch, capsys):
    """Up to 24 of the tables' failed episodes are on it, the nearest to success first."""
    drawn: list[Any] = []
    real = sheets.draw_sheet
    monkeypatch.setattr(
        sheets, "draw_sheet", lambda episodes: drawn.append(episodes) or real(episodes)
    )
    trial = next((tiny_results / "tiny" / "trials").iterdir()).name
    hash_, _, seed = trial.partition("-s")
    rows = [
        row
        for row in tables.read(tiny_results / "tiny", "episodes").to_pylist()
        if (row["config_hash"], str(row["train_seed"])) == (hash_, seed) and not row["success"]
    ]
    rows.sort(key=lambda row: -row["max_coverage"])
    assert len(rows) == 25
    rows = [rows[k] for k in sheets.evenly(25)]
    assert len(rows) == 24
    monkeypatch.setattr(draw, "Protocol", lambda: Protocol(max_episode_steps=30))
    arguments = ["--results", str(tiny_results), "--trial", trial, "--failures"]
    assert main(["pictures", "tiny", *arguments]) == 0
    (episodes,) = drawn
    assert [title for title, _ in episodes] == [
        f"{row['env_seed']}: covers {row['max_coverage']:.3f}" for row in rows
    ]
    assert [len(states) for _, states in episodes] == [row["length"] + 1 for row in rows]
    path = tiny_results / "tiny" / "pictures" / f"{trial}-failures.png"
    with Image.open(path) as image:
        assert image.size[0] > 6 * sheets.TILE
    assert "Traceback" not in capsys.readouterr().err


def test_a_sweep_without_rows_has_no_pictures(sweep: Path) -> None:
    for path in sweep.glob("trials/*/episodes/*"):
        path.unlink()
    assert make(sweep) == []
    assert not (sweep / "pictures").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "7", "[7]", '[{"file": "../../plan.json"}]', '[{"file": "gone.webp"}]']
)
def test_an_index_is_believed_only_of_files_that_are_there(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").touch()
    (tmp_path / INDEX).write_text(content)
    assert read_index(tmp_path) == []

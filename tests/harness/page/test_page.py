"""The page of a sweep in every state of its folder, and of untrusted folders."""

import html
import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import generated_sweep
from harness.core.errors import UserError
from harness.page import document, search_section
from harness.page.page_data import PageData
from harness.stats.intervals import Estimate
from harness.storage import table_schemas, tables

EVIL = "<img src=x onerror=alert(1)>\x1b[31m\u202e" + "x" * 300


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "made"
    size = generated_sweep.Size(
        configs=4, questions=1, train_seeds=2, select=30, report=30, epochs=5
    )
    generated_sweep.write(folder, size)
    return folder


@pytest.fixture
def made(tmp_path: Path, _made: Path) -> Path:
    """A finished sweep of nine trials, three of the baseline, a copy of its own."""
    return Path(shutil.copytree(_made, tmp_path / "made"))


def written(folder: Path) -> str:
    path = document.write(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    return text


def words(text: str) -> str:
    """The visible text, on one line."""
    text = re.sub(r"<(style|script|title|desc)>.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def trials(folder: Path) -> list[Path]:
    return sorted((folder / "trials").iterdir())


def test_a_finished_sweep(made: Path) -> None:
    text = written(made)
    seen = words(text)
    assert "Finished. All 8 trials have a score" in seen
    for title in (
        "Answers",
        "question 0",
        "Training",
        "Success by threshold",
        "Probability of improvement",
        "Distribution of scores",
        "Success by rotation",
        "Health",
        "Trials",
        "Reproduce this sweep",
    ):
        assert title in seen, title
    assert "python run_sweep.py" in seen
    (answer,) = PageData(made).answers
    assert answer.summary in seen
    for verdict in answer.verdicts:
        assert f"{verdict.score.value:+.3f}" in seen
        assert f"[{verdict.score.low:+.2f}, {verdict.score.high:+.2f}]" in seen
        assert f"n = {verdict.n}, 2 seeds" in seen


def test_the_page_needs_nothing_else(made: Path) -> None:
    text = written(made)
    assert "default-src 'none'" in html.unescape(text)
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!["']?(#|data:image/))""", text)
    assert not re.search(r"https?://", text)
    assert " style=" not in text
    assert not re.search(r"<[^>]*\son\w+=", text.split("</style>")[1].split("<script>")[0])


def test_a_real_sweep_while_it_runs(tiny_results: Path) -> None:
    folder = tiny_results / "tiny"
    (running, *_) = trials(folder)
    change(running / "status.json", status="running")
    seen = words(written(folder))
    assert "Running: 2 trials of 4 left." in seen
    assert "2 finished, 1 running, 1 pending" in seen


def test_report_starts_are_shown_where_there_are_some(evaluated_results: Path) -> None:
    seen = words(written(evaluated_results / "tiny"))
    assert "Filled: test score" in seen
    assert "25 validation starts, 25 test starts" in seen


def test_out_names_another_place(made: Path, tmp_path: Path) -> None:
    assert document.write(made, tmp_path / "there" / "x.html") == tmp_path / "there" / "x.html"
    with pytest.raises(UserError, match="can be written"):
        document.write(made, tmp_path / "there")
    with pytest.raises(UserError, match="are a folder"):
        document.write(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    seen = words(written(tmp_path / "empty"))
    assert "Nothing has been run in this folder yet" in seen
    assert not re.search(r"\bnan\b", seen.lower())


def test_a_plan_of_which_nothing_was_run(made: Path) -> None:
    shutil.rmtree(made / "trials")
    seen = words(written(made))
    assert "Not finished: 8 trials of 8 left. 8 pending" in seen
    assert "nothing to compare" in seen
    assert not re.search(r"\bnan\b", seen.lower())


def test_every_trial_failed(made: Path) -> None:
    for folder in trials(made):
        change(folder / "status.json", status="failed", error=f"loss is NaN {EVIL}", best_step=None)
        shutil.rmtree(folder / "episodes")
    text = written(made)
    assert "No trial finished." in words(text)
    assert "8 failed trials" in words(text)
    assert "loss is NaN &lt;img" in text
    assert "<img" not in text


def test_torn_files_are_left_out(made: Path) -> None:
    first, second, third, *_ = trials(made)
    for path in (*first.glob("episodes/*"), second / "curves.parquet", third / "health.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (first / "status.json").write_text('{"status": "fin')
    seen = words(written(made))
    assert "Not finished: 1 trial of 8 left" in seen
    assert not list(made.rglob("*.torn*"))


def test_a_torn_plan_takes_nothing_along(made: Path) -> None:
    (made / "plan.json").write_text('{"questions": [')
    assert "All 8 trials" in words(written(made))


def test_names_from_strangers_stay_text(made: Path) -> None:
    plan = json.loads((made / "plan.json").read_text())
    plan["questions"][0]["question"] = f"q {EVIL}"
    plan["questions"][0]["text"] = f"text {EVIL}"
    plan["budget"] = EVIL
    plan["space"] = f"{EVIL}; rm -rf ~"
    for arm in plan["questions"][0]["arms"]:
        arm["arm"] = f"{EVIL} {arm['arm']}"
    plan["provenance"] = {"versions": {EVIL: EVIL}}
    (made / "plan.json").write_text(json.dumps(plan))
    for folder in trials(made):
        finding = {"name": f"ill {EVIL}", "evidence": EVIL, "mend": EVIL}
        (folder / "health.json").write_text(json.dumps([finding]))
        change(folder / "status.json", device=EVIL, git_revision=EVIL)
        config = json.loads((folder / "config.json").read_text())
        config["arm"] = EVIL
        config["config"]["policy"]["kind"] = f"{EVIL}{folder.name}"
        (folder / "config.json").write_text(json.dumps(config))
    text = written(made)
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "Fix: " in words(text)
    # The command keeps the stranger's path in quotes.
    assert "'&lt;img" in text or "&#x27;&lt;img" in text


def test_a_trials_name_does_not_lead_out_of_the_folder(made: Path) -> None:
    (made / "health.json").write_text(json.dumps([{"name": "ill", "mend": "secret"}]))
    folder = trials(made)[0]
    config = json.loads((folder / "config.json").read_text())
    config["config_hash"] = "../../x"
    (made / "x-s0").mkdir()
    (made / "x-s0" / "health.json").write_text(json.dumps([{"name": "ill", "mend": "secret"}]))
    (folder / "config.json").write_text(json.dumps({**config, "train_seed": 0}))
    (folder / "health.json").write_text(json.dumps([{"name": "ill", "mend": "open"}]))
    seen = words(written(made))
    assert "⚠ ill" not in seen  # a trial that names another folder is left out
    assert "secret" not in seen


def test_an_issue_whose_name_has_a_comma_is_one_issue(made: Path) -> None:
    names = ["loss falls, action error does not", "overfits"]
    for folder in trials(made)[:2]:
        (folder / "health.json").write_text(json.dumps([{"name": name} for name in names]))
    tables.rebuild(made)
    seen = words(written(made))
    assert "⚠ loss falls, action error does not 2 trials" in seen
    assert "⚠ overfits 2 trials" in seen
    assert "⚠ action error" not in seen
    assert {arm.as_row()["health"] for arm in PageData(made).arms} == {"ok", "; ".join(names)}


def test_a_table_derived_by_earlier_rules_is_not_used(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(tables, "_RULES", b"1")
        tables.rebuild(made)
        path = made / "tables" / "trials.parquet"
        table_schemas.write(pq.read_table(path).slice(0, 1), path)
        assert tables.read(made, "trials").num_rows == 1
    assert tables.read(made, "trials").num_rows == 8


def test_an_older_schema_lacks_columns_and_is_shown(made: Path) -> None:
    for path in made.rglob("episodes/*.parquet"):
        content = table_schemas.read_file(path, "episodes").drop_columns(
            ["action_jerk", "render_ms"]
        )
        table_schemas.write(content, path)
    assert "All 8 trials" in words(written(made))


def test_rows_that_are_not_numbers_are_not_counted(made: Path) -> None:
    for path in sorted(made.rglob("episodes/*.parquet")):
        content = table_schemas.read_file(path, "episodes")
        for name in ("score", "max_coverage", "success"):
            values = content[name].to_pylist()
            values[0] = None if name == "success" else float("nan")
            column = pa.array(values, content.schema.field(name).type)
            content = content.set_column(content.schema.names.index(name), name, column)
        table_schemas.write(content, path)
    text = written(made)
    assert not re.search(r"\bnan\b", words(text).lower())
    assert "NaN" not in text.split("<script>")[0]
    assert "29 validation starts" in words(text)


def test_curves_that_are_not_numbers_are_left_out(made: Path) -> None:
    for path in made.rglob("curves.parquet"):
        content = table_schemas.read_file(path, "curves")
        values = pa.array([float("nan"), float("inf"), -1.0, 0.0, 1.0])
        position = content.schema.names.index("train_loss_ratio")
        table_schemas.write(content.set_column(position, "train_loss_ratio", values), path)
    text = written(made)
    assert not re.search(
        r'"[^"]*\b(nan|inf)\b[^"]*"', text.split("</style>")[1].split("<script")[0]
    )


def test_a_seed_still_training_does_not_bend_the_mean(made: Path) -> None:
    seeds = Counter(path.name.partition("-")[0] for path in trials(made))
    first = next(path for path in trials(made) if seeds[path.name.partition("-")[0]] == 2)
    curves = table_schemas.read_file(first / "curves.parquet", "curves")
    table_schemas.write(curves.slice(0, 2), first / "curves.parquet")
    data = PageData(made)
    band = data.curve(curves["config_hash"][0].as_py(), "train_loss")
    assert band is not None
    assert len(band.values) == 1
    assert len(band.steps) == 5


def test_selections_by_step_are_drawn_where_trials_select_often(made: Path) -> None:
    assert "Validation score" not in words(written(made))
    for folder in trials(made):
        config = json.loads((folder / "config.json").read_text())
        config["config"]["select"]["every"] = 4000
        (folder / "config.json").write_text(json.dumps(config))
    assert "Validation score by step" in words(written(made))


def test_a_search_shows_its_points(made: Path) -> None:
    plan = json.loads((made / "plan.json").read_text())
    axis = {"low": 1, "high": 64, "log": True, "whole": True, "choices": []}
    search = {"sampler": "random", "axes": {"policy.negatives.count": axis}}
    plan |= {"search": search, "questions": []}
    (made / "plan.json").write_text(json.dumps(plan))
    seen = words(written(made))
    assert "best of many scores is biased upwards" in seen
    assert "Score by setting" in seen
    assert "negatives.count" in seen


@pytest.mark.slow
def test_a_hundred_trials_make_less_than_five_megabytes(tmp_path: Path) -> None:
    folder = tmp_path / "hundred"
    size = generated_sweep.Size(configs=34, questions=4, select=30, report=50, epochs=40)
    generated_sweep.write(folder, size)
    began = time.process_time()
    path = document.write(folder)
    assert time.process_time() - began < 30
    assert path.stat().st_size < 2_500_000  # pictures may take as much again


def test_importance_stands_with_its_interval(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {f"train.learning_rate {EVIL}": Estimate(0.75, 0.5, 0.875, 40)}
    found = shares, "share of what sets the best apart"
    monkeypatch.setattr(search_section, "importances", lambda folder: found)
    plan = json.loads((made / "plan.json").read_text())
    plan |= {"search": {"sampler": "tpe", "axes": {}}, "questions": []}
    (made / "plan.json").write_text(json.dumps(plan))
    text = written(made)
    assert "75.0 % [50, 88], n = 40" in words(text)
    assert "share of what sets the best apart" in words(text)
    assert "<img" not in text

"""Documents hold what the tables beside them give, and changed tables are noticed."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from harness.core import errors
from harness.results import __main__ as results_main
from harness.results.model_card import STARTS
from harness.storage import episode_table, table_schemas

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = """# A study

<!-- results golden / width -->
<!-- end -->
"""


def run(capsys, *arguments):
    code = errors.run(lambda: results_main.main(["study", *map(str, arguments)]))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_documents_are_those_of_the_tables(capsys):
    assert run(capsys, "--check") == (0, "", "")


def test_what_the_study_says_of_the_last_failures():
    page = " ".join((ROOT / "docs/STUDY.md").read_text().split())
    path = ROOT / "policies/keypoints/episodes.parquet"
    tested = episode_table.within(table_schemas.read_file(path, "episodes"), STARTS)
    failed = [c for c in tested["max_coverage"].to_pylist() if c <= 0.95]
    assert f"The {len(failed)} test episodes of {tested.num_rows} that" in page
    assert f"Of these {sum(c > 0.93 for c in failed)} came to a coverage above 0.93" in page


def test_what_the_study_says_of_the_verdicts_trials():
    """Only these arms were trained; the others differ from the baseline in the search alone."""
    trained = {"baseline (keypoints)", "data around the agent", "whole board", "mse"}
    trained |= {f"data on the board, margin {margin}" for margin in (0, 0.05, 0.2)}
    path = ROOT / "docs/tables/verdicts/trials.parquet"
    trials = table_schemas.read_file(path, "trials").to_pylist()
    finished = [row["arm"] for row in trials if row["status"] == "finished"]
    taken = sum(arm not in trained for arm in finished)
    page = " ".join((ROOT / "docs/STUDY.md").read_text().split())
    said = f"{len(finished)} of 83 trials; {taken} of them took the baseline's weights"
    assert said in page


@pytest.fixture
def place(tmp_path):
    """A repository's documents with the study and one of its tables."""
    (tmp_path / "docs/tables").mkdir(parents=True)
    shutil.copytree(ROOT / "docs/tables/verdicts", tmp_path / "docs/tables/verdicts")
    text = DOCUMENT.replace("golden / width", "verdicts / explicit")
    (tmp_path / "docs/STUDY.md").write_text(text)
    return tmp_path


def test_a_block_and_its_figure_are_made_and_a_changed_digit_is_named(place, capsys):
    code, out, err = run(capsys, "--root", place, "--check")
    assert (code, err) == (1, "")
    assert f"{place}/docs/pictures/study/verdicts-explicit.svg must be there" in out
    assert run(capsys, "--root", place)[0] == 0
    page = place / "docs/STUDY.md"
    text = page.read_text()
    assert "| mse | 0.812 [" in text
    assert "](pictures/study/verdicts-explicit.svg)" in text
    assert run(capsys, "--root", place, "--check") == (0, "", "")
    page.write_text(text.replace("0.812", "0.912"))
    code, out, _ = run(capsys, "--root", place, "--check")
    line = 1 + next(k for k, each in enumerate(text.splitlines()) if "0.812" in each)
    assert code == 1
    assert out.startswith(f"{page}:{line} must be what the tables give, '| mse | 0.812 ")
    assert run(capsys, "--root", place)[0] == 0
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("kind", "column", "value", "told"),
    [
        ("trials", "select_score", 0.9, "row 3: select_score must be the mean of its episodes"),
        ("episodes", "score", 0.5, "row 3: score and success must follow from max_coverage"),
    ],
)
def test_a_table_changed_by_hand_is_told_by_file_and_row(place, capsys, kind, column, value, told):
    path = place / f"docs/tables/verdicts/{kind}.parquet"
    table = table_schemas.read_file(path, kind)
    values = table[column].to_pylist()
    values[3] = value
    at = table.schema.get_field_index(column)
    changed = table.set_column(at, table.schema.field(at), pa.array(values, pa.float64()))
    stored = table_schemas.read_metadata(path)
    table_schemas.write(changed.replace_schema_metadata(stored), path)
    code, out, _ = run(capsys, "--root", place, "--check")
    assert code == 1
    assert f"{path}, {told}" in out


def test_a_question_or_a_table_that_is_not_there_is_named(place, capsys):
    page = place / "docs/STUDY.md"
    for name, rule in (
        ("verdicts / bound", "verdicts has the questions bounds, readout, explicit, given bound"),
        ("verdict / bounds", "results must name one of the stored tables verdicts, given verdict"),
    ):
        page.write_text(DOCUMENT.replace("golden / width", name))
        code, out, err = run(capsys, "--root", place)
        assert (code, out) == (2, "")
        assert err == f"error: {page}, block 1: {rule}\n"


def test_a_sweeps_tables_are_taken_in_without_its_places(tiny_results, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/STUDY.md").write_text("# A study\n")
    code, _, err = run(capsys, "--root", tmp_path, "--results", tiny_results, "--store", "tiny")
    assert (code, err) == (0, "")
    stored = tmp_path / "docs/tables/tiny"
    names = {"episodes.parquet", "plan.json", "trials.parquet"}
    assert names <= {path.name for path in stored.iterdir()}
    assert "/" not in (stored / "plan.json").read_text()
    first = json.loads((stored / "plan.json").read_text())["questions"][0]["question"]
    (tmp_path / "docs/STUDY.md").write_text(DOCUMENT.replace("golden / width", f"tiny / {first}"))
    assert run(capsys, "--root", tmp_path)[0] == 0

"""SQL and export: the rows are those of the tables, and a query cannot read files."""

import csv
import json
import re
import shutil
from pathlib import Path

import duckdb
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from harness.analysis import verdicts
from harness.analysis.sweep_results import Sweep
from harness.core import files
from harness.core.errors import UserError
from harness.results import TABLES, output, paper_tables, sql
from harness.results import __main__ as results_main
from harness.results.write import write_tables
from harness.storage import tables


def rows(capsys: pytest.CaptureFixture[str], results_dir: Path, *arguments: str) -> list[dict]:
    assert results_main.main([*arguments, "--json", "--results", str(results_dir)]) == 0
    found: list[dict] = json.loads(capsys.readouterr().out)
    return found


def test_a_query_over_all_three_tables(
    tiny_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = (
        "SELECT t.arm, count(*) AS n, avg(e.score) AS score FROM trials t JOIN episodes e "
        "USING (sweep, trial) GROUP BY t.arm ORDER BY t.arm"
    )
    found = rows(capsys, tiny_results, "sql", query)
    episodes = tables.read(tiny_results / "tiny", "episodes").to_pylist()
    assert [(row["arm"], row["n"]) for row in found] == [("energy", 50), ("explicit", 25)]
    assert sum(row["score"] * row["n"] for row in found) == pytest.approx(
        sum(row["score"] for row in episodes)
    )
    (width,) = rows(capsys, tiny_results, "sql", 'SELECT max("policy.energy.width") w FROM trials')
    assert width == {"w": 16}


def test_queries_over_every_sweep(tiny_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tiny_results / "other"
    shutil.copytree(tiny_results / "tiny", other)
    plan = files.read_json(other / "plan.json")
    for trial in plan["trials"]:
        trial["config"]["policy"]["energy"]["width"] = "wide"  # a number in the first
    files.write_json(plan, other / "plan.json")
    query = "SELECT sweep, count(*) AS n FROM trials GROUP BY sweep ORDER BY sweep"
    found = rows(capsys, tiny_results, "sql", query, "--all")
    assert found == [{"sweep": "other", "n": 4}, {"sweep": "tiny", "n": 4}]
    assert rows(capsys, tiny_results, "sql", query, "--sweep", "tiny") == found[1:]
    with pytest.raises(UserError, match="--all takes every sweep"):
        results_main.main(
            ["sql", query, "--all", "--sweep", "tiny", "--results", str(tiny_results)]
        )


def test_without_a_query_the_tables_are_named(
    tiny_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results_main.main(["sql", "--results", str(tiny_results)]) == 0
    text = capsys.readouterr().out
    for part in ("trials  4 rows", "episodes  75 rows", '"policy.energy.width"', "env_seed"):
        assert part in text
    columns = rows(capsys, tiny_results, "sql")
    assert {"table": "trials", "column": "arm", "type": "string", "rows": 4} in columns


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM glob('{folder}/*')",
        "COPY trials TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET enable_external_access",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'",
        "CREATE TABLE t (a int)",
        "DROP VIEW trials",
        "SELECT * FROM given",  # a variable of this program
        "SELECT getenv('HOME')",
    ],
)
def test_a_query_reaches_no_file(
    tiny_results: Path, tmp_path: Path, query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    secret = folder / "secret.txt"
    secret.write_text("a,b\nhidden,2\n")
    given = query.format(file=secret, folder=folder)
    with pytest.raises(UserError) as caught:
        results_main.main(["sql", given, "--results", str(tiny_results)])
    assert "hidden" not in capsys.readouterr().out + str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["secret.txt"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM trials", '"nope" not found'),
        ("SELECT * FROM nothing", "nothing does not exist"),
        ("", "a query is one that returns rows"),
        ("SELECT 1/'a'::int", "Could not convert"),
    ],
)
def test_a_wrong_query_is_told_in_one_line(tiny_results: Path, query: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        sql.ask([tiny_results / "tiny"], query)
    assert "\n" not in str(caught.value)


def test_what_a_query_brings_is_harmless(
    tiny_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = (
        "SELECT 'x' || chr(27) || '[31m' AS a, '=1+1' AS b, [1.5, 'nan'::double] AS c, "
        "DATE '2020-01-02' AS d, 'q'::blob AS e, 'inf'::double AS f, '-arm' AS \"=g\""
    )
    (row,) = rows(capsys, tiny_results, "sql", query)
    assert (row["a"], row["c"], row["d"], row["f"]) == (
        "x\x1b[31m",
        [1.5, None],
        "2020-01-02",
        None,
    )
    for form in ([], ["--csv"]):
        results_main.main(["sql", query, *form, "--results", str(tiny_results)])
        text = capsys.readouterr().out
        assert "x\\x1b[31m" in text
        assert "\x1b" not in text
    (line,) = csv.DictReader(text.splitlines())
    assert (line["b"], line["c"], line["'=g"]) == ("'=1+1", "[1.5, null]", "'-arm")


def test_exported_tables_are_the_tables(evaluated_results: Path, tmp_path: Path) -> None:
    folder = evaluated_results / "tiny"
    for form in ("csv", "arrow", "parquet"):
        written = write_tables(folder, tmp_path / form, form, None, force=False)
        assert [path.stem for path in written] == list(TABLES)
    episodes = sql.tables([folder], "episodes")
    assert pyarrow.feather.read_table(tmp_path / "arrow" / "episodes.arrow").equals(episodes)
    assert pq.read_table(tmp_path / "parquet" / "episodes.parquet").equals(episodes)
    text = (tmp_path / "csv" / "episodes.csv").read_text()
    lines = list(csv.DictReader(text.splitlines()))
    assert [float(line["score"]) for line in lines] == episodes["score"].to_pylist()
    with duckdb.connect() as connection:  # another tool reads them
        file = tmp_path / "csv" / "arms.csv"
        arms = connection.sql(f"SELECT arm, report_score FROM '{file}'").fetchall()
    expected = [(arm.arm, arm.report.value) for arm in Sweep(folder).arms()]
    assert arms == expected


def test_nothing_is_overwritten_unasked(evaluated_results: Path, tmp_path: Path) -> None:
    folder, file = evaluated_results / "tiny", tmp_path / "mine.csv"
    file.write_text("mine")
    with pytest.raises(UserError, match="exists already; --force replaces"):
        write_tables(folder, file, "csv", "trials", force=False)
    assert file.read_text() == "mine"
    assert write_tables(folder, file, "csv", "trials", force=True) == [file]
    assert "mine" not in file.read_text()
    for to, table, message in (
        (tmp_path / "all.csv", None, "one file holds one table"),
        (file / "below", "trials", "must be a place to write to"),
        (tmp_path, "latex", "exists already"),
    ):
        (tmp_path / "arms.tex").write_text("mine")
        form, name = ("latex", None) if table == "latex" else ("csv", table)
        with pytest.raises(UserError, match=message):
            write_tables(folder, to, form, name, force=False)
    with pytest.raises(UserError, match="takes the table of arms"):
        write_tables(folder, tmp_path / "x.tex", "latex", "trials", force=False)


EVERY_SIGN = "".join(chr(code) for code in range(32, 127)) + "äß–“é”×😀\x1b‮"


def test_latex_is_whole_and_says_how_it_was_made(evaluated_results: Path, tmp_path: Path) -> None:
    folder = evaluated_results / "tiny"
    plan = files.read_json(folder / "plan.json")
    plan["questions"][0] |= {"question": "100% & _more_", "text": EVERY_SIGN}
    plan["questions"][0]["arms"][1]["arm"] = r"\input{/etc/passwd}"
    files.write_json(plan, folder / "plan.json")
    (path,) = write_tables(folder, tmp_path / "t.tex", "latex", None, force=False)
    text = path.read_text()
    assert text.isascii() or set(text) - set(map(chr, range(128))) <= set("äßé")
    body = text.partition(r"\begin{tabular}")[2]
    for begun in re.findall(r"\\begin\{(\w+)\}", text):
        assert text.count(rf"\begin{{{begun}}}") == text.count(rf"\end{{{begun}}}") == 1
    # Braces balance and every cell's row has as many cells as there are columns.
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    cells = [
        line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert len(cells) == 3
    assert {len(re.findall(r"(?<!\\)&", line)) for line in cells} == {5}
    known = r"\\(textbackslash|text\w+|begin|end|centering|caption|toprule|midrule|bottomrule"
    known += r"|multicolumn|emph|usepackage|times|pm|[\\{}&%$#_])"
    assert not re.sub(known, "", text).count("\\")
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    for word in ("95 \\%", "training seeds", "held-out starts", "Bonferroni"):
        assert word in text
    arm = Sweep(folder).arms()[0]
    assert f"{arm.report.value:.3f} [" in text


@pytest.mark.parametrize("name", ["[2cm] wide", "*", "a [b]*"])
def test_a_row_of_latex_is_no_argument_of_the_line_before(
    evaluated_results: Path, name: str
) -> None:
    folder = evaluated_results / "tiny"
    plan = files.read_json(folder / "plan.json")
    for arm in plan["questions"][0]["arms"]:
        arm["arm"] = name
    files.write_json(plan, folder / "plan.json")
    sweep = Sweep(folder)
    text = paper_tables.latex(sweep, verdicts.answers(sweep))
    assert f"{name} & " in text
    assert not re.search(r"(\\\\|rule)\s*[\[*]", text)


def test_markdown_for_a_paper_and_a_search(evaluated_results: Path) -> None:
    folder = evaluated_results / "tiny"
    sweep = Sweep(folder)
    text = paper_tables.markdown(sweep, verdicts.answers(sweep))
    assert "**loss: Does an energy help?**" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {7}
    plan = {**files.read_json(folder / "plan.json"), "questions": [], "search": {"text": "?"}}
    files.write_json(plan, folder / "plan.json")
    assert "trials of the search" in paper_tables.markdown(Sweep(folder), [])
    assert "Bonferroni" not in paper_tables.latex(Sweep(folder), [])


def test_rebuild_says_what_changed(tiny_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {row["table"]: row["change"] for row in rows(capsys, tiny_results, "rebuild")}
    kinds = ("trials", "curves", "episodes", "answers.md")
    assert changes == dict.fromkeys(kinds, "new")
    first = min((tiny_results / "tiny" / "trials").iterdir())
    path = first / "episodes" / "select-500.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    found = {row["table"]: row for row in rows(capsys, tiny_results, "rebuild")}
    assert found["episodes"]["change"] == "changed"
    assert found["episodes"]["rows"] == found["episodes"]["rows_before"] - 25
    assert found["curves"]["change"] == "unchanged"
    torn = f"trials/{first.name}/episodes/select-500.parquet.torn"
    assert found[torn]["change"] == "set aside"


def test_a_console_is_as_wide_as_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert output.console().width == 72

"""The results command: true numbers, output that fits the terminal, no control characters."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from harness.analysis import verdicts
from harness.analysis.importance import importances
from harness.analysis.sweep_results import Sweep
from harness.config import plan as config_plan
from harness.core import command_lines, files, paths
from harness.core import seeds as store
from harness.core.errors import UserError
from harness.evaluation.job import Options, evaluate
from harness.page import provenance_section
from harness.results import __main__ as results_main
from harness.stats import intervals
from harness.storage import lookup, table_schemas, tables
from harness.terminal import answer_tables, answers_markdown, sweep_tables

ROOT = Path(__file__).resolve().parents[3]
Command = Callable[..., str]


@pytest.fixture
def command(
    evaluated_results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command on the evaluated results at a width and returns what it printed."""

    def run(*arguments: str, width: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        assert results_main.main([*arguments, "--results", str(evaluated_results)]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize(
    "line", ["list", "show", "trials", "episodes", "best", "compare energy explicit"]
)
def test_every_table_fits(command: Command, line: str, width: int) -> None:
    text = command(*line.split(), width=width)
    assert text.strip()
    to_copy = ("checkpoint: ", "evaluate it: ")  # never wrap
    wrapped = [line for line in text.splitlines() if not line.startswith(to_copy)]
    assert max(map(len, wrapped)) <= width
    words = set(re.findall(r"[a-z]{3,}", command(*line.split(), width=300)))
    assert not set(re.findall(r"[a-z]{3,}", text)) - words  # columns go before letters do
    assert "…" not in text  # nothing was cut
    assert "\x1b" not in text  # no colour into a pipe


def test_show_gives_each_arm_its_interval_and_difference(
    command: Command, evaluated_results: Path
) -> None:
    text = command("show", width=160)
    assert "sweep tiny: 3 finished, 1 pending" in text
    assert "loss  Does an energy help?" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  e")}
    (forest,) = [line for line in text.splitlines() if line.startswith("  ○ explicit")]
    rows = tables.read(evaluated_results / "tiny", "episodes").to_pylist()
    trials = {
        t["config_hash"]: t["arm"]
        for t in files.read_json(evaluated_results / "tiny/plan.json")["trials"]
    }
    means = {}
    for arm in ("energy", "explicit"):
        mine = [r for r in rows if trials[r["config_hash"]] == arm]
        select = [r["score"] for r in mine if r["env_seed"] < 300_000]
        reported = [r["score"] for r in mine if r["env_seed"] >= 300_000]
        means[arm] = np.mean(reported)  # what a verdict is on where all arms have it
        assert f"{means[arm]:.3f} [" in lines[arm]
        assert f"{np.mean(select):.3f} [" in lines[arm]
    assert "2/2" in lines["energy"]
    assert "1/2" in lines["explicit"]
    assert f"{means['explicit'] - means['energy']:+.3f} [" in forest
    assert "baseline: energy" in text
    at = f"--results {evaluated_results}"
    assert f"\nevaluate it: python run_eval.py --ckpt best --sweep tiny --seeds 500 {at}\n" in text
    assert command("sql").endswith(f" --sweep tiny {at}\n")


def test_printed_commands_run_where_they_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the repository, in another folder, of an installed package, and of an object store."""
    sweep = tmp_path / "my results" / "tiny"
    monkeypatch.chdir(ROOT)
    assert command_lines.evaluate_best(paths.RESULTS / "tiny").startswith("python run_eval.py --ck")
    assert command_lines.evaluate_best(paths.RESULTS / "tiny").endswith("--seeds 500")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command_lines.evaluate_best(sweep))
    assert words[:2] == ["python", str(ROOT / "run_eval.py")]
    assert words[-2:] == ["--results", str(sweep.parent)]
    plan = {"space": "ablations.yaml", "budget": "smoke"}
    line = provenance_section.reproduce(plan, sweep)
    assert line is not None
    assert shlex.split(line)[1:3] == [str(ROOT / "run_sweep.py"), "ablations.yaml"]
    assert shlex.split(line)[-2:] == ["--results", str(sweep.parent)]
    command_lines.uri_note(sweep.parent).write_text("s3://bucket/prefix\n")
    monkeypatch.setattr(paths, "INSTALLED", True)
    line = command_lines.line("results", "show", "tiny", results=sweep.parent)
    assert line == "ibc-results show tiny --results s3://bucket/prefix"


def test_the_same_as_data(command: Command, evaluated_results: Path) -> None:
    rows = json.loads(command("show", "--json"))
    assert [row["arm"] for row in rows] == ["energy", "explicit"]
    assert (rows[0]["trials_finished"], rows[0]["trials"]) == (2, 2)
    assert rows[0]["select_difference"] is None
    low, value, high = (rows[1][f"select_score{end}"] for end in ("_low", "", "_high"))
    assert low <= value <= high
    assert rows[1]["select_score_n"] == 25
    assert rows[1]["report_score_n"] == 25
    table = list(csv.DictReader(io.StringIO(command("trials", "--csv"))))
    assert len(table) == 4
    assert {row["policy.energy.width"] for row in table} == {"16"}
    assert {row["status"] for row in table} == {"finished", "pending"}
    episodes = json.loads(command("episodes", "--json"))
    assert len(episodes) == 150
    assert json.loads(command("list", "--json"))[0]["name"] == "tiny"


def test_episodes_of_a_trial_the_worst_first(command: Command, evaluated_results: Path) -> None:
    trial = min(p.name for p in (evaluated_results / "tiny" / "trials").iterdir())
    rows = json.loads(command("episodes", "--trial", trial, "--json"))
    assert len(rows) == 50
    assert {f"{row['config_hash']}-s{row['train_seed']}" for row in rows} == {trial}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores)
    text = command("episodes", "--trial", trial, "--limit", "3")
    assert len(text.splitlines()) == 5
    assert "... and 47 more; --limit 0 shows all" in text
    assert "more" not in command("episodes", "--limit", "0")
    with pytest.raises(UserError, match="no episodes of a trial 'zzz'"):
        command("episodes", "--trial", "zzz")


def test_compare_pairs_by_start(command: Command, evaluated_results: Path) -> None:
    on_select = ("compare", "explicit", "energy", "--on", "select")
    text = " ".join(command(*on_select).split())
    assert "paired on 25 validation starts" in text
    assert "a = explicit, training seeds: 1" in text
    assert "b = energy, training seeds: 2" in text
    assert "train at least 3 seeds" in text
    rows = json.loads(command("compare", "loss / explicit", "energy", "--json"))
    assert [row["column"] for row in rows] == ["score", "success", "final_coverage"]
    assert (rows[0]["on"], rows[0]["difference_n"]) == ("report", 25)
    grids = [
        Sweep(evaluated_results / "tiny").find_group(name).grid("score", store.REPORT_SEEDS).values
        for name in ("explicit", "energy")
    ]
    expected = intervals.paired_difference(*grids)
    got = [rows[0][f"difference{end}"] for end in ("", "_low", "_high")]
    assert got == [expected.value, expected.low, expected.high]
    assert json.loads(command(*on_select, "--json"))[0]["on"] == "select"


def test_compare_is_a_gate_that_needs_evidence(
    evaluated_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def gate(a: str, b: str, margin: str, *more: str) -> tuple[int, str]:
        words = ("compare", a, b, "--results", str(evaluated_results), "--fail-if-worse", margin)
        return results_main.main([*words, *more]), capsys.readouterr().out

    sides = "energy", "explicit"
    difference = json.loads(gate(*sides, "0.5", "--json")[1])[0]
    low, high = difference["difference_low"], difference["difference_high"]
    assert low < high
    # Exactly where the interval's lower end is, and where its upper end is.
    for margin in (0.0, 0.02, 0.3, 0.9):
        code, text = gate(*sides, str(margin))
        row = json.loads(gate(*sides, str(margin), "--json")[1])[0]
        assert row["passed"] is (code == 0) is (low > -margin)
        said = "passed" if low > -margin else "failed: a" if high < -margin else "for lack of"
        assert said in text
    for margin in ("-0.1", "1", "nan", "x"):
        with pytest.raises(UserError, match="--fail-if-worse"):
            gate(*sides, margin)


def test_compare_takes_the_common_starts_and_says_so(
    command: Command, evaluated_results: Path
) -> None:
    names = sorted(path.name for path in (evaluated_results / "tiny" / "trials").iterdir())
    for name, seeds in zip(names, ("400000-400003", "400002-400007"), strict=False):
        console = Console(file=io.StringIO())
        evaluate(Options(ckpt=name, seeds=seeds, results=evaluated_results, workers=1), console)
    text = " ".join(command("compare", names[0], names[1]).split())
    assert "paired on 27 test starts" in text
    assert "6 starts that only some of them have are left out" in text


def test_compare_takes_starts_of_any_seeds(command: Command, evaluated_results: Path) -> None:
    """Also the literature's, which no score of a sweep is computed from."""
    before = tables.read(evaluated_results / "tiny", "trials")["select_n"].to_pylist()
    folder = evaluated_results / "evaluations/literature/episodes"
    rows = tables.read(evaluated_results / "tiny", "episodes").to_pylist()
    best = lookup.resolve("best", evaluated_results)
    assert best.trial_dir is not None
    (first, *_) = [row for row in rows if row["config_hash"] == best.config_hash]
    same = {"policy_hash": best.policy_hash, "checkpoint_step": best.step, "error": None}
    for path, train_seed, scores in (
        (folder / "eval.parquet", None, (0.5, 0.25, 0.0)),
        (best.trial_dir / "episodes/eval-0009.parquet", best.train_seed, (0.75, 0.5)),
    ):
        made = [
            {**first, **same, "train_seed": train_seed, "env_seed": 100_000 + k, "score": score}
            for k, score in enumerate(scores)
        ]
        table_schemas.write(table_schemas.table("episodes", made), path)
    words = ("compare", best.trial_dir.name, "evaluations/literature")
    row = json.loads(command(*words, "--json"))[0]
    assert (row["on"], row["mean_a"], row["mean_b"]) == ("other", 0.625, 0.375)
    assert row["difference_n"] == 2
    assert "paired on 2 other starts" in command(*words)
    assert tables.read(evaluated_results / "tiny", "trials")["select_n"].to_pylist() == before


def test_an_evaluation_is_shown_queried_and_exported(
    command: Command, evaluated_results: Path, tmp_path: Path
) -> None:
    rows = next((evaluated_results / "tiny/trials").glob("*/episodes/eval-*"))
    folder = evaluated_results / "evaluations/mine/episodes"
    folder.mkdir(parents=True)
    shutil.copy(rows, folder)
    stored = tables.read(folder.parent, "episodes")
    mean = sum(stored["score"].to_pylist()) / stored.num_rows
    shown = " ".join(command("show", "evaluations/mine").split())
    assert f"score {mean:.3f} " in shown
    query = "SELECT count(*) AS n FROM episodes"
    assert command("sql", "--sweep", "evaluations/mine", query).split() == ["n", "25"]
    words = ("export", "evaluations/mine", "--table", "episodes", "--format", "parquet")
    command(*words, "--to", str(tmp_path / "mine.parquet"))
    assert pq.read_table(tmp_path / "mine.parquet")["score"].to_pylist() == (
        stored["score"].to_pylist()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "energy", "nothing"), "'nothing' must be an arm, a config's hash or a trial"),
        (("compare", "energy", "evaluations/x"), "there is no evaluations/x under"),
        (
            ("report", "evaluations/x"),
            "evaluations/x is an evaluation, which show, episodes, compare",
        ),
        (("export", "evaluations/x", "--to", "t"), "there is no evaluations/x under"),
        (("compare", "energy", "evaluations/../.."), "an evaluation is 1 to 100 letters"),
        (("compare", "energy", "explicit", "--on", "report"), "have none in common"),
        (("show", "nothing"), "there is no sweep nothing .* there are: tiny"),
        (("trials", "../.."), "a sweep's name is"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        ((), "required: COMMAND"),
        (("list", "--json", "--csv"), "not allowed with"),
    ],
)
def test_what_is_not_there_is_said(
    tiny_results: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        results_main.main([*arguments, "--results", str(tiny_results)] if arguments else [])


def test_empty_and_missing_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be the folder that sweeps lie in"):
        results_main.main(["list", "--results", str(tmp_path / "no")])
    with pytest.raises(UserError, match="holds no sweep and no evaluation yet"):
        results_main.main(["list", "--results", str(tmp_path)])
    with pytest.raises(UserError, match=r"a sweep is needed, and .* holds none"):
        results_main.main(["show", "--results", str(tmp_path)])


def test_a_sweep_with_every_trial_failed(command: Command, evaluated_results: Path) -> None:
    for folder in (evaluated_results / "tiny" / "trials").iterdir():
        failed = {"status": "failed", "attempts": 1, "error": "NonFiniteError: the loss is nan"}
        files.write_json(failed, folder / "status.json")
    text = command("show")
    assert "3 failed, 1 pending" in text
    assert "2 failed" in text
    assert "best trial" not in text
    assert "the loss is nan" in " ".join(command("trials", width=160).split())
    assert "failed" in command("trials")
    assert "0.000" not in text
    with pytest.raises(UserError, match="needs a finished trial"):
        command("best")


def test_a_sweep_that_has_only_begun(command: Command, evaluated_results: Path) -> None:
    for folder in (evaluated_results / "tiny" / "trials").iterdir():
        files.write_json({"status": "running", "epoch": 1}, folder / "status.json")
    assert "3 running, 1 pending" in command("show")
    assert "running" in command("trials")
    plan = files.read_json(evaluated_results / "tiny" / "plan.json")
    new = evaluated_results / "newer"
    files.write_json({**plan, "sweep": "newer"}, new / "plan.json")
    assert "sweep newer: 4 pending" in command("show")
    assert "sweep tiny" in command("show", "tiny")


EVIL = "<script>alert(1)</script>[red]\x1b[2J\x07\u202eevil\nnew line"


def test_names_from_strangers_are_shown_escaped(command: Command, evaluated_results: Path) -> None:
    path = evaluated_results / "tiny" / "plan.json"
    plan = json.loads(path.read_text().replace('"energy"', json.dumps(EVIL)))
    plan["questions"][0] |= {"question": EVIL, "text": EVIL}
    files.write_json(plan, path)
    for line in ("show", "trials", "list", "best"):
        for width in (80, 160):
            text = command(line, width=width)
            assert not set(text) & {"\x1b", "\x07", "\u202e"}, line
    assert "[red]\\x1b[2J" in command("show", width=160)
    assert "[red]" in command("show", width=160)


def test_a_search_is_listed_best_first(command: Command, evaluated_results: Path) -> None:
    path = evaluated_results / "tiny" / "plan.json"
    plan = {**files.read_json(path), "questions": [], "search": {"sampler": "tpe"}}
    files.write_json(plan, path)
    rows = json.loads(command("show", "--json"))
    assert rows[0]["select_score"] >= rows[1]["select_score"]
    assert [row["select_difference"] for row in rows] == [None, None]
    assert "baseline" not in command("show").partition("mean [95")[0]


def test_colour_only_where_it_is_wanted(tiny_results: Path) -> None:
    sweep = Sweep(tiny_results / "tiny")
    arms = sweep.arms()

    def render(**options: Any) -> str:
        console = Console(file=io.StringIO(), width=120, **options)
        console.print(sweep_tables.sweep(sweep, arms, 120))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert "\x1b[1m" in render(force_terminal=True)
    assert "\x1b[3" in render(force_terminal=True, color_system="truecolor")
    assert "\x1b[3" not in render(force_terminal=True, no_color=True)
    assert "\x1b" not in render()


def test_the_command_itself(tiny_results: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}

    def module(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "harness.results.__main__", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            check=False,
        )

    done = module("show", "--results", str(tiny_results))
    assert (done.returncode, done.stderr) == (0, "")
    assert "──" in done.stdout  # a pipe is 160 columns wide
    done = module("show", "--results", str(tmp_path / "no"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --results must be the folder")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "unused"),
    [
        ("--help", "pyarrow numpy rich"),
        ("list", "torch ray optuna duckdb PIL pandas.core"),
        ("show", "torch ray optuna duckdb PIL pandas.core"),
        ("sql", "torch ray optuna PIL pandas.core"),
        ("report", "torch ray optuna duckdb pandas.core"),
    ],
)
def test_a_command_imports_only_what_it_needs(tiny_results: Path, line: str, unused: str) -> None:
    given = [] if line == "--help" else ["--results", str(tiny_results)]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "harness.results", line, *given],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    imported = {entry.rpartition("|")[2].strip() for entry in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & set(unused.split())


def test_a_config_under_two_names_is_not_compared_with_itself(
    command: Command, evaluated_results: Path
) -> None:
    path = evaluated_results / "tiny" / "plan.json"
    plan = files.read_json(path)
    first = plan["questions"][0]["arms"][0]
    plan["questions"][0]["arms"].append({**first, "arm": "the same again"})
    files.write_json(plan, path)
    lines = [line for line in command("show", width=160).splitlines() if "the same again" in line]
    assert len(lines) == 1  # in the table of scores, not in the forest
    assert "= energy" in lines[0]
    assert "+0.000" not in lines[0]


def test_compare_gives_more_than_a_mean(command: Command) -> None:
    for width in (80, 160):
        text = " ".join(command("compare", "explicit", "energy", width=width).split())
        for part in ("interquartile mean, a 0.", "P(a scores higher than b)"):
            assert part in text
        assert "minimum detectable difference 0." in text
    row = json.loads(command("compare", "explicit", "energy", "--json"))[0]
    assert 0 <= row["probability_a_better_low"] <= row["probability_a_better"] <= 1
    assert row["detectable"] > 0


def test_trials_show_how_they_went(command: Command, evaluated_results: Path) -> None:
    for folder in (evaluated_results / "tiny" / "trials").iterdir():
        config_hash, _, seed = folder.name.rpartition("-s")
        identity = {"config_hash": config_hash, "train_seed": int(seed)}
        losses = [{**identity, "epoch": i, "step": 10 * i, "train_loss": 4.0 - i} for i in range(4)]
        table_schemas.write(table_schemas.table("curves", losses), folder / "curves.parquet")
    assert "loss by step" in command("trials", width=160)
    assert command("trials", width=80).count("█▆▃▁") == 3
    first = min((evaluated_results / "tiny" / "trials").iterdir())
    rows = table_schemas.read_file(
        first / "episodes" / "select-500.parquet", "episodes"
    ).to_pylist()
    early = [{**row, "checkpoint_step": 100, "score": 0.0} for row in rows]
    table_schemas.write(
        table_schemas.table("episodes", early), first / "episodes" / "select-100.parquet"
    )
    text = command("trials", width=160)
    assert "by step" in text
    assert "▁█" in text  # the selection's score rose from 0


def test_a_stopped_trial_is_counted(command: Command, evaluated_results: Path) -> None:
    first = min((evaluated_results / "tiny" / "trials").iterdir())
    status = files.read_json(first / "status.json")
    files.write_json({**status, "status": "stopped"}, first / "status.json")
    assert "2 finished, 1 stopped, 1 pending" in command("show")
    assert "2 finished, 1 stopped, 1 pending" in command("list", width=160)
    assert "stopped" in command("trials", width=160)


def test_answers_on_a_terminal_are_a_table(evaluated_results: Path) -> None:
    sweep = Sweep(evaluated_results / "tiny")
    for width in (40, 80, 160):
        console = Console(file=io.StringIO(), width=width)
        console.print(answer_tables.answers(sweep, verdicts.answers(sweep), width))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= width
        for part in ("loss  Does an energy help?", "explicit", "not enough evidence", "Rule: an"):
            assert part in text
        assert "|" not in text


def test_answers_into_a_pipe_are_the_file(command: Command, evaluated_results: Path) -> None:
    text = answers_markdown.write(evaluated_results / "tiny").read_text()
    assert command("answers", width=80).rstrip("\n") == text.rstrip("\n")


def test_a_search_says_what_mattered(command: Command, evaluated_results: Path) -> None:
    path = evaluated_results / "tiny" / "plan.json"
    axes = {"policy.energy.width": {"choices": [16, 32], "low": 0.0, "high": 0.0, "log": False}}
    plan = {**files.read_json(path), "questions": [], "train_seeds": [0, 1]}
    files.write_json({**plan, "search": {"sampler": "tpe", "axes": axes}}, path)
    text = command("show")
    assert "importance of settings" in text
    _, note = importances(evaluated_results / "tiny")
    assert note
    assert note in " ".join(text.split())


def test_a_sweep_is_listed_with_the_test_score_of_the_trial_that_selection_chose(
    command: Command, evaluated_results: Path
) -> None:
    trials = json.loads(command("trials", "--json"))
    chosen, *others = (trial for trial in trials if trial["report_score"] is not None)
    folder = evaluated_results / "tiny" / "trials" / others[0]["trial"] / "episodes"
    for path in {*folder.glob("*.parquet")} - {*folder.glob("select-*")}:
        rows = table_schemas.read_file(path, "episodes").to_pylist()
        better = [{**row, "score": 1.0} for row in rows]
        table_schemas.write(table_schemas.table("episodes", better), path)
    scores = {t["trial"]: t["report_score"] for t in json.loads(command("trials", "--json"))}
    assert scores[others[0]["trial"]] == 1.0 > scores[chosen["trial"]]
    assert json.loads(command("list", "--json"))[0]["best_report_score"] == scores[chosen["trial"]]


def test_question_leaves_out_what_was_not_asked(
    command: Command, evaluated_results: Path, tmp_path: Path
) -> None:
    path = evaluated_results / "tiny" / "plan.json"
    plan = files.read_json(path)
    first, second = plan["questions"][0]["arms"]
    new = {"question": "width", "text": "How wide?", "arms": [first, {**second, "arm": "wide"}]}
    never = {"arm": "deep", "config_hash": "0" * 12}
    depth = {"question": "depth (all)", "track": "all", "text": "?", "arms": [first, never]}
    waiting = {**plan["trials"][0], "config_hash": "0" * 12, "question": "depth", "arm": "deep"}
    plan["trials"].append(waiting)
    files.write_json({**plan, "questions": [*plan["questions"], new, depth]}, path)
    interval = [row["score_difference_low"] for row in json.loads(command("answers", "--json"))]
    # A question of which no arm has begun is left out, and said.
    shown = command("show")
    assert "deep" not in shown
    assert "1 further question has no trial yet: depth (all)" in shown
    assert "1 pending" in shown.splitlines()[0]
    assert "1 pending" in command("list")
    # One that is named alone is all there is; its numbers are the same.
    for line in ("show", "answers", "trials", "list"):
        text = command(line, "--question", "depth", width=160)
        assert "wide" not in text
        assert "narrow" not in text
    assert "deep" in command("trials", "--question", "depth")
    one = json.loads(command("answers", "--json", "--question", "width"))
    assert [row["arm"] for row in one] == ["wide"]
    assert [row["score_difference_low"] for row in one] == interval[1:]
    command("export", "--question", "width", "--to", str(tmp_path / "tables"))
    arms = (tmp_path / "tables" / "arms.csv").read_text()
    assert "wide" in arms
    assert "loss" not in arms
    command("report", "--question", "width", "--out", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "Does an energy help?" not in page
    assert "2 further questions were not asked for: depth (all), loss" in page
    for line in ("show", "answers", "trials", "export --to x", "report", "list"):
        with pytest.raises(UserError, match="question") as refused:
            command(*line.split(), "--question", "widht")
        assert "\n" not in str(refused.value)


def test_a_search_shows_its_parameters_and_answers_with_its_best_point(
    command: Command, evaluated_results: Path, tmp_path: Path
) -> None:
    folder = evaluated_results / "tiny"
    plan = files.read_json(folder / "plan.json")
    axes = {"policy.kind": {"choices": ["ibc", "mse"]}, "policy.energy.width": {"low": 8}}
    for path in folder.glob("trials/*/config.json"):
        described = files.read_json(path)
        number = "#1" if described["arm"] == "energy" else "#2"
        files.write_json({**described, "question": "search", "arm": number}, path)
    path = folder / "plan.json"
    files.write_json({**plan, "trials": [], "questions": [], "search": {"axes": axes}}, path)
    for line in ("show", "trials", "best", "answers"):
        assert "kind ibc, width 16" in " ".join(command(line, width=200).split()), line
    for line in ("show", "trials"):
        assert "kind mse, width 16" in " ".join(command(line, width=200).split()), line
    answered = " ".join(command("answers").split())
    assert answered.startswith("The best of 3 finished trials is search / #1: kind ibc, width 16 (")
    assert "kind ibc, width 16" in answers_markdown.write(folder).read_text()
    assert json.loads(command("answers", "--json"))[0]["parameters"] == "kind ibc, width 16"
    command("report", "--out", str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text().count("kind mse, width 16") >= 1
    # What `best --yaml` writes is the same trial.
    space = tmp_path / "again.yaml"
    assert f"python run_sweep.py {space}" in command("best", "--yaml", str(space))
    again = config_plan.plan(space)
    best = json.loads(command("best", "--json"))[0]
    assert {trial.config_hash for trial in again.trials} == {best["config_hash"]}
    assert again.train_seeds == (0, 1, 2)
    with pytest.raises(UserError, match="writes a new file"):
        command("best", "--yaml", str(space))


def test_one_training_seed_says_that_it_can_answer_nothing(
    command: Command, evaluated_results: Path, tmp_path: Path
) -> None:
    path = evaluated_results / "tiny" / "plan.json"
    plan = {**files.read_json(path), "train_seeds": [0], "space": "space.yaml", "budget": "smoke"}
    files.write_json(plan, path)
    expected = "this sweep can answer none of its questions"
    command("report", "--out", str(tmp_path / "page.html"))
    for text in (command("show"), command("answers"), (tmp_path / "page.html").read_text()):
        assert expected in " ".join(text.split())
        assert "Next: python run_sweep.py space.yaml" in " ".join(text.split()).replace("`", "")
    files.write_json({**plan, "budget": "standard"}, path)
    told = " ".join(command("show").split())
    assert "space.yaml --name tiny --train-seeds 0-2 --results " in told
    files.write_json({**plan, "train_seeds": [0, 1]}, path)
    assert expected not in " ".join(command("show").split())

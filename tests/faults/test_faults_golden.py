"""What earlier versions wrote still opens, says what it said, and can be gone on with."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from harness.config import trial_config
from harness.core import files
from harness.evaluation.job import Options, evaluate
from harness.results import __main__ as results_main
from harness.storage import lookup, table_schemas, tables
from harness.sweep.folder import SweepFolder
from harness.trials.runner import run_trial
from ibc.data import layout
from ibc.data.demos import fingerprint

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "golden").glob("sweep_*"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def written(request, tmp_path, monkeypatch):
    """A copy of what a version wrote, and what was in it then."""
    monkeypatch.setattr(layout, "LARGEST_RAD", 1e3)  # its demonstrations are random numbers
    folder = Path(shutil.copytree(request.param, tmp_path / "golden"))
    return folder, json.loads((folder / "expected.json").read_text())


def test_there_is_a_golden_sweep():
    assert "sweep_1" in [path.name for path in GOLDEN]


@pytest.mark.parametrize("derived", [True, False], ids=["derived tables", "trials' own files"])
def test_the_tables_of_an_earlier_version_say_what_they_said(written, derived):
    folder, then = written
    sweep = folder / "results/golden"
    read = (
        (lambda kind: table_schemas.read_file(sweep / "tables" / f"{kind}.parquet", kind))
        if derived
        else (lambda kind: tables.read(sweep, kind))
    )
    trials = {row["trial"]: row for row in read("trials").to_pylist()}
    assert trials.keys() == {row["trial"] for row in then["trials"]}
    for row in then["trials"]:
        now = trials[row["trial"]]
        assert {key: now[key] for key in row} == pytest.approx(row), row["trial"]
    assert read("episodes").num_rows == then["episodes"]
    assert read("curves").num_rows == then["curves"]
    assert not list(folder.rglob("*.torn*"))


def test_the_configs_of_an_earlier_version_are_the_same_trials(written):
    """A trial is its config's hash: were it another today, every stored trial would run again."""
    folder, then = written
    found = sorted(folder.glob("results/golden/trials/*/config.json"))
    assert len(found) == sum(row["status"] != "pending" for row in then["trials"])
    for path in found:
        stored = files.read_json(path)
        assert (
            trial_config.config_hash(trial_config.from_stored(stored["config"]))
            == stored["config_hash"]
        )
        assert path.parent.name == trial_config.trial_id(
            stored["config_hash"], stored["train_seed"]
        )
    plan = SweepFolder(folder / "results/golden").plan()
    assert plan["dataset"]["fingerprint"] == fingerprint(folder / "demos.zarr")


def test_the_policies_of_an_earlier_version_act_as_they_did(written):
    """Rolled out anew from the same starts: the stored scores, but for rounding."""
    folder, then = written
    best = lookup.resolve("best", folder / "results", "golden")
    assert best.policy_hash in {row["policy_hash"] for row in then["trials"]}
    (row,) = [r for r in then["trials"] if r["trial"] == best.trial_dir.name]
    options = Options(
        ckpt=row["trial"], seeds="4", results=folder / "results", workers=1, redo=True
    )
    assert evaluate(options, Console(file=io.StringIO())) == 0
    trials = tables.read(folder / "results/golden", "trials").to_pylist()
    (now,) = [r for r in trials if r["trial"] == row["trial"]]
    assert now["report_n"] == 4
    assert now["report_score"] == pytest.approx(row["report_score"], abs=0.05)


def test_a_trial_that_an_earlier_version_began_is_finished_by_this_one(written):
    folder, then = written
    (row,) = [row for row in then["trials"] if row["status"] == "running"]
    trial = folder / "results/golden/trials" / row["trial"]
    stored = files.read_json(trial / "config.json")
    heard = []
    result = run_trial(
        trial_config.from_stored(stored["config"]),
        trial,
        heard.append,
        demos=folder / "demos.zarr",
        train_seed=stored["train_seed"],
    )
    assert [metrics["step"] for metrics in heard] == [6, 8]
    assert result["step"] == 8
    assert table_schemas.read_file(trial / "curves.parquet", "curves")["step"].to_pylist() == [
        2,
        4,
        6,
        8,
    ]
    assert files.read_json(trial / "status.json")["attempts"] == 2


@pytest.mark.parametrize("command", ["show", "trials", "list", "best"])
def test_the_commands_show_an_earlier_versions_sweep(written, capsys, command):
    folder, _ = written
    assert results_main.main([command, "--results", str(folder / "results")]) == 0
    assert {"golden", "baseline"} & set(capsys.readouterr().out.split())

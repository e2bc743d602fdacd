"""A trial or an ensemble becomes a policy of the project, with a card made from its tables."""

import io

import pytest
from rich.console import Console

from harness import pretrained
from harness.core import errors, paths
from harness.evaluation.job import Options, evaluate
from harness.results import __main__ as results_main
from harness.results import model_card, ship
from harness.storage import lookup, table_schemas, tables


@pytest.fixture
def run(evaluated_results, tmp_path, monkeypatch, capsys):
    """Run a command of a repository whose shipped policies need 20 and 5 starts."""
    for module in (model_card, ship):
        monkeypatch.setattr(module, "STARTS", range(300_000, 300_020))
        monkeypatch.setattr(module, "PAPER_SEEDS", range(300_020, 300_025))
    monkeypatch.setattr(paths, "POLICIES", tmp_path / "policies")

    def call(name, *given):
        root = ("--root", tmp_path, "--results", evaluated_results)
        code = errors.run(lambda: results_main.main([name, *map(str, (*given, *root))]))
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_a_trial_is_shipped_and_acts_as_it_did(run, evaluated_results, tmp_path):
    assert run("ship", "--ckpt", "best", "--name", "small")[0] == 0
    card = (tmp_path / "policies/small/README.md").read_text()
    rows = table_schemas.read_file(tmp_path / "policies/small/episodes.parquet", "episodes")
    assert rows.num_rows == 25
    mean = sum(rows["score"].to_pylist()[5:]) / 20
    assert f"| score | {mean:.3f} [" in card
    failed = 20 - sum(rows["success"].to_pylist()[5:])
    assert f"{failed} of 20 episodes end without a success." in card
    (tmp_path / "README.md").write_text("<!-- policies -->\n<!-- end -->\n")
    assert run("study")[0] == 0
    assert f"| {mean:.3f} [" in (tmp_path / "README.md").read_text()
    assert run("study", "--check") == (0, "")

    console = Console(file=io.StringIO(), width=200)
    options = Options(ckpt="pretrained:small", seeds="25", results=tmp_path / "again", workers=1)
    assert evaluate(options, console) == 0
    (again,) = (tmp_path / "again/evaluations").iterdir()
    scores = tables.read(again, "episodes")["score"].to_pylist()
    assert [*scores[20:], *scores[:20]] == rows["score"].to_pylist()
    best = lookup.resolve("best", evaluated_results).path
    with pytest.raises(errors.UserError, match="pretrained policies are: small; given 'large'"):
        pretrained.load("large")
    assert pretrained.load("small").config.kind == pretrained.load_policy(best).config.kind

    (tmp_path / "policies/small/README.md").write_text(card.replace(f"{mean:.3f}", "0.999"))
    code, said = run("study", "--check")
    assert code == 1
    assert "policies/small/README.md:" in said
    assert "| score | 0.999" in said


def test_an_ensemble_names_its_members(run, evaluated_results, tmp_path):
    trials = tables.read(evaluated_results / "tiny", "trials").to_pylist()
    members = sorted(row["trial"] for row in trials if row["arm"] == "energy")
    options = Options(ckpt=members, ensemble=True, seeds="25", results=evaluated_results, workers=1)
    assert evaluate(options, Console(file=io.StringIO())) == 0
    (made,) = (evaluated_results / "ensembles").iterdir()
    assert run("ship", "--ckpt", made, "--name", "two")[0] == 0
    card = (tmp_path / "policies/two/README.md").read_text()
    assert "an ensemble of 2" in card
    assert "training seed 0, 1; 0.2 + 0.2 minutes" in card


def test_weights_that_are_too_large_are_refused_before_anything_is_written(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(ship, "MAX_BYTES", 100)
    code, said = run("ship", "--ckpt", "best", "--name", "small")
    assert code == 2
    assert "together must have at most 100 bytes, they would have " in said
    assert not (tmp_path / "policies").exists()


def test_what_has_no_card_is_refused(run, evaluated_results):
    tested = next((evaluated_results / "tiny/trials").glob("*-s0/episodes/eval-*.parquet"))
    trial = tested.parents[1].name
    tested.unlink()
    code, said = run("ship", "--ckpt", trial, "--name", "small")
    assert code == 2
    assert "5 starts of the literature and 20 test starts, and 0 of them are stored" in said
    assert f"--ckpt {trial} --seeds 300020-300024,300000-300019" in said
    assert run("ship", "--ckpt", trial, "--name", "a/b")[0] == 2

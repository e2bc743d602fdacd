"""One evaluation from the command line: what is stored, what is skipped, what is refused."""

import functools
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import run_eval
from harness.analysis import groups
from harness.cluster.resources import available_cpus
from harness.config.protocol import Protocol
from harness.core import errors, files
from harness.core.errors import UserError
from harness.evaluation import job, policy_source
from harness.evaluation.job import Options, evaluate
from harness.storage import checkpoints, lookup, table_schemas, tables
from ibc.policies.ensemble import EnsemblePolicy
from ibc.policies.factory import load_policy
from tests.commands import Commands

ROOT = Path(__file__).resolve().parents[3]


def run(width: int = 80, steps: int = 50, **options: Any) -> tuple[int, str]:
    """Evaluate in episodes of at most so many steps."""
    console = Console(file=io.StringIO(), width=width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "Protocol", functools.partial(Protocol, max_episode_steps=steps))
        code = evaluate(Options(**{"workers": 1, **options}), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines() if ": " not in line[:9]) <= width
    return code, text


def test_best_is_evaluated_and_its_rows_lie_beside_the_trial(tiny_results: Path) -> None:
    code, text = run(ckpt="best", seeds="50", results=tiny_results, steps=300)
    assert code == 0
    found = lookup.resolve("best", tiny_results)
    assert found.trial_dir is not None
    (path,) = (found.trial_dir / "episodes").glob("eval-0001-*-step500.parquet")
    rows = table_schemas.read_file(path, "episodes")
    assert rows["env_seed"].to_pylist() == list(range(300_000, 300_050))
    assert set(rows["policy_hash"].to_pylist()) == {found.policy_hash}
    assert set(rows["config_hash"].to_pylist()) == {found.config_hash}
    text = " ".join(text.split())
    for part in (
        "evaluating trial",
        "chosen as the highest validation score",
        "episodes 50, from seeds 300000-300049, on 1 worker(s)",
        "protocol fc6f1c0ac65f: at most 300 steps",
        "success, coverage > 0.80",
        "success, coverage > 0.95",
        "95 % interval",
        "inference",
        "simulation",
        "rendering",
        str(path),
    ):
        assert part in text, part
    # The trial's own row now has a report score.
    trials = tables.read(tiny_results / "tiny", "trials").to_pylist()
    (row,) = [row for row in trials if row["trial"] == found.trial_dir.name]
    score = sum(rows["score"].to_pylist()) / 50
    assert row["report_score"] == pytest.approx(score)
    assert row["report_n"] == 50
    assert f"{score:.3f}" in text


def test_what_is_stored_is_not_run_again(tiny_results: Path) -> None:
    run(ckpt="best", seeds="25", results=tiny_results)
    code, text = run(ckpt="best", seeds="300000-300029", results=tiny_results)
    assert code == 0
    assert "stored      25 of them, which are kept; --redo runs them again" in text
    assert "5 episodes in" in text
    _, text = run(ckpt="best", seeds="25", results=tiny_results)
    assert "nothing to run: all 25 episodes are stored already" in text
    episodes = lookup.resolve("best", tiny_results).trial_dir
    assert episodes is not None
    assert len(list((episodes / "episodes").glob("eval-*"))) == 2
    _, text = run(ckpt="best", seeds="25", results=tiny_results, redo=True)
    assert "25 episodes in" in text
    assert "which are kept" not in text
    rows = tables.read(tiny_results / "tiny", "episodes").to_pylist()
    seeds = [row["env_seed"] for row in rows if row["env_seed"] >= 300_000]
    assert sorted(seeds) == list(range(300_000, 300_030))


def test_other_weights_are_other_episodes(tiny_results: Path, tiny_policy: Any) -> None:
    run(ckpt="best", seeds="10", results=tiny_results)
    found = lookup.resolve("best", tiny_results)
    assert found.trial_dir is not None
    described = checkpoints.describe(found.path)
    kind = described["config"]["policy"]["kind"]
    checkpoints.save(
        found.trial_dir / "checkpoints",
        "best",
        tiny_policy(9, policy__kind=kind),
        config=described["config"],
        step=500,
        info={name: described[name] for name in ("config_hash", "train_seed")},
    )
    _, text = run(ckpt=found.trial_dir.name, seeds="10", results=tiny_results)
    assert "which are kept" not in text
    row = tables.read(tiny_results / "tiny", "trials").to_pylist()
    (mine,) = [r for r in row if r["trial"] == found.trial_dir.name]
    assert mine["report_n"] == 10


def test_an_ensemble_is_one_checkpoint_with_rows_of_its_own(
    tiny_results: Path, tiny_policy: Any
) -> None:
    paths = []
    for seed in range(2):
        paths.append(str(tiny_results / f"member-{seed}"))
        tiny_policy(seed).save(Path(paths[-1]))
    code, text = run(ckpt=paths, seeds="5", results=tiny_results, ensemble=True)
    assert code == 0
    assert "ensemble of 2 policies" in " ".join(text.split())
    (made,) = (tiny_results / "ensembles").iterdir()
    assert isinstance(load_policy(made), EnsemblePolicy)
    _, text = run(ckpt=paths[::-1], seeds="5", results=tiny_results, ensemble=True)
    assert "nothing to run: all 5 episodes are stored already" in text
    _, text = run(ckpt=str(made), seeds="5", results=tiny_results)
    assert "nothing to run: all 5 episodes are stored already" in text
    with pytest.raises(UserError, match="--ensemble: an ensemble must have at least two policies"):
        run(ckpt=paths[0], seeds="5", results=tiny_results, ensemble=True)
    with pytest.raises(UserError, match="--ensemble joins checkpoints"):
        run(policy="envs.expert:policy", seeds="5", results=tiny_results, ensemble=True)


def fresh_rows(results: Path, arm: str) -> list[dict[str, Any]]:
    """Return the rows of an arm on test seeds."""
    trials = tables.read(results / "tiny", "trials").to_pylist()
    hashes = {row["config_hash"] for row in trials if row["arm"] == arm}
    rows = tables.read(results / "tiny", "episodes").to_pylist()
    return [r for r in rows if r["config_hash"] in hashes and r["env_seed"] >= 300_000]


def test_several_checkpoints_are_evaluated_in_one_go(tiny_results: Path) -> None:
    trials = tables.read(tiny_results / "tiny", "trials").to_pylist()
    finished = sorted(row["trial"] for row in trials if row["status"] == "finished")
    assert len(finished) == 3
    # `best` is one of them: named twice, it counts once.
    code, text = run(ckpt=("best", *finished), seeds="10", results=tiny_results, width=110)
    assert code == 0
    assert "30: 10 of each, from seeds 300000-300009" in text
    rows = tables.read(tiny_results / "tiny", "episodes").to_pylist()
    fresh = [row for row in rows if row["env_seed"] >= 300_000]
    assert len(fresh) == 30
    means = {
        name: sum(
            row["score"] for row in fresh if f"{row['config_hash']}-s{row['train_seed']}" == name
        )
        / 10
        for name in finished
    }
    table = text[text.index("policy") :]
    assert all(f"{means[name]:.3f} [" in table for name in finished)
    ranked = sorted(finished, key=lambda name: table.index(name))
    assert [means[name] for name in ranked] == sorted(means.values(), reverse=True)
    _, text = run(ckpt="all", seeds="12", results=tiny_results, width=110)
    assert "30 of them, which are kept" in text
    assert "6 episodes in" in text
    table = text[text.index("all 3 finished trials of tiny, of 2 arms") :]
    assert "energy (2 training seeds)" in table
    assert "explicit (1 training seed)" in table
    mean = sum(row["score"] for row in fresh_rows(tiny_results, "energy")) / 24
    assert re.search(rf"^energy +{mean:.3f} \[.* 2 +12$", table, re.MULTILINE)
    assert table.count("rows: ") == 1
    assert "next: python -m harness.results answers tiny" in table
    for name in finished:  # one file for each run of each trial
        folder = tiny_results / "tiny" / "trials" / name / "episodes"
        assert len(list(folder.glob("eval-*"))) == 2


def test_all_needs_a_finished_trial(tiny_results: Path) -> None:
    for path in (tiny_results / "tiny" / "trials").glob("*/status.json"):
        files.write_json({"status": "failed"}, path)
    with pytest.raises(UserError, match="none of the 4 trials of tiny is finished"):
        run(ckpt="all", seeds="5", results=tiny_results)


def test_a_checkpoint_from_elsewhere_has_its_own_folder(
    tiny_results: Path, tmp_path: Path, tiny_policy: Any
) -> None:
    path = checkpoints.save(tmp_path / "mine", "best", tiny_policy(5), config={}, step=3)
    code, _ = run(ckpt=str(path), seeds="10", results=tiny_results)
    assert code == 0
    (folder,) = (tiny_results / "evaluations").iterdir()
    assert folder.name == f"best-{checkpoints.weights_hash(path)}"
    assert tables.read(folder, "episodes").num_rows == 10
    assert "git_revision" in files.read_json(folder / "evaluation.json")
    _, text = run(ckpt=str(path), seeds="10", results=tiny_results)
    assert "nothing to run" in text


def test_a_checkpoint_in_another_results_folder_is_not_written_to(
    tiny_results: Path, tmp_path: Path
) -> None:
    path = lookup.resolve("best", tiny_results).path
    before = sorted(tiny_results.rglob("*"))
    mine = tmp_path / "mine"
    code, _ = run(ckpt=str(path), seeds="5", results=mine)
    assert (code, sorted(tiny_results.rglob("*"))) == (0, before)
    (folder,) = (mine / "evaluations").iterdir()
    assert tables.read(folder, "episodes").num_rows == 5
    code, _ = run(ckpt=str(path), seeds="5", results=tiny_results)  # its own sweep's folder
    assert sorted(tiny_results.rglob("*")) != before


POLICIES = """
import torch

class Target:
    calls = 0

    def predict_action(self, obs, generators):
        if fail and len(generators) == 25 and self.calls:
            raise RuntimeError("only small batches")
        self.calls += len(generators) == 25
        return torch.full((len(generators), 1, 2), 200.0)

fail = False
def fixed():
    return Target()

def failing():
    global fail
    fail = True
    return Target()
"""


def test_any_object_is_evaluated(
    tiny_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peers.py").write_text(POLICIES)
    monkeypatch.chdir(tmp_path)
    code, text = run(policy="peers:fixed", seeds="30", results=tiny_results)
    assert code == 0
    assert "evaluating  policy peers:fixed" in text
    folder = tiny_results / "evaluations" / "peers.fixed"
    assert set(tables.read(folder, "episodes")["config_hash"].to_pylist()) == {"peers:fixed"}
    code, text = run(policy="peers:failing", seeds="30", results=tiny_results)
    assert code == 1
    flat = " ".join(text.split())
    assert "25 of 30 episodes failed and are not counted above; the first, seed 300000" in flat
    assert "RuntimeError: only small batches" in flat
    # The same code: what is stored is kept, but for the episodes that failed.
    _, text = run(policy="peers:failing", seeds="30", results=tiny_results)
    assert "5 of them, which are kept" in text


def test_rows_of_changed_code_are_not_mixed(
    tiny_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of fifty starts rolled out again after a change left forty old rows in the mean."""
    monkeypatch.chdir(tmp_path)
    options = {"policy": "./file.py:fixed", "results": tiny_results}
    (tmp_path / "file.py").write_text(POLICIES)
    run(**options, seeds="5")
    _, text = run(**options, seeds="5")
    assert "nothing to run: all 5 episodes are stored already" in text
    (tmp_path / "file.py").write_text(POLICIES.replace("200.0", "210.0"))
    for name in [name for name in sys.modules if name.startswith("policy_")]:
        monkeypatch.delitem(sys.modules, name)  # a new process
    for redo in (False, True):
        with pytest.raises(UserError, match=r"same code.*evaluations/file.py.fixed.*--name NAME"):
            run(**options, seeds="2", redo=redo)
    code, _ = run(**options, seeds="2", name=("changed",))
    assert code == 0
    found = [
        tables.read(tiny_results / "evaluations" / name, "episodes")
        for name in ("file.py.fixed", "changed")
    ]
    assert [rows.num_rows for rows in found] == [5, 2]
    hashes = [set(rows["policy_hash"].to_pylist()) for rows in found]
    assert not hashes[0] & hashes[1]
    # Of two runs at the same time, both may write: then there is no mean either.
    path = tiny_results / "evaluations" / "changed" / "episodes" / "more.parquet"
    table_schemas.write(found[0], path)
    with pytest.raises(UserError, match=r"holds the episodes of one policy, and .* those of 2"):
        groups.evaluation_group(tiny_results / "evaluations" / "changed")


TRIED = """
import torch

class Small:
    def predict_action(self, obs, generators):
        return torch.rand(len(generators), 8, 2) * 2 - 1

class Flat:
    def predict_action(self, obs, generators):
        return torch.zeros(len(generators), 2)
"""


def test_a_trial_episode_tells_the_time_and_warns_of_normalised_actions(
    tiny_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tried.py").write_text(TRIED)
    monkeypatch.chdir(tmp_path)
    code, text = run(policy="./tried.py:Small", seeds="2", results=tiny_results, steps=300)
    flat = " ".join(text.split())
    assert code == 0
    assert "trial seed 300000, 300 steps in" in flat
    assert "ms an action, the whole run at most about" in flat
    assert "in the board's corner: are these normalised?" in flat
    _, text = run(policy="./tried.py:Small", seeds="2", results=tiny_results, steps=300)
    assert "trial" not in text.split("\n\n")[0].replace("tried", "")  # nothing is left to run
    with pytest.raises(UserError, match=r"trial of 1 episode.*before the 2 .*\(1, H, 2\), given"):
        run(policy="./tried.py:Flat", seeds="2", results=tiny_results)
    assert not list((tiny_results / "evaluations").glob("*Flat/episodes/*.parquet"))


@pytest.mark.slow
def test_videos_of_the_first_best_median_and_worst(tiny_results: Path) -> None:
    trial_dir = lookup.resolve("best", tiny_results).trial_dir
    assert trial_dir is not None
    videos: list[Path] = []
    for _ in range(2):  # the second time from stored rows
        code, text = run(ckpt="best", seeds="3", results=tiny_results, video=1)
        assert code == 0
        new = set((trial_dir / "videos").glob("*.mp4")) - set(videos)
        assert {
            line.removeprefix("video: ") for line in text.splitlines() if "video: " in line
        } == {str(path) for path in new}
        labels = {path.stem.split("-")[1] for path in new}
        assert {"best", "median", "worst"} <= labels | {"first"}
        assert "seed300000" in {path.stem.split("-")[0] for path in new}
        videos += new
    assert len(videos) == len(set(videos)) == 2 * len(new)
    assert sum(path.stem.endswith("-2") for path in videos) == len(new)  # none was overwritten


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": "0"}, "1 to 100000 episodes; given 0"),
        ({"seeds": "100"}, "one of --ckpt and --policy is needed"),
        ({"seeds": "9", "ckpt": "best", "policy": "a:b"}, "only one of them"),
        ({"seeds": "9", "ckpt": "best", "name": ("x",)}, "one for each; given 1 for 0"),
        ({"seeds": "9", "policy": "envs.expert:policy", "name": ("../x",)}, "1 to 100 letters"),
        (
            {"seeds": "9", "ckpt": "best", "policy_arg": ("a=1",)},
            "--policy-arg goes to .*, given 0",
        ),
        ({"seeds": "9", "policy": "a:b", "policy_arg": ("a",)}, "takes NAME=VALUE, given 'a'"),
        ({"seeds": "9", "policy": "a:b", "policy_arg": ("a=1", "a=2")}, "given a twice"),
        ({"seeds": "9", "ckpt": "best", "workers": 0}, "--workers must be 1 to"),
        (
            {"seeds": "9", "ckpt": "best", "workers": 4096},
            f"1 to the {available_cpus()} CPUs of this machine, given 4096",
        ),
        ({"seeds": "9", "ckpt": "best", "video": 10}, "--video takes 0 to 9 episodes, given 10"),
        ({"seeds": "9", "ckpt": "best", "video": -1}, "given -1"),
        ({"seeds": "9", "ckpt": "best", "gif": True}, "--gif needs videos: --video N"),
        ({"seeds": "9", "ckpt": "best", "overlay": "energy"}, "--overlay needs videos"),
        ({"seeds": "9", "ckpt": "best", "video": 1, "overlay": "x"}, "takes energy, given 'x'"),
        ({"seeds": "0-9", "ckpt": "best"}, "starts of the demonstrations"),
        ({"seeds": "9", "ckpt": "best", "sweep": "none"}, "there is no sweep none"),
    ],
)
def test_bad_input_is_one_line(tiny_results: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(**{"results": tiny_results, **options})


def test_the_selection_seeds_are_warned_of(tiny_results: Path) -> None:
    _, text = run(ckpt="best", seeds="200000-200004", results=tiny_results)
    assert "5 of these seeds lie in 200000..299999" in text


def test_a_folder_that_cannot_be_written_is_refused_first(tiny_results: Path) -> None:
    trial_dir = lookup.resolve("best", tiny_results).trial_dir
    assert trial_dir is not None
    for path in (trial_dir / "episodes").iterdir():
        path.unlink()
    (trial_dir / "episodes").rmdir()
    (trial_dir / "episodes").write_text("a file")  # root could write into a read-only folder
    with pytest.raises(UserError, match="results must be writable before anything starts"):
        run(ckpt="best", seeds="5", results=tiny_results)


def test_the_command_prints_a_table_and_one_line_for_wrong_input(
    tiny_results: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ("--ckpt", "best", "--seeds", "5", "--workers", "1", "--results", tiny_results)
    code, out, err = commands.run(ROOT / "run_eval.py", *words, PYTHONWARNINGS="error")
    assert (code, err.count("\n")) == (0, 1), err
    assert "[5/5] score so far" in err
    assert "success, coverage > 0.95" in out
    for arguments, message in (
        (("--ckpt", "best", "--seeds", "-1"), "error: --seeds takes"),
        (("--ckpt", "best"), "error: the following arguments are required: --seeds"),
        (("--ckpt", "nothing", "--seeds", "5", "--results", str(tiny_results)), "error: --ckpt"),
    ):
        monkeypatch.setattr(sys, "argv", ["run_eval.py", *arguments])
        assert errors.run(run_eval.main) == 2
        out, err = capsys.readouterr()
        assert err.startswith(message)
        assert (out, err.count("\n")) == ("", 1)


def test_an_interrupted_evaluation_goes_on(
    tiny_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = policy_source.roll
    done: list[int] = []

    def interrupted(policy: Any, seeds: Any, *more: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(seeds[0])
        return whole(policy, seeds, *more)

    monkeypatch.setattr(policy_source, "roll", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(ckpt="best", seeds="50", results=tiny_results)
    monkeypatch.setattr(policy_source, "roll", whole)
    _, text = run(ckpt="best", seeds="50", results=tiny_results)
    assert "25 of them, which are kept" in text
    rows = tables.read(tiny_results / "tiny", "episodes").to_pylist()
    seeds = [row["env_seed"] for row in rows if row["env_seed"] >= 300_000]
    assert seeds == list(range(300_000, 300_050))

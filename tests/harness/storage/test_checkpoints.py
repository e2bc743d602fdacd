"""Checkpoints are whole or absent, hold nothing that runs, and `best` means what it says."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.core import files
from harness.core.errors import UserError
from harness.storage import checkpoints, lookup, tables, training_state
from ibc.policies.base import Policy
from ibc.policies.factory import load_policy

Maker = Callable[..., Policy]


def save(folder: Path, policy: Policy, step: int = 1, **more: Any) -> Path:
    return checkpoints.save(folder, "best", policy, config={"a": 1}, step=step, **more)


def test_a_saved_policy_acts_the_same(tmp_path: Path, tiny_policy: Maker) -> None:
    policy = tiny_policy(3)
    path = save(tmp_path, policy, step=7, info={"config_hash": "abc", "train_seed": 2})
    assert path == tmp_path / "best"
    described = checkpoints.describe(path)
    assert (described["step"], described["config"], described["train_seed"]) == (7, {"a": 1}, 2)
    assert described["policy_hash"] == checkpoints.weights_hash(path)
    obs = {"keypoints": torch.rand(4, 2, 20) * 512}
    actions = [
        p.predict_action(obs, [torch.Generator().manual_seed(i) for i in range(4)])
        for p in (policy, load_policy(path))
    ]
    assert torch.equal(*actions)


def test_every_file_has_the_rights_of_the_umask(tmp_path: Path, tiny_policy: Maker) -> None:
    before = os.umask(0o027)
    try:
        path = save(tmp_path, tiny_policy(0), training_state={"a": torch.zeros(2)})
    finally:
        os.umask(before)
    rights = {file.name: file.stat().st_mode & 0o777 for file in path.iterdir()}
    assert len(rights) == 4
    assert set(rights.values()) == {0o640}, rights


def test_saving_again_replaces_the_whole_folder(tmp_path: Path, tiny_policy: Maker) -> None:
    save(tmp_path, tiny_policy(0), training_state={"x": torch.zeros(1)})
    save(tmp_path, tiny_policy(1), step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best"]
    assert not (tmp_path / "best" / "training_state.safetensors").exists()
    with pytest.raises(FileNotFoundError):
        checkpoints.load_training_state(tmp_path / "best")


def test_a_save_that_fails_leaves_the_one_before(tmp_path: Path, tiny_policy: Maker) -> None:
    save(tmp_path, tiny_policy(0), step=1)

    class Full:
        def save(self, directory: Path, /) -> None:
            (directory / "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.save(tmp_path, "best", Full(), config={}, step=2)
    with pytest.raises(ValueError, match=r"given object at state\.x"):
        save(tmp_path, tiny_policy(0), step=3, training_state={"x": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert checkpoints.describe(tmp_path / "best")["step"] == 1


SAVER = """
import sys
from pathlib import Path
from harness.storage import checkpoints as checkpoint
class Small:
    def save(self, directory):
        (directory / "model.safetensors").write_bytes(b"x" * 100_000)
step = 0
while True:
    step += 1
    checkpoint.save(Path(sys.argv[1]), "last", Small(), config={}, step=step)
    print(step, flush=True)
"""


@pytest.mark.faults
@pytest.mark.parametrize("wait_ms", [1, 3, 7, 12, 20])
def test_a_kill_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path, wait_ms: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        saved = int(process.stdout.readline())
        for _ in range(20):  # in all this time a reader finds a whole one too
            found = checkpoints.find(tmp_path, "last")
            assert found is not None
        time.sleep(wait_ms / 1000)
        process.send_signal(signal.SIGKILL)
        saved = max([saved, *map(int, process.stdout.read().split())])
    process.wait()
    found = checkpoints.find(tmp_path, "last")
    assert found is not None
    assert (found / "model.safetensors").stat().st_size == 100_000
    assert checkpoints.describe(found)["step"] in (saved, saved + 1)


def test_the_old_checkpoint_is_found_between_the_renames(
    tmp_path: Path, tiny_policy: Maker
) -> None:
    save(tmp_path, tiny_policy(0))
    (tmp_path / "best").rename(tmp_path / ".best.old")
    found = checkpoints.find(tmp_path, "best")
    assert found == tmp_path / ".best.old"
    save(tmp_path, tiny_policy(1), step=2)
    assert checkpoints.describe(tmp_path / "best")["step"] == 2
    assert not (tmp_path / ".best.old").exists()
    assert checkpoints.find(tmp_path, "last") is None


def test_a_training_state_keeps_every_bit(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    generator = torch.Generator().manual_seed(5)
    given = {
        "optimiser": {
            "state": {0: {"step": torch.tensor(3.0), "m": shared.T}},
            "betas": (0.9, 0.99),
        },
        "weights": [shared, shared],
        "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "rng": generator.get_state(),
        "numpy": {"state": 2**127 + 1, "name": "PCG64", "none": None, "flag": True},
        "loss": float("inf"),
        "third": 1 / 3,
        "empty": {},
    }
    training_state.write(given, tmp_path / "s.safetensors")
    read = training_state.read(tmp_path / "s.safetensors")
    assert torch.equal(read["optimiser"]["state"][0]["m"], shared.T)
    assert torch.equal(read["rng"], given["rng"])  # type: ignore[arg-type]
    assert read["half"].dtype == torch.bfloat16
    assert read["optimiser"]["betas"] == (0.9, 0.99)
    plain = ("numpy", "loss", "third", "empty")
    assert {name: read[name] for name in plain} == {name: given[name] for name in plain}


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_does_not_run(tmp_path: Path, tiny_policy: Maker) -> None:
    marker = tmp_path / "ran"
    evil = pickle.dumps(Bomb(marker))
    path = save(tmp_path / "c", tiny_policy(0))
    readers: dict[str, Callable[[Path], Any]] = {
        "model.safetensors": load_policy,
        "policy.json": load_policy,
        "training_state.safetensors": checkpoints.load_training_state,
        "config.json": checkpoints.describe,
    }
    for name, read in readers.items():
        whole = (path / name).read_bytes() if (path / name).exists() else None
        (path / name).write_bytes(evil)
        with pytest.raises(ValueError, match=name):
            read(path)
        if whole is not None:
            (path / name).write_bytes(whole)
    (tmp_path / "evil.pt").write_bytes(evil)
    with pytest.raises(UserError, match=r"evil\.pt is a file"):
        lookup.resolve(str(tmp_path / "evil.pt"), tmp_path)
    assert not marker.exists()


def test_truncated_training_states_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    training_state.write({"x": torch.rand(100)}, path)
    whole = path.read_bytes()
    for eighth in range(8):
        path.write_bytes(whole[: len(whole) * eighth // 8])
        with pytest.raises(files.TornFileError, match=r"s\.safetensors is not a whole"):
            training_state.read(path)


def test_best_is_the_highest_select_score(tiny_results: Path) -> None:
    trials = tables.read(tiny_results / "tiny", "trials").to_pylist()
    done = [trial for trial in trials if trial["status"] == "finished"]
    top = max(trial["select_score"] for trial in done)
    found = lookup.resolve("best", tiny_results)
    assert found.trial_dir is not None
    (row,) = [trial for trial in done if trial["trial"] == found.trial_dir.name]
    assert row["select_score"] == top
    assert (found.sweep, found.step) == ("tiny", 500)
    assert found.policy_hash == row["policy_hash"]
    assert "of 3 finished trials" in found.note


def test_a_tie_is_said_and_settled_by_id(tiny_results: Path) -> None:
    for path in (tiny_results / "tiny" / "trials").iterdir():
        for rows in path.glob("episodes/*"):
            rows.unlink()
        status = files.read_json(path / "status.json")
        files.write_json({**status, "select_score": 0.5}, path / "status.json")
    found = lookup.resolve("best", tiny_results)
    first = min(path.name for path in (tiny_results / "tiny" / "trials").iterdir())
    assert found.trial_dir is not None
    assert found.trial_dir.name == first
    assert "3 tie, the first by id is taken" in found.note


def test_trials_and_paths_resolve(tiny_results: Path, tmp_path: Path, tiny_policy: Maker) -> None:
    trial = sorted((tiny_results / "tiny" / "trials").iterdir())[0]
    for spec in (trial.name, str(trial), str(trial / "checkpoints" / "best")):
        found = lookup.resolve(spec, tiny_results)
        assert (found.trial_dir, found.sweep) == (trial, "tiny"), spec
    start = trial.name[:6]
    with pytest.raises(UserError, match=f"'{start}' could be 2 trials .*give more of it"):
        lookup.resolve(start, tiny_results)
    elsewhere = save(tmp_path / "mine", tiny_policy(4), step=9)
    found = lookup.resolve(str(elsewhere), tiny_results)
    assert (found.sweep, found.trial_dir, found.step) == (None, None, 9)


def test_an_unambiguous_start_of_a_trial_is_enough(tiny_results: Path) -> None:
    plan = tiny_results / "tiny" / "plan.json"
    content = files.read_json(plan)
    (alone,) = [t for t in content["trials"] if (t["arm"], t["train_seed"]) == ("explicit", 0)]
    files.write_json({**content, "trials": [alone]}, plan)  # its second training seed never was
    found = lookup.resolve(alone["config_hash"][:8], tiny_results)
    assert found.config_hash == alone["config_hash"]


@pytest.mark.parametrize(
    ("spec", "sweep", "message"),
    [
        ("nothing", None, "no folder and no trial of any sweep"),
        ("best", "other", "there is no sweep other under .*; there are: tiny"),
        ("best", "../tiny", "a sweep's name is"),
        ("", None, "given nothing"),
        ("/no/such/folder", None, "is missing"),
        (".", None, "and . has none"),
        ("evil\n\x1b[31m", None, "no folder and no trial"),
    ],
)
def test_what_does_not_resolve_is_said(
    tiny_results: Path, spec: str, sweep: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        lookup.resolve(spec, tiny_results, sweep)


def test_best_without_a_finished_trial(tiny_results: Path, tmp_path: Path) -> None:
    for path in (tiny_results / "tiny" / "trials").iterdir():
        files.write_json({"status": "running"}, path / "status.json")
    with pytest.raises(UserError, match="none of the 4 trials of sweep tiny is one"):
        lookup.resolve("best", tiny_results)
    with pytest.raises(UserError, match="a sweep is needed"):
        lookup.resolve("best", tmp_path / "empty")


def test_a_link_out_of_the_results_is_not_followed(tiny_results: Path, tmp_path: Path) -> None:
    trial = sorted((tiny_results / "tiny" / "trials").iterdir())[0]
    moved = tmp_path / "outside"
    (trial / "checkpoints").rename(moved)
    (trial / "checkpoints").symlink_to(moved)
    with pytest.raises(UserError, match="links to a place outside its trial"):
        lookup.resolve(trial.name, tiny_results)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path, tiny_policy: Maker) -> None:
    path = save(tmp_path, tiny_policy(0))
    files.write_json({**checkpoints.describe(path), "version": 2}, path / "config.json")
    with pytest.raises(UserError, match="version 2 and this program reads up to 1"):
        checkpoints.describe(path)


def test_what_another_tool_has_saved_is_named(tmp_path: Path) -> None:
    for name in ("x.ckpt", "x.zip", "folder/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name, option in (
        ("x.ckpt", "FILE.py:factory"),
        ("x.zip", "harness.evaluation.adapters:stable_baselines3"),
        ("folder", "harness.evaluation.adapters:lerobot"),
    ):
        with pytest.raises(UserError, match=f"--policy {option} --policy-arg path="):
            lookup.resolve(str(tmp_path / name), tmp_path)

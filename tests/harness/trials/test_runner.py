"""One trial for real, on made-up demonstrations: small, but nothing is replaced by a mock."""

import json
import math
import shutil

import pytest

from harness.config import trial_config
from harness.config.protocol import Protocol
from harness.core import paths
from harness.core.errors import UserError
from harness.storage import checkpoints, table_schemas
from harness.storage.trial_folder import TrialFolder
from harness.trials import runner
from harness.trials.runner import RolloutError, run_trial
from ibc.policies.ensemble import EnsemblePolicy
from ibc.policies.factory import load_policy
from ibc.training.nonfinite import NonFiniteError
from ibc.training.trainer import Trainer

TINY = {
    "policy.obs_mode": "state",
    "policy.energy.width": 8,
    "policy.energy.depth": 1,
    "policy.encoder.state_width": 8,
    "policy.negatives.count": 4,
    "policy.inference.samples": 4,
    "policy.inference.iterations": 1,
    "train.steps": 12,
    "train.epoch_steps": 3,
    "train.batch_size": 8,
    "train.warmup_steps": 2,
    "train.val_windows": 8,
    "select.seeds": 2,
}
TIMES = {"seconds", "samples_per_second"}


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    monkeypatch.setattr(runner, "PROTOCOL", Protocol(max_episode_steps=6))


@pytest.fixture(scope="module")
def data(write_demos, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demos.zarr"
    write_demos(path, lengths=(20, 15, 25))
    return path


@pytest.fixture
def tiny():
    return trial_config.resolve(TINY)


def curves(directory):
    rows = table_schemas.read_file(directory / "curves.parquet", "curves").to_pylist()
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def episodes(directory):
    rows = [
        row
        for path in sorted((directory / "episodes").glob("*.parquet"))
        for row in table_schemas.read_file(path, "episodes").to_pylist()
    ]
    return [{k: v for k, v in row.items() if not k.endswith("_ms")} for row in rows]


def weights(directory, name):
    return checkpoints.weights_hash(directory / "checkpoints" / name)


def test_a_trial_leaves_everything_that_is_promised(tiny, data, tmp_path):
    heard = []
    info = {"question": "q", "arm": "a"}
    result = run_trial(tiny, tmp_path, heard.append, demos=data, train_seed=3, info=info)
    assert [m["step"] for m in heard] == [3, 6, 9, 12]
    assert {m["steps"] for m in heard} == {12}
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["config"] == trial_config.to_dict(tiny)
    assert described["config_hash"] == trial_config.config_hash(tiny)
    assert (described["train_seed"], described["question"], described["arm"]) == (3, "q", "a")
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["attempts"], status["step"]) == ("finished", 1, 12)
    assert status["samples_per_second"] > 0
    assert status["versions"]["torch"]
    assert status["dataset_fingerprint"]
    assert len(curves(tmp_path)) == 4
    rows = episodes(tmp_path)
    assert [row["env_seed"] for row in rows] == [200000, 200001]
    assert {row["checkpoint_step"] for row in rows} == {12}
    assert {row["policy_hash"] for row in rows} == {weights(tmp_path, "best")}
    assert result["select_score"] == pytest.approx(sum(row["score"] for row in rows) / 2)
    assert (result["best_step"], result["step"]) == (12, 12)
    assert isinstance(json.loads((tmp_path / "health.json").read_text()), list)
    assert not (tmp_path / "error.txt").exists()


def test_a_finished_trial_is_not_run_again(tiny, data, tmp_path, monkeypatch):
    first = run_trial(tiny, tmp_path, demos=data)
    monkeypatch.setattr(Trainer, "run_epoch", None)
    assert run_trial(tiny, tmp_path, demos=data) == first


def test_weights_of_another_trial_act_as_if_trained_anew(tiny, data, tmp_path, monkeypatch):
    search = {"policy.inference.sampler": "dfo", "policy.inference.readout": "argmax"}
    acting = trial_config.resolve(TINY, search, {"select.seeds": 3})
    run_trial(tiny, tmp_path / "trained", demos=data)
    run_trial(acting, tmp_path / "anew", demos=data)
    other_seed = run_trial(acting, tmp_path / "b", demos=data, train_seed=1, weights_of="trained")
    assert "weights_of" not in other_seed  # it trained what the other had not
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", None)
        taken = run_trial(acting, tmp_path / "taken", demos=data, weights_of="trained")
    assert (taken["status"], taken["weights_of"]) == ("finished", "trained")
    for name in ("last", "best"):
        assert weights(tmp_path / "taken", name) == weights(tmp_path / "anew", name)
    assert episodes(tmp_path / "taken") == episodes(tmp_path / "anew")
    ours, anew = (curves(tmp_path / name) for name in ("taken", "anew"))
    assert ours[-1] == anew[-1]
    for row, expected in zip(ours, anew, strict=True):
        assert row["val_loss"] == expected["val_loss"]
    assert {row["val_readout_error_px"] for row in ours[:-1]} == {None}


@pytest.mark.parametrize("epochs", [2, slow(1), slow(4)])
def test_a_trial_that_was_stopped_ends_like_one_that_was_not(tiny, data, tmp_path, epochs):
    selecting = trial_config.resolve(TINY, {"select.every": 6})
    undisturbed, stopped = tmp_path / "a", tmp_path / "b"
    run_trial(selecting, undisturbed, demos=data)
    heard = []

    def stop(metrics):
        heard.append(metrics)
        if len(heard) == epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(selecting, stopped, stop, demos=data)
    assert json.loads((stopped / "status.json").read_text())["status"] == "running"
    run_trial(selecting, stopped, heard.append, demos=data)
    assert [m["step"] for m in heard] == [3, 6, 9, 12]
    assert curves(stopped) == curves(undisturbed)
    assert episodes(stopped) == episodes(undisturbed)
    for name in ("best", "last"):
        assert weights(stopped, name) == weights(undisturbed, name)
    assert json.loads((stopped / "status.json").read_text())["attempts"] == 2


def test_a_trial_that_pauses_goes_on_to_the_bit(data, tmp_path):
    selecting = trial_config.resolve(TINY, {"select.every": 4})  # due at 6, 9 and 12
    undisturbed, paused = tmp_path / "a", tmp_path / "b"
    run_trial(selecting, undisturbed, demos=data)
    heard = []
    for until, step in ((1, 6), (6, 6), (7, 9)):
        result = run_trial(selecting, paused, heard.append, demos=data, until=until)
        status = json.loads((paused / "status.json").read_text())
        assert (result["status"], result["step"]) == ("stopped", step)
        assert (status["status"], status["step"], status["attempts"]) == ("stopped", step, 1)
        assert status["select_score"] == result["select_score"]
        assert {row["checkpoint_step"] for row in episodes(paused)} == {6, step}
        assert "finished" not in status
    assert not (paused / "health.json").exists()
    result = run_trial(selecting, paused, heard.append, demos=data, until=99)
    assert result["status"] == "finished"
    assert [m["step"] for m in heard] == [3, 6, 9, 12]
    assert json.loads((paused / "status.json").read_text())["attempts"] == 1
    assert curves(paused) == curves(undisturbed)
    assert episodes(paused) == episodes(undisturbed)
    for name in ("best", "last"):
        assert weights(paused, name) == weights(undisturbed, name)
    # A finished trial is finished, whatever its search asks for.
    assert run_trial(selecting, paused, demos=data, until=1) == result


def test_rollouts_come_when_asked_and_the_best_is_kept(data, tmp_path, monkeypatch):
    scores = iter([0.3, 0.6, 0.6, 0.1])

    def rollouts(self, trainer, policy_hash):
        score = next(scores)
        row = {"checkpoint_step": trainer.step, "policy_hash": policy_hash, "env_seed": 200000}
        return [{**row, "score": score, "success": False}]

    monkeypatch.setattr(runner._Run, "rollouts", rollouts)
    often = trial_config.resolve(TINY, {"select.every": 4})
    result = run_trial(often, tmp_path, demos=data)
    # The first epoch's end at or after 4, 8 and 12; the end counts once.
    assert [row["checkpoint_step"] for row in episodes(tmp_path)] == [6, 9, 12]
    assert (result["best_step"], result["select_score"]) == (9, 0.6)
    assert checkpoints.describe(tmp_path / "checkpoints/best")["step"] == 9


def test_a_failure_keeps_its_traceback_and_the_next_attempt_goes_on(
    tiny, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner, "SAVING_SHARE", 1e9)  # a checkpoint after every epoch
    epoch, steps = Trainer.run_epoch, []

    def fails_once(self):
        if len(steps) == 2 and self.step == 6:
            steps.append(None)
            raise RuntimeError("a hiccup\x1b[31m\nof the machine")
        steps.append(self.step)
        return epoch(self)

    monkeypatch.setattr(Trainer, "run_epoch", fails_once)
    with pytest.raises(RuntimeError, match="hiccup"):
        run_trial(tiny, tmp_path, demos=data)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "failed"
    assert status["error"] == "RuntimeError: a hiccup\\x1b[31m of the machine"
    assert "in fails_once" in (tmp_path / "error.txt").read_text()
    run_trial(tiny, tmp_path, demos=data)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["attempts"], status["error"]) == ("finished", 2, None)
    assert not (tmp_path / "error.txt").exists()
    assert steps == [0, 3, None, 6, 9]


def test_a_loss_that_is_not_finite_fails_the_trial_at_once(tiny, data, tmp_path, monkeypatch):
    epoch, steps = Trainer.run_epoch, []

    def overflows_after_the_first(self):
        steps.append(self.step)
        if self.step:
            next(iter(self.policy.parameters())).data.fill_(math.nan)
        return epoch(self)

    monkeypatch.setattr(Trainer, "run_epoch", overflows_after_the_first)
    with pytest.raises(NonFiniteError):
        run_trial(tiny, tmp_path, demos=data)
    assert steps == [0, 3]
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "failed"
    assert status["error"].startswith("NonFiniteError: ")
    assert "best_step" not in status


def test_a_rollout_that_fails_never_becomes_best(tiny, data, tmp_path, monkeypatch):
    real = runner.evaluate_block

    def one_fails(policy, seeds, protocol):
        rows = real(policy, seeds, protocol)
        return [*rows[:-1], {**rows[-1], "error": "the action of step 3 is (nan, 0)"}]

    monkeypatch.setattr(runner, "evaluate_block", one_fails)
    with pytest.raises(RolloutError, match="seed 200001 failed: the action of step 3 is"):
        run_trial(tiny, tmp_path, demos=data)
    assert checkpoints.find(tmp_path / "checkpoints", "best") is None


def named(directory):
    return {finding["name"] for finding in json.loads((directory / "health.json").read_text())}


WIRING = {
    "the checkpoint is not what was trained",
    "the oldest frame is used instead of the newest",
    "the action of a past frame is executed",
    "validation uses other episodes than it says",
    "stale normaliser",
    "a width that nothing reads",
    "inputs are scaled otherwise",
}


@pytest.mark.parametrize("full", [False, True])
def test_a_failure_keeps_the_curves_up_to_it(tiny, data, tmp_path, monkeypatch, full):
    """Curves of short epochs are written together, but what failed is to be looked at."""
    epoch = Trainer.run_epoch

    def fails(self):
        if self.step == 9:
            if full:
                monkeypatch.setattr(TrialFolder, "write_curves", no_space)
            raise RuntimeError("a hiccup")
        return epoch(self)

    def no_space(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "RECORDING_SHARE", 0.0)  # nothing is due after the first epoch
    monkeypatch.setattr(Trainer, "run_epoch", fails)
    with pytest.raises(RuntimeError, match="hiccup"):
        run_trial(tiny, tmp_path, demos=data)
    assert [row["step"] for row in curves(tmp_path)] == ([3] if full else [3, 6, 9])
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["error"]) == ("failed", "RuntimeError: a hiccup")


def test_a_failure_in_the_first_epoch_has_no_curves(tiny, data, tmp_path, monkeypatch):
    def fails(self):
        raise RuntimeError("a hiccup")

    monkeypatch.setattr(Trainer, "run_epoch", fails)
    with pytest.raises(RuntimeError, match="hiccup"):
        run_trial(tiny, tmp_path, demos=data)
    assert not (tmp_path / "curves.parquet").exists()


def test_a_swallowed_failure_to_save_is_named(tiny, data, tmp_path, monkeypatch):
    run_trial(tiny, tmp_path / "healthy", demos=data)
    assert WIRING.isdisjoint(named(tmp_path / "healthy"))
    real, calls = checkpoints.save, []

    def full_disk(*given, **more):
        calls.append(given)
        if len(calls) == 1:
            return real(*given, **more)
        return None  # OSError: no space left on device

    monkeypatch.setattr(runner, "SAVING_SHARE", 1e9)
    monkeypatch.setattr(checkpoints, "save", full_disk)
    run_trial(tiny, tmp_path / "swallowed", demos=data)
    assert len(calls) > 2
    assert named(tmp_path / "swallowed") & WIRING == {"the checkpoint is not what was trained"}


def test_wrong_wiring_is_known_before_the_training_ends(tiny, data, tmp_path, monkeypatch):
    class NewestFirst(runner.windows.Windows):
        def batch(self, indices):
            found = super().batch(indices)
            return {k: v if k == "action" else v[:, ::-1].copy() for k, v in found.items()}

    def stop(metrics):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.windows, "Windows", NewestFirst)
    with pytest.raises(KeyboardInterrupt):
        run_trial(tiny, tmp_path, stop, demos=data)
    assert named(tmp_path) == {"the oldest frame is used instead of the newest"}


def test_a_folder_is_one_trials_on_one_data_set(tiny, data, tmp_path, write_demos):
    run_trial(tiny, tmp_path / "a", demos=data)
    with pytest.raises(UserError, match="must be new or hold the trial of train_seed 1"):
        run_trial(tiny, tmp_path / "a", demos=data, train_seed=1)
    with pytest.raises(UserError, match="must be new or hold the trial of config_hash"):
        run_trial(trial_config.resolve(TINY, {"train.steps": 13}), tmp_path / "a", demos=data)
    write_demos(tmp_path / "other.zarr", lengths=(20, 15, 25), seed=1)
    with pytest.raises(UserError, match="must go on with the data it began with"):
        run_trial(tiny, tmp_path / "a", demos=tmp_path / "other.zarr")


@pytest.mark.parametrize(
    ("lost", "early"),
    [("checkpoints/best", True), ("episodes", False), ("episodes", True), ("checkpoints", False)],
)
def test_what_a_finished_trial_has_lost_is_made_again(data, tmp_path, monkeypatch, lost, early):
    """`early`: the best policy is not the last, so that only training anew brings it back."""
    scores = {6: 0.9 if early else 0.1, 12: 0.5}

    def rollouts(self, trainer, policy_hash):
        row = {"checkpoint_step": trainer.step, "policy_hash": policy_hash, "env_seed": 200000}
        return [{**row, "score": scores[trainer.step], "success": False}]

    monkeypatch.setattr(runner._Run, "rollouts", rollouts)
    selecting = trial_config.resolve(TINY, {"select.every": 6})
    first = run_trial(selecting, tmp_path, demos=data)
    assert first["best_step"] == (6 if early else 12)
    kept = weights(tmp_path, "best"), curves(tmp_path), episodes(tmp_path)
    folder = TrialFolder(tmp_path)
    assert not folder.lost(folder.read_status())
    shutil.rmtree(tmp_path / lost)
    assert folder.lost(folder.read_status())
    again = run_trial(selecting, tmp_path, demos=data)
    assert (again["best_step"], again["select_score"]) == (
        first["best_step"],
        first["select_score"],
    )
    if lost != "episodes" or early:
        assert (weights(tmp_path, "best"), curves(tmp_path), episodes(tmp_path)) == kept
    assert not folder.lost(folder.read_status())
    assert json.loads((tmp_path / "status.json").read_text())["attempts"] == 2


@pytest.mark.parametrize("share", [0.5, slow(0.0), slow(0.9)])
def test_a_torn_checkpoint_is_set_aside_and_the_work_done_again(tiny, data, tmp_path, share):
    undisturbed, torn = tmp_path / "a", tmp_path / "b"
    run_trial(tiny, undisturbed, demos=data)
    shutil.copytree(undisturbed, torn)
    folder = TrialFolder(torn)
    folder.state = {**folder.read_status(), "status": "running"}
    folder.write_status()
    state = torn / "checkpoints/last/training_state.safetensors"
    state.write_bytes(state.read_bytes()[: int(state.stat().st_size * share)])
    run_trial(tiny, torn, demos=data)
    assert weights(torn, "best") == weights(undisturbed, "best")
    assert curves(torn) == curves(undisturbed)


def test_a_trial_waits_for_the_one_before_to_die(tiny, data, tmp_path):
    folder = TrialFolder(tmp_path)
    with (
        folder.lock(),
        pytest.raises(UserError, match="one process at a time"),
        folder.lock(patience=0.2),
    ):
        pass
    with folder.lock(patience=0.0):
        pass


def test_an_ensemble_is_trained_and_probed_like_one_policy(tmp_path):
    tiny = {"train.steps": 8, "train.epoch_steps": 4, "train.warmup_steps": 2, "select.seeds": 2}
    tiny |= {"train.batch_size": 16, "train.val_windows": 16, "policy.energy.width": 16}
    config = trial_config.resolve(tiny, {"policy.members": 2})
    result = run_trial(config, tmp_path / "trial", demos=paths.DATA / "expert.zarr")
    assert result["status"] == "finished"
    policy = load_policy(tmp_path / "trial/checkpoints/best")
    assert isinstance(policy, EnsemblePolicy)
    assert len(policy.policies) == 2

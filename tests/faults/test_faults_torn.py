"""Files cut short or with a byte flipped: noticed by name, done again, never a wrong number."""

import json
import logging
import random
import re
import shutil

import pytest

from harness.config import protocol, trial_config
from harness.core import files
from harness.core.errors import UserError
from harness.storage import checkpoints, lookup, table_schemas, tables
from harness.sweep.folder import SweepFolder
from harness.trials import runner
from harness.trials.runner import run_trial
from ibc.policies.factory import load_policy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

CURVES, SELECTION = "curves.parquet", "episodes/select-00000008.parquet"
JSON = ("config.json", "status.json", "health.json")
STATE = "checkpoints/last/training_state.safetensors"
BEST = [f"checkpoints/best/{name}" for name in ("config.json", "policy.json", "model.safetensors")]
SCORES = ("select_score", "select_score_low", "select_score_high", "select_n", "report_score")


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    monkeypatch.setattr(runner, "PROTOCOL", protocol.Protocol(max_episode_steps=6))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data, tiny_settings):
    """A sweep of one finished trial; it is copied, not changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "PROTOCOL", protocol.Protocol(max_episode_steps=6))
        sweep = tmp_path_factory.mktemp("torn") / "sweep"
        settings = trial_config.resolve(tiny_settings)
        name = trial_config.trial_id(trial_config.config_hash(settings), 0)
        run_trial(settings, sweep / "trials" / name, demos=tiny_data, info={"arm": "a"})
        entry = files.read_json(sweep / "trials" / name / "config.json")
        files.write_json({"schema": 1, "sweep": "sweep", "trials": [entry]}, sweep / "plan.json")
    return sweep


@pytest.fixture
def torn(finished, tmp_path):
    """A copy of that sweep, and its trial's folder."""
    sweep = shutil.copytree(finished, tmp_path / "sweep")
    (folder,) = (sweep / "trials").iterdir()
    return sweep, folder


def cut(path, eighth):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * eighth // 8])


def again(folder, data, settings):
    """Begin the trial again as a sweep does that found it unfinished."""
    run_trial(trial_config.resolve(settings), folder, demos=data, info={"arm": "a"})


@pytest.mark.parametrize("name", [CURVES, SELECTION, *JSON])
@pytest.mark.parametrize("eighth", range(8))
def test_a_cut_file_of_a_trial_is_set_aside_by_name(torn, finished, caplog, name, eighth):
    sweep, folder = torn
    cut(folder / name, eighth)
    with caplog.at_level(logging.WARNING), files.lock(sweep / ".lock"):
        (row,) = tables.read(sweep, "trials").to_pylist()
        curves, episodes = (tables.read(sweep, kind) for kind in ("curves", "episodes"))
    assert f"{name.rpartition('/')[2]} is torn" in caplog.text
    assert (folder / f"{name}.torn").exists()
    (right,) = tables.read(finished, "trials").to_pylist()
    # What is shown is what was measured, or nothing.
    assert all(row[key] in (right[key], None) for key in SCORES)
    assert row["config_hash"] == right["config_hash"]
    if name in ("config.json", "status.json"):
        assert row["status"] == "pending"
    assert curves.num_rows == (0 if name == CURVES else 4)
    assert episodes.num_rows == (2 if name == SELECTION else 4)


@pytest.mark.parametrize("name", ["config.json", "status.json", STATE, CURVES, SELECTION])
@pytest.mark.parametrize("eighth", [0, 3, 7])
def test_a_trial_with_a_cut_file_is_done_again_to_the_same_end(
    torn, finished, tiny_data, tiny_settings, numbers_of, name, eighth
):
    _, folder = torn
    status = files.read_json(folder / "status.json")
    files.write_json({**status, "status": "running"}, folder / "status.json")
    cut(folder / name, eighth)
    again(folder, tiny_data, tiny_settings)
    (undisturbed,) = (finished / "trials").iterdir()
    assert numbers_of(folder) == numbers_of(undisturbed)


@pytest.mark.parametrize("name", [*JSON, CURVES, SELECTION, *BEST])
def test_a_finished_trial_with_a_cut_file_is_repaired_in_one_run(
    torn, finished, tiny_data, tiny_settings, numbers_of, name
):
    """The sweep counts it as not done, whatever file it is, and then counts and table agree."""
    sweep, folder = torn
    cut(folder / name, 4)
    owner = SweepFolder(sweep)
    with owner.lock():
        before = owner.statuses()
        assert before.get(folder.name, {}).get("status") in ("lost", None)
        assert list(folder.rglob("*.torn"))
        again(folder, tiny_data, tiny_settings)
        assert owner.statuses()[folder.name]["status"] == "finished"
        (row,) = tables.read(sweep, "trials").to_pylist()
    (undisturbed,) = (finished / "trials").iterdir()
    assert numbers_of(folder) == numbers_of(undisturbed)
    (right,) = tables.read(finished, "trials").to_pylist()
    assert {key: row[key] for key in (*SCORES, "status", "health")} == {
        key: right[key] for key in (*SCORES, "status", "health")
    }


@pytest.mark.parametrize("eighth", range(8))
def test_a_cut_plan_is_set_aside_and_what_is_finished_stays(torn, caplog, eighth):
    sweep, _ = torn
    cut(sweep / "plan.json", eighth)
    with caplog.at_level(logging.WARNING), files.lock(sweep / ".lock"):
        (row,) = tables.read(sweep, "trials").to_pylist()
    assert "plan.json is torn" in caplog.text
    assert (row["status"], row["arm"]) == ("finished", "a")
    assert SweepFolder(sweep).plan() == {}


@pytest.mark.parametrize("name", ["model.safetensors", "policy.json", "config.json"])
@pytest.mark.parametrize("eighth", range(8))
def test_a_cut_checkpoint_is_refused_by_name(torn, name, eighth):
    sweep, folder = torn
    path = folder / "checkpoints/best" / name
    cut(path, eighth)
    with pytest.raises(ValueError, match=name):
        load_policy(lookup.resolve(folder.name, sweep.parent, "sweep").path)
    assert path.exists()


def flips(path, count):
    """Yield the positions of bytes to flip, spread over the file, and the bits of each."""
    size = path.stat().st_size
    chance = random.Random(path.name)
    for k in range(count):
        yield chance.randrange(size * k // count, max(size * (k + 1) // count, 1)), 1 << k % 8


def test_a_flipped_byte_in_a_table_is_noticed_or_harmless(torn):
    _, folder = torn
    noticed = 0
    for name, kind in ((CURVES, "curves"), (SELECTION, "episodes")):
        path = folder / name
        whole = path.read_bytes()
        right = table_schemas.read_file(path, kind).to_pylist()
        for place, bit in flips(path, 150):
            broken = bytearray(whole)
            broken[place] ^= bit
            path.write_bytes(broken)
            try:
                read = table_schemas.read_file(path, kind).to_pylist()
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017
                noticed += 1
                continue
            assert len(read) == len(right)
            for row, before in zip(read, right, strict=True):
                # A byte of a column's name loses the column: what it held is not there then.
                wrong = {k for k in before if row.get(k) not in (None, before[k])}
                assert not wrong, (name, place, bit, wrong)
    assert noticed > 100


def test_a_flipped_byte_in_weights_or_a_training_state_is_noticed(torn):
    sweep, folder = torn
    readers = {
        "checkpoints/best/model.safetensors": lambda: lookup.resolve(
            folder.name, sweep.parent, "sweep"
        ),
        STATE: lambda: checkpoints.load_training_state(folder / "checkpoints/last"),
    }
    for name, read in readers.items():
        path = folder / name
        whole = path.read_bytes()
        read()
        for place, bit in flips(path, 60):
            broken = bytearray(whole)
            broken[place] ^= bit
            path.write_bytes(broken)
            with pytest.raises(UserError, match=re.escape(str(path.parent))):
                read()
        path.write_bytes(whole)


def test_a_flipped_byte_in_a_status_changes_no_score(torn, finished):
    """The status has no checksum: a score comes from the episodes, whatever it says."""
    sweep, folder = torn
    (right,) = tables.read(finished, "trials").to_pylist()
    path = folder / "status.json"
    whole = path.read_bytes()
    place = whole.index(b'"select_score": ') + len(b'"select_score": 0.')
    path.write_bytes(whole[:place] + b"99" + whole[place + 2 :])
    assert json.loads(path.read_bytes())["select_score"] != right["select_score"]
    (row,) = tables.read(sweep, "trials").to_pylist()
    assert {key: row[key] for key in SCORES} == {key: right[key] for key in SCORES}

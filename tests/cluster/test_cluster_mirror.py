"""A mirror and its store: what goes up in which order, what comes down, and who is believed."""

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from harness.core.errors import UserError
from harness.core.files import write_json
from harness.remote import lock
from harness.remote.mirror import Mirror, rank
from harness.remote.object_store import Objects, RemoteError, is_safe
from harness.storage import checkpoints, tables
from harness.storage.trial_folder import TrialFolder


class Policy:
    """Writes weights of these bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def save(self, directory: Path, /) -> None:
        (directory / "model.safetensors").write_bytes(self.content)


def write_trial(folder: Path, step: int, *, status: str = "running", attempts: int = 1) -> Path:
    """Write what a trial leaves that has come to this step."""
    trial = TrialFolder(folder)
    identity = {"config_hash": "abc", "train_seed": 0}
    write_json({**identity, "config": {}}, folder / "config.json")
    for name in ("last", "best"):
        policy = Policy(f"{name} {step}".encode())
        checkpoints.save(folder / "checkpoints", name, policy, config={}, step=step, info=identity)
    row = {"config_hash": "abc", "train_seed": 0, "env_seed": 200_000, "checkpoint_step": step}
    trial.write_selected(step, [{**row, "score": 0.5, "max_coverage": 0.5, "success": False}])
    trial.write_curves([{**identity, "epoch": step, "step": step, "train_loss": 1.0}])
    trial.write_status(status=status, attempts=attempts, step=step, best_step=step)
    return folder


@pytest.fixture
def pair(bucket, tmp_path):
    """Mirrors of one store on two machines."""
    uri = bucket()
    return [Mirror(uri, path=tmp_path / name) for name in ("here", "there")]


def began(mirror: Mirror, step: int = 10, **status: Any) -> Path:
    """Put a sweep with one trial into a mirror, and push it."""
    write_json({"trials": []}, mirror.path / "sweep/plan.json")
    trial = write_trial(mirror.path / "sweep/trials/abc-s0", step, **status)
    mirror.push_plan("sweep")
    mirror.push_trial(trial)
    return trial


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder but locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_what_is_pushed_comes_down_elsewhere_to_the_byte(pair):
    here, there = pair
    trial = began(here)
    there.pull("sweep")
    elsewhere = there.path / "sweep/trials/abc-s0"
    # The small files alone: tables can be read, and no weights were moved for it.
    assert not list(there.path.rglob("*.safetensors"))
    assert checkpoints.find(elsewhere / "checkpoints", "best") is None
    assert tables.read(there.path / "sweep", "trials")["policy_hash"].to_pylist() == [
        checkpoints.weights_hash(trial / "checkpoints/best")
    ]
    there.pull_trial(elsewhere, whole=True)
    assert contents(elsewhere) == contents(trial)


def test_at_any_instant_a_reader_finds_all_that_a_status_promises(pair, tmp_path, monkeypatch):
    """After every write of a push, what lies in the store is read as another machine would."""
    here, _ = pair
    trial = began(here, 10)
    write_trial(trial, 20)
    seen = []

    def look(number: int) -> None:
        reader = Mirror(here.uri, path=tmp_path / f"reader-{number}")
        folder = reader.path / "sweep/trials/abc-s0"
        reader.pull("sweep")
        reader.pull_trial(folder, whole=True)
        step = TrialFolder(folder).read_status()["step"]
        for name in ("last", "best"):
            found = checkpoints.find(folder / "checkpoints", name)
            assert found is not None
            described = checkpoints.describe(found)
            assert described["step"] >= step
            assert described["policy_hash"] == checkpoints.weights_hash(found)
        assert (folder / f"episodes/select-{step:08d}.parquet").exists()
        assert max(tables.read(reader.path / "sweep", "curves")["step"].to_pylist()) >= step
        seen.append(step)

    write, delete = Objects.write, Objects.delete
    monkeypatch.setattr(
        Objects, "write", lambda self, *given: (write(self, *given), look(len(seen)))
    )
    monkeypatch.setattr(
        Objects, "delete", lambda self, *given: (delete(self, *given), look(len(seen)))
    )
    here.push_trial(trial)
    assert seen[0] == 10
    assert seen[-1] == 20
    assert sorted(seen) == seen
    assert len(seen) > 10


def test_a_push_that_is_killed_anywhere_is_completed_by_the_next(pair, tmp_path, monkeypatch):
    here, there = pair
    trial = began(here, 10)
    write = Objects.write
    for allowed in range(9):
        write_trial(trial, 20 + allowed)
        left = [allowed]

        def dying(self: Objects, key: str, content: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(self, key, content)

        monkeypatch.setattr(Objects, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            here.push_trial(trial)
        monkeypatch.setattr(Objects, "write", write)
    # Another process: nothing is known of what went up.
    fresh = Mirror(here.uri, path=here.path)
    fresh.push_trial(trial)
    folder = there.path / "sweep/trials/abc-s0"
    there.pull_trial(folder, whole=True)
    for name in ("status.json", "curves.parquet", "checkpoints/last/model.safetensors"):
        assert (folder / name).read_bytes() == (trial / name).read_bytes()
    # No weights stay behind of pushes that were cut short.
    keys = fresh.objects.list("sweep/trials/abc-s0/checkpoints")
    assert sum(key.endswith("model.safetensors") for key in keys) == 2


def test_the_copy_that_went_further_is_believed(pair):
    here, there = pair
    trial = began(here, 10)
    elsewhere = there.path / "sweep/trials/abc-s0"
    there.pull("sweep")
    write_trial(elsewhere, 30, attempts=2)
    there.push_trial(elsewhere)
    # The store knows of a second attempt: what lies here from the first gives way.
    here.pull("sweep")
    assert TrialFolder(trial).read_status()["step"] == 30
    # And what never went up is kept, and goes up later.
    write_trial(trial, 40, attempts=3, status="failed")
    here.pull("sweep")
    assert TrialFolder(trial).read_status()["step"] == 40
    here.pull("sweep", held=True)
    there.pull("sweep")
    assert TrialFolder(elsewhere).read_status() == TrialFolder(trial).read_status()


def test_states_of_a_trial_are_ordered():
    running = {"status": "running", "attempts": 1, "step": 10}
    ordered = [
        {},
        running,
        {**running, "status": "stopped"},
        {**running, "status": "finished"},
        {**running, "step": 20},
        {**running, "attempts": 2},
    ]
    assert sorted(ordered, key=rank) == ordered


def test_a_sweep_that_was_removed_from_the_store_does_not_come_back(pair, client):
    here, _ = pair
    began(here)
    name, _, prefix = here.objects.root.partition("/")
    for entry in client.list_objects_v2(Bucket=name, Prefix=prefix)["Contents"]:
        client.delete_object(Bucket=name, Key=entry["Key"])
    here.pull()
    assert not list(here.path.glob("*/plan.json"))
    aside = list(here.path.parent.glob("here.gone/sweep-*/trials/abc-s0/status.json"))
    assert len(aside) == 1


def test_names_that_would_leave_the_mirror_are_no_paths(pair, client):
    here, there = pair
    began(here)
    name, _, prefix = here.objects.root.partition("/")
    client.put_object(Bucket=name, Key=f"{prefix}/sweep/trials/x y/config.json", Body=b"{}")
    there.pull()
    for key in ("../up.json", "a/../../up.json", "/etc/passwd", "a//b", "", ".", "a\nb"):
        assert not is_safe(key)
    assert {path.name for path in (there.path / "sweep/trials").iterdir()} == {"abc-s0"}
    with pytest.raises(RemoteError, match="key is names"):
        there.objects.read("../up.json")
    # A pointer from a stranger names no file elsewhere, and what it names is compared.
    pointer = {"version": "x", "described": {}, "files": {"../../evil": "0"}}
    where = f"{prefix}/sweep/trials/abc-s0/checkpoints/best.json"
    client.put_object(Bucket=name, Key=where, Body=json.dumps(pointer).encode())
    with pytest.raises(RemoteError, match="key is names"):
        there.fetch(there.path / "sweep/trials/abc-s0")
    client.put_object(Bucket=name, Key=where, Body=b"[]")
    with pytest.raises(RemoteError, match="must name a checkpoint's files"):
        there.fetch(there.path / "sweep/trials/abc-s0")


def test_weights_that_are_not_what_was_sent_are_refused(pair, client):
    here, there = pair
    began(here)
    name, _, _ = here.objects.root.partition("/")
    keys = [key for key in here.objects.list() if key.endswith("model.safetensors")]
    for key in keys:
        client.put_object(Bucket=name, Key=f"results/{key}", Body=b"other")
    with pytest.raises(RemoteError, match="is not the file that was written there"):
        there.fetch(there.path / "sweep/trials/abc-s0")
    assert not list(there.path.rglob("*.safetensors"))


class Flaky(fs.FileSystemHandler):
    """Passes on to another system, but for the first `failures` attempts at opening a file."""

    def __init__(self, system: fs.FileSystem, failures: float) -> None:
        self.system, self.failures = system, failures

    def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise OSError("AWS Error NETWORK_CONNECTION")

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self._fail()
        return self.system.open_output_stream(path)

    def open_input_stream(self, path: str) -> Any:
        self._fail()
        return self.system.open_input_stream(path)

    def get_type_name(self) -> str:
        return "s3"

    def delete_file(self, path: str) -> None:
        self.system.delete_file(path)

    def get_file_info(self, paths: Any) -> Any:
        return self.system.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self.system.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        """A store like S3 has no folders."""

    def _unused(self, *given: Any) -> Any:
        raise NotImplementedError

    copy_file = delete_dir = delete_dir_contents = delete_root_dir_contents = _unused
    move = open_append_stream = open_input_file = normalize_path = _unused


def test_what_passes_is_tried_again_and_what_lasts_fails_the_trial_alone(pair):
    here, there = pair
    trial = began(here, 10)
    handler = Flaky(here.objects.system, 3)
    here.objects.waits = (0.0, 0.0, 0.0)
    here.objects.system = fs.PyFileSystem(handler)
    write_trial(trial, 20)
    here.push_trial(trial)
    assert handler.failures == 0
    there.pull("sweep")
    assert TrialFolder(there.path / "sweep/trials/abc-s0").read_status()["step"] == 20

    def train() -> None:
        with here.carried(trial) as push:
            handler.failures = float("inf")
            push()  # in the middle it is borne
            write_trial(trial, 30, status="finished")

    with pytest.raises(RemoteError, match=r"cannot be .*: it cannot be reached"):
        train()
    status = TrialFolder(trial).read_status()
    assert (status["status"], status["step"]) == ("failed", 30)
    assert "cannot be reached" in status["error"]
    assert checkpoints.find(trial / "checkpoints", "best") is not None
    # The store is back: what is here goes up.
    handler.failures = 0
    Mirror(here.uri, path=here.path).pull("sweep", held=True)
    there.pull("sweep")
    assert TrialFolder(there.path / "sweep/trials/abc-s0").read_status()["step"] == 30


def test_evaluations_go_up_and_come_down(pair):
    here, there = pair
    trial = began(here)
    part = trial / "episodes/eval-0001-aa-part0.parquet"
    whole = trial / "episodes/eval-0001-aa.parquet"
    shutil.copy(trial / "episodes/select-00000010.parquet", part)
    here.push_episodes(part.parent)
    part.rename(whole)
    here.push_episodes(part.parent, removed=[part])
    there.pull()
    names = {path.name for path in (there.path / "sweep/trials/abc-s0/episodes").iterdir()}
    assert names == {"select-00000010.parquet", whole.name}
    elsewhere = here.path / "evaluations/policy/episodes/eval-0001-bb.parquet"
    elsewhere.parent.mkdir(parents=True)
    shutil.copy(whole, elsewhere)
    write_json({}, elsewhere.parent.parent / "evaluation.json")
    here.push_episodes(elsewhere.parent)
    there.pull()
    assert (there.path / "evaluations/policy/evaluation.json").exists()
    assert (there.path / "evaluations/policy/episodes" / elsewhere.name).exists()


def test_a_sweep_on_a_store_is_one_drivers_at_a_time(pair, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0)
    here, there = pair
    with lock.held(here.objects, "sweep"):
        with (
            pytest.raises(UserError, match=r"by process \d+ on .*, last heartbeat \d+ s"),
            lock.held(there.objects, "sweep"),
        ):
            pass
        with lock.held(there.objects, "other"):
            pass
    with lock.held(there.objects, "sweep"):
        pass
    assert not here.objects.list("sweep")


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"machine": "elsewhere"}])
def test_a_silent_lock_is_taken_over(pair, change, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0)
    here, there = pair
    left = {"holder": "process 1 on elsewhere", "token": "x", **lock._place(), **change}
    here.objects.write("sweep/.lock.json", json.dumps(left).encode())
    if "machine" in change:  # nobody here knows whether it lives, but that it is silent
        with (
            pytest.raises(UserError, match="last heartbeat"),
            lock.held(there.objects, "sweep"),
        ):
            pass
    monkeypatch.setattr(lock, "STALE_SECONDS", -1.0)
    with lock.held(there.objects, "sweep"):
        pass


def test_a_driver_that_has_lost_its_lock_ends(pair, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    here, there = pair
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as errors.run does

    def take_over() -> None:
        there.objects.write("sweep/.lock.json", b'{"token": "x", "holder": "somebody"}')

    def drive() -> None:
        with lock.held(here.objects, "sweep"):
            take_over()
            threading.Event().wait(30)

    with pytest.raises(UserError, match="was taken by somebody"):
        drive()
    signal.signal(signal.SIGTERM, before)
    assert b"somebody" in there.objects.read("sweep/.lock.json")

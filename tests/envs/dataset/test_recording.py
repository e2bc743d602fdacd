"""Sets of demonstrations on the disk: appended to, killed in mid-write, damaged, of others."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from envs.dataset import recording, zarr_array
from envs.dataset.recording import ARRAYS, Recording, Rows
from envs.dataset.zarr_array import Array

ROOT = Path(__file__).resolve().parents[3]
SMALL = ("state", "action", "keypoint", "n_contacts")

KILLED = """
import sys
from pathlib import Path
from tests.envs.dataset.test_recording import SMALL, episode
from envs.dataset.recording import Recording
store = Recording(Path(sys.argv[1]))
while True:
    store.append(episode(store.episodes, SMALL), 20_000 + store.episodes)
    print(store.episodes, flush=True)
"""


ROWS = {name[5:]: row for name, (row, _) in ARRAYS.items() if name.startswith("data/")}


def episode(number: int, names: tuple[str, ...] = tuple(ROWS)) -> Rows:
    """Five to 70 steps that tell their episode and their step."""
    random = np.random.default_rng(number)
    length = 5 + number * 13 % 66
    rows = {n: np.zeros((length, *ROWS[n]), np.float32) for n in names}
    for name, values in rows.items():
        values[:] = 1 + number % 50
        if name != "img":
            values += random.random(values.shape, dtype=np.float32)
    return rows


def contents(path: Path) -> dict[str, np.ndarray]:
    root = zarr.open_group(path, mode="r")
    names = [f"data/{name}" for name in root["data"]] + [f"meta/{name}" for name in root["meta"]]
    return {name: root[name][:] for name in names}


def assert_holds(path: Path, count: int, names: tuple[str, ...] = tuple(ROWS)) -> None:
    """Hold the store against episodes 0 .. count - 1, as the zarr package reads it."""
    found, wanted = contents(path), [episode(k, names) for k in range(count)]
    for name in names:
        whole = np.concatenate([rows[name] for rows in wanted])
        assert np.array_equal(found[f"data/{name}"], whole), name
        assert found[f"data/{name}"].dtype == np.float32
    ends = np.cumsum([len(rows["action"]) for rows in wanted])
    assert found["meta/episode_ends"].tolist() == ends.tolist()
    assert found["meta/episode_ends"].dtype == np.int64


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three episodes of 54 steps, 20000 to 20002, in chunks of 50, without images (quick)."""
    path = tmp_path / "mine.zarr"
    recording.write(
        path, [episode(k, SMALL) for k in range(3)], range(20_000, 20_003), chunk_rows=50
    )
    return path


def test_episodes_are_appended_across_chunks_and_openings(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.zarr"
    for first in (0, 2, 4):
        opened = Recording(path)
        assert opened.episodes == first
        assert opened.seeds == list(range(20_000, 20_000 + first))
        for k in range(first, first + 2):
            opened.append(episode(k), 20_000 + k)
            assert_holds(path, k + 1)
        opened.close()
    assert opened.steps > recording.CHUNK_ROWS
    assert contents(path)["meta/seeds"].tolist() == list(range(20_000, 20_006))
    assert [file.name for file in path.parent.iterdir()] == ["mine.zarr"]
    assert not [file for file in path.rglob("*") if ".tmp-" in file.name]


def test_it_is_laid_out_as_the_recorded_set(tmp_path: Path, human_data: Path) -> None:
    store = tmp_path / "mine.zarr"
    opened = Recording(store)
    opened.append(episode(0), 20_000)
    opened.close()
    for name in ("action", "state", "keypoint", "img", "n_contacts"):
        ours, theirs = (
            json.loads((path / "data" / name / ".zarray").read_text())
            for path in (store, human_data)
        )
        ours["shape"][0] = theirs["shape"][0]
        assert ours == theirs


def test_nobody_sees_an_episode_before_the_end(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail at every single write of an append: the old set is found again, then the new one."""
    real = zarr_array.Array.resize, zarr_array.Array.put
    for fails_at in range(12):
        path = store.with_name(f"copy-{fails_at}.zarr")
        shutil.copytree(store, path)
        opened, calls = Recording(path), 0

        def resize(array: Array, length: int) -> None:
            step(lambda: real[0](array, length))

        def put(array: Array, rows: np.ndarray) -> None:
            step(lambda: real[1](array, rows))

        def step(work: Callable[[], None], at: int = fails_at) -> None:
            nonlocal calls
            calls += 1
            if calls - 1 >= at:  # from here on the process is dead
                raise KeyboardInterrupt
            work()

        with monkeypatch.context() as patched:
            patched.setattr(zarr_array.Array, "resize", resize)
            patched.setattr(zarr_array.Array, "put", put)
            with pytest.raises(KeyboardInterrupt):
                opened.append(episode(3), 20_003)
        opened.close()
        again = Recording(path)
        assert (again.episodes, again.seeds) == (3, [20_000, 20_001, 20_002])
        assert_holds(path, 3, SMALL)
        again.append(episode(3), 20_003)
        assert_holds(path, 4, SMALL)
        again.close()


def test_a_full_disk_leaves_the_set_and_can_be_tried_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Recording(store)
    for name in ("data/action", "data/state", "meta/episode_ends"):
        with monkeypatch.context() as patched:
            for method in ("put", "resize"):
                real = getattr(Array, method)

                def full(array: Array, *given: object, real: object = real, n: str = name) -> None:
                    if array.folder == store / n:
                        raise OSError(28, "No space left on device")
                    real(array, *given)  # type: ignore[operator]

                patched.setattr(Array, method, full)
                with pytest.raises(OSError, match="No space"):
                    opened.append(episode(3), 20_003)
                patched.setattr(Array, method, real)
                assert_holds(store, 3, SMALL)
    opened.append(episode(3), 20_003)
    assert_holds(store, 4, SMALL)
    opened.close()


def test_a_first_episode_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Recording(tmp_path / "mine.zarr")

    def full(array: Array, rows: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Array, "put", full)
        with pytest.raises(OSError, match="No space"):
            opened.append(episode(0), 20_000)
    assert not (tmp_path / "mine.zarr").exists()
    opened.append(episode(0), 20_000)
    opened.close()
    assert [file.name for file in tmp_path.iterdir()] == ["mine.zarr"]


@pytest.mark.faults
@pytest.mark.slow
def test_sigkill_in_mid_write_loses_nothing_that_was_finished(store: Path) -> None:
    path, random = store, np.random.default_rng(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = 0
    for _ in range(5):
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            finished = int(child.stdout.readline())
            time.sleep(random.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
            said = child.stdout.read().splitlines()
        finished = int(said[-1]) if said else finished
        again = Recording(path)
        # The one being written may have made it.
        assert again.episodes in (finished, finished + 1)
        assert_holds(path, again.episodes, SMALL)
        again.close()
    assert finished > 7
    assert [file.name for file in store.parent.iterdir()] == ["mine.zarr"]


def test_sets_with_fewer_arrays_or_uncompressed_ends_are_continued(tmp_path: Path) -> None:
    names = ("state", "action")
    recording.write(tmp_path / "a.zarr", [episode(0, names), episode(1, names)], [5, 6])
    opened = Recording(tmp_path / "a.zarr")
    opened.append(episode(2), 7)  # more arrays than the set has
    opened.close()
    assert_holds(tmp_path / "a.zarr", 3, names)
    assert opened.seeds == [5, 6, 7]
    root = zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=2)
    for name in names:
        root.create_array(f"data/{name}", data=episode(0)[name], chunks=(4, *ROWS[name]))
    root["meta/episode_ends"] = np.array([5], dtype=np.int64)
    for name in names:  # zarr's own default compressor is not Blosc
        folder = tmp_path / "b.zarr/data" / name
        shutil.rmtree(folder)
        new = Array.create(folder, ROWS[name], "<f4", 4, 5)
        new.put(episode(0)[name])
        new.resize(5)
    shutil.rmtree(tmp_path / "b.zarr/meta/episode_ends")
    root.create_array(
        "meta/episode_ends", data=np.array([5]), compressors=None, chunks=(7,), overwrite=True
    )
    opened = Recording(tmp_path / "b.zarr")
    opened.append(episode(1), 7)
    opened.close()
    assert_holds(tmp_path / "b.zarr", 2, names)
    assert opened.seeds is None


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def broken(path: Path) -> dict[str, Callable[[], object]]:
    data, meta = path / "data", path / "meta"
    state = data / "state/.zarray"
    return {
        "is neither": (path / ".zgroup").unlink,
        r"another: it lacks \['data/action'\]": lambda: shutil.rmtree(data / "action"),
        r"another: it also has \['data/vel'\]": (data / "vel").mkdir,
        "must be the metadata of an array": lambda: state.write_text("{"),
        "must be a zarr v2 array of <f4": lambda: change(state, dtype="<f8"),
        r"array of <f4 rows \(5,\)": lambda: change(state, chunks=[2**40, 5]),
        "metadata of an array: KeyError": lambda: change(state, compressor={"id2": 1}),
        "or with Blosc; got": lambda: change(state, compressor={"id": "pickle", "shuffle": 2}),
        "data/state must have 54 rows": lambda: change(state, shape=[53, 5]),
        "meta/seeds must have 3 rows": lambda: change(meta / "seeds/.zarray", shape=[2]),
        "episode_ends/0 is missing": (meta / "episode_ends/0").unlink,
        "episode_ends/0 is truncated": lambda: (meta / "episode_ends/0").write_bytes(b"x" * 30),
        r"keypoint/1\.0\.0 is truncated": lambda: (data / "keypoint/1.0.0").write_bytes(
            (data / "keypoint/1.0.0").read_bytes()[:-9]
        ),
        r"action/1\.0 is missing": (data / "action/1.0").unlink,
        "ends of episodes must increase": lambda: change(meta / "episode_ends/.zarray", shape=[5]),
    }


@pytest.mark.parametrize("said", broken(Path()))
def test_what_cannot_be_appended_to_is_refused_in_one_line(store: Path, said: str) -> None:
    broken(store)[said]()
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=said) as refused:
        Recording(store)
    assert "\n" not in str(refused.value)
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before
    assert [file.name for file in store.parent.iterdir()] == ["mine.zarr"]


def test_one_process_at_a_time(store: Path) -> None:
    first = Recording(store)
    with pytest.raises(ValueError, match=r"one process at a time appends to .*mine\.zarr"):
        Recording(store)
    first.close()
    first.close()
    Recording(store).close()


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="the folder of --out must be writable"):
        Recording(tmp_path / "file" / "mine.zarr")
    with pytest.raises(ValueError, match="is neither"):
        Recording(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_without_the_permission(store: Path) -> None:
    (store / "data/state").chmod(0o500)
    with pytest.raises(ValueError, match="must be writable"):
        Recording(store)
    store.parent.chmod(0o500)
    with pytest.raises(ValueError, match="must be writable"):
        Recording(store.parent / "b.zarr")


def test_an_episode_has_steps_and_rows_their_shape(store: Path) -> None:
    opened = Recording(store)
    with pytest.raises(ValueError, match="at least one step, got none"):
        opened.append({name: rows[:0] for name, rows in episode(0).items()}, 1)
    with pytest.raises(ValueError, match=r"rows must be \(2,\), got \(3,\)"):
        opened.append({**episode(0), "action": np.zeros((5, 3))}, 1)
    assert_holds(store, 3, SMALL)
    opened.close()

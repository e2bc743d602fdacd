"""The shared uint8 copy: exact, made once, whole or absent, small in memory."""

import json
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ibc.data import image_cache
from ibc.data.demos import check, read


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_images_are_the_stored_ones(tmp_path, write_demos, kind):
    written = write_demos(tmp_path / "a.zarr", images=kind)
    demos = read(tmp_path / "a.zarr", images=tmp_path / "cache" / "a.npy")
    assert demos.images.dtype == np.uint8
    np.testing.assert_array_equal(demos.images, written["img"])
    np.testing.assert_array_equal(np.load(tmp_path / "cache" / "a.npy"), written["img"])
    assert demos.pixels == read(tmp_path / "a.zarr").pixels
    with pytest.raises(ValueError, match="read-only"):
        demos.images[0] = 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.5, "row 17 holds 0.5; multiply by 255"),
        (-1.0, "row 17 holds -1.0"),
        (256.0, "row 17 holds 256.0"),
        (np.nan, "row 17 holds nan"),
        (np.inf, "row 17 holds inf"),
        (100.25, "row 17 holds 100.25"),
    ],
)
def test_float_images_must_be_whole_numbers(tmp_path, write_demos, value, said):
    img = np.full((26, 96, 96, 3), 7, np.float32)
    img[17, 50, 3, 1] = value
    img[20] = 0.25
    write_demos(tmp_path / "a.zarr", img=img)
    [fault] = check(tmp_path / "a.zarr")
    assert fault.startswith("data/img: images must hold the integers 0 to 255, " + said)
    for images in (None, tmp_path / "a.npy"):
        with pytest.raises(ValueError, match="data/img: images must hold the integers 0 to 255"):
            read(tmp_path / "a.zarr", images=images)
    assert not list(tmp_path.glob("a.npy")) + list(tmp_path.glob("*.tmp"))


def test_the_copy_is_made_once(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", images="uint8")
    file = tmp_path / "a.npy"
    read(tmp_path / "a.zarr", images=file)
    first = file.stat()
    read(tmp_path / "a.zarr", images=file)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


def test_a_rewritten_data_set_gets_a_new_copy_and_old_readers_keep_theirs(tmp_path, write_demos):
    old = write_demos(tmp_path / "a.zarr", images="uint8")
    before = read(tmp_path / "a.zarr", images=tmp_path / "a.npy")
    new = write_demos(tmp_path / "a.zarr", images="uint8", seed=1)
    after = read(tmp_path / "a.zarr", images=tmp_path / "a.npy")
    np.testing.assert_array_equal(after.images, new["img"])
    np.testing.assert_array_equal(before.images, old["img"])


def test_the_copy_of_another_data_set_is_not_taken(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", images="uint8")
    other = write_demos(tmp_path / "b.zarr", images="uint8", seed=1)
    read(tmp_path / "a.zarr", images=tmp_path / "one.npy")
    demos = read(tmp_path / "b.zarr", images=tmp_path / "one.npy")
    np.testing.assert_array_equal(demos.images, other["img"])


def test_a_torn_copy_is_made_again(tmp_path, write_demos):
    written = write_demos(tmp_path / "a.zarr", images="uint8")
    file = tmp_path / "a.npy"
    read(tmp_path / "a.zarr", images=file)
    whole = file.read_bytes()
    damaged = [whole[: len(whole) * n // 8] for n in range(8)]
    damaged += [whole[:-1], whole + b"!", b"no numpy file" * 100, whole[:-20] + b"\xff" * 20]
    for content in damaged:
        file.write_bytes(content)
        demos = read(tmp_path / "a.zarr", images=file)
        np.testing.assert_array_equal(demos.images, written["img"])
        assert file.read_bytes() == whole


def test_images_are_drawn_where_the_store_has_none(tmp_path, write_demos):
    written = write_demos(tmp_path / "a.zarr", lengths=(300,))
    sizes = []

    def draw(states):
        sizes.append(len(states))
        values = states[:, 0].astype(np.uint8)
        return np.broadcast_to(values[:, None, None, None], (len(states), 96, 96, 3))

    with pytest.raises(ValueError, match="data/img: is missing, and nothing was given to draw"):
        read(tmp_path / "a.zarr", images=tmp_path / "a.npy")
    demos = read(tmp_path / "a.zarr", images=tmp_path / "a.npy", render=draw)
    np.testing.assert_array_equal(
        demos.images[:, 9, 9, 2], written["state"][:, 0].astype(np.float64).astype(np.uint8)
    )
    assert demos.fingerprint == read(tmp_path / "a.zarr").fingerprint
    assert demos.pixels is None
    drawn = len(sizes)
    assert sum(sizes) == 300
    read(tmp_path / "a.zarr", images=tmp_path / "a.npy", render=draw)
    assert len(sizes) == drawn
    read(tmp_path / "a.zarr", images=tmp_path / "a.npy", render=draw, render_version="2")
    assert len(sizes) == 2 * drawn


def _open(path: Path, file: Path, barrier, results) -> None:
    barrier.wait()
    demos = read(path, images=file)
    results.put((demos.pixels, int(demos.images.sum(dtype=np.int64)), file.stat().st_ino))


def test_processes_that_start_at_once_share_one_copy(tmp_path, write_demos):
    written = write_demos(tmp_path / "a.zarr", lengths=(150, 150), images="float32", chunk=10)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (tmp_path / "a.zarr", tmp_path / "a.npy", barrier, results)
    workers = [context.Process(target=_open, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1  # the same pixels in the same file: nobody replaced it
    assert found.pop()[1] == int(written["img"].sum(dtype=np.float64))


KILLED = """
import os, signal, sys, numpy as np
from pathlib import Path
from ibc.data import image_cache
def blocks():
    for k in range(10):
        if k == 5:
            print("half", flush=True)
            signal.pause()
        yield np.full((3, 96, 96, 3), k, np.uint8)
image_cache.open_images(Path(sys.argv[1]), "source", 30, blocks)
"""


def test_a_kill_while_it_is_written_leaves_nothing_that_is_taken_for_whole(tmp_path):
    file = tmp_path / "a.npy"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not file.exists()
    images, _ = image_cache.open_images(
        file, "source", 30, lambda: iter([np.full((30, 96, 96, 3), 9, np.uint8)])
    )
    assert images.min() == images.max() == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.npy.lock"]


def test_an_error_while_it_is_written_keeps_the_old_copy(tmp_path):
    file = tmp_path / "a.npy"

    def broken():
        yield np.ones((1, 96, 96, 3), np.uint8)
        raise ValueError("a broken chunk")

    def whole():
        yield np.ones((2, 96, 96, 3), np.uint8)

    image_cache.open_images(file, "old", 2, whole)
    with pytest.raises(ValueError, match="a broken chunk"):
        image_cache.open_images(file, "new", 2, broken)
    images, _ = image_cache.open_images(file, "old", 2, broken)
    assert images.all()


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match=r"needs .* MiB, .* are free"):
        image_cache.open_images(tmp_path / "a.npy", "source", 10**10, lambda: iter([]))
    assert not list(tmp_path.glob("a.npy*tmp"))


def test_the_note_after_the_array_says_where_it_comes_from(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", images="uint8")
    demos = read(tmp_path / "a.zarr", images=tmp_path / "a.npy")
    note = (tmp_path / "a.npy").read_bytes()[-300:]
    assert json.loads(note[note.index(b'{"') :])["pixels"] == demos.pixels


PEAK = """
import resource, sys, zarr, numpy
from pathlib import Path
from ibc.data.demos import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read(sys.argv[1], images=Path(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_stays_small(tmp_path, write_demos):
    img = np.zeros((1, 96, 96, 3), np.float32)
    img = np.broadcast_to(img, (2000, 96, 96, 3))  # 211 MiB of float images
    write_demos(tmp_path / "a.zarr", lengths=(2000,), img=img, chunk=100)
    arguments = [str(tmp_path / "a.zarr"), str(tmp_path / "a.npy")]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 120

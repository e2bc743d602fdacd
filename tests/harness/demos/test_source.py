"""Which data set is used, and what is remembered of it between runs."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.core import paths
from harness.core.errors import UserError
from harness.demos import source as data


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_given_then_downloaded_then_built_in(tmp_path, write_demos):
    folder = tmp_path / "data"
    write_demos(tmp_path / "mine.zarr")
    with pytest.raises(UserError, match=r"there are no demonstrations in .*download"):
        data.resolve_source(folder=folder)
    write_demos(folder / data.BUILT_IN)
    built_in = data.resolve_source(folder=folder)
    assert (built_in.kind, built_in.paths) == ("built-in", (folder / data.BUILT_IN,))
    write_demos(folder / data.DOWNLOADED)
    assert data.resolve_source(folder=folder).kind == "downloaded"
    given = data.resolve_source(tmp_path / "mine.zarr", folder=folder)
    assert (given.kind, given.paths) == ("given", (tmp_path / "mine.zarr",))
    assert str(given) == f"demonstrations: {tmp_path / 'mine.zarr'} (given)"


def test_own_folders_hang_on_the_repository_and_given_ones_on_the_user(
    tmp_path, write_demos, monkeypatch
):
    write_demos(tmp_path / "mine.zarr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(paths.CACHE_VARIABLE)
    assert data.resolve_source("mine.zarr").paths == (tmp_path / "mine.zarr",)
    repository = Path(__file__).resolve().parents[3]
    assert repository / "data" == paths.DATA
    assert paths.cache_folder() == repository / "data" / "cache"
    own = data.Source((paths.DATA / data.BUILT_IN,), "built-in")
    assert str(own) == "demonstrations: data/expert.zarr (built-in)"


def test_several_data_sets_are_joined_in_their_order(tmp_path, write_demos):
    for name, seed in (("a", 1), ("b", 2)):
        write_demos(tmp_path / f"{name}.zarr", seed=seed)
    first, second = tmp_path / "a.zarr", tmp_path / "b.zarr"
    both = data.open_demos(data.resolve_source(first, second))
    one, two = data.open_demos(first), data.open_demos(second)
    assert np.array_equal(both.action, np.concatenate([one.action, two.action]))
    assert both.set_rows == [slice(0, len(one.action)), slice(len(one.action), len(both.action))]
    assert both.sets == (len(one.episode_ends), len(two.episode_ends))
    turned = data.open_demos(data.resolve_source(second, first))
    assert len({d.fingerprint for d in (both, turned, one, two)}) == 4
    with pytest.raises(UserError, match=r"must be another data set, given .*a.zarr twice"):
        data.resolve_source(first, first)


def test_data_sets_have_names(tmp_path, write_demos):
    write_demos(tmp_path / data.BUILT_IN)
    write_demos(tmp_path / data.DOWNLOADED)
    write_demos(tmp_path / data.CORRECTIONS)
    found = data.resolve_source("downloaded", "built-in", "corrections", folder=tmp_path)
    named = (data.DOWNLOADED, data.BUILT_IN, data.CORRECTIONS)
    assert found.paths == tuple(tmp_path / name for name in named)


def test_what_is_no_data_set(tmp_path, write_demos):
    write_demos(tmp_path / "pusht" / "inner.zarr")
    (tmp_path / "file").touch()
    for path, said in (
        ("absent.zarr", "absent.zarr does not exist"),
        ("file", "file is a file"),
        ("pusht", "has neither .zgroup nor zarr.json; did you mean .*inner.zarr?"),
        ("s3://bucket/a.zarr", "is elsewhere; fetch it first, with `aws s3 sync`"),
        (Path("hf://datasets/a/b"), "is elsewhere; fetch it first, with `hf download"),
        ("ftp://host/a.zarr", "is elsewhere; fetch it first, with the tool"),
    ):
        with pytest.raises(UserError, match=f"--data must be the folder of a zarr store, .*{said}"):
            data.resolve_source(path if ":" in str(path) else tmp_path / path)


def test_opening_remembers_the_hash_of_the_images(tmp_path, write_demos, cache):
    write_demos(tmp_path / "a.zarr", images="float32")
    first = data.open_demos(tmp_path / "a.zarr")
    [note] = cache.iterdir()
    said = json.loads(note.read_text())
    assert said["pixels"] == first.pixels
    note.write_text(json.dumps({**said, "pixels": "0" * 64}))  # is it taken from there?
    assert data.open_demos(tmp_path / "a.zarr").pixels == "0" * 64
    write_demos(tmp_path / "a.zarr", images="float32", seed=1)
    second = data.fingerprint(tmp_path / "a.zarr")
    assert second not in (first.fingerprint, "0" * 64)


def test_a_data_set_swapped_under_a_sweep_has_another_fingerprint(tmp_path, write_demos):
    arrays = write_demos(tmp_path / "a.zarr", images="uint8")
    source = data.resolve_source(tmp_path / "a.zarr")
    before = data.fingerprint(source)
    assert data.fingerprint(source) == before
    arrays["img"][7, 1, 2, 0] += 1  # a single sub-pixel of one frame
    write_demos(tmp_path / "a.zarr", **arrays)
    assert data.fingerprint(source) != before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"signature": 1}', "null"])
def test_a_torn_note_is_written_again(tmp_path, write_demos, cache, content):
    write_demos(tmp_path / "a.zarr", images="uint8")
    before = data.fingerprint(tmp_path / "a.zarr")
    [note] = cache.iterdir()
    note.write_text(content)
    assert data.fingerprint(tmp_path / "a.zarr") == before
    assert json.loads(note.read_text())["pixels"]


def test_images_are_one_file_a_data_set(tmp_path, write_demos, cache):
    for name in ("a", "b"):
        written = write_demos(tmp_path / f"{name}.zarr", images="uint8", seed=ord(name))
        for modes in ("image", ("state", "image"), "keypoints"):
            demos = data.open_demos(tmp_path / f"{name}.zarr", modes)
            assert (demos.images is not None) == ("image" in modes)
        again = data.open_demos(tmp_path / f"{name}.zarr", "image")
        np.testing.assert_array_equal(again.images, written["img"])
    assert len(list(cache.glob("*.npy"))) == 2


def test_images_and_keypoints_come_from_the_world_where_the_store_has_none(tmp_path, write_demos):
    from envs.physics.geometry import keypoints
    from envs.rendering.observations import render_observations

    written = write_demos(tmp_path / "a.zarr", keypoint=None)
    demos = data.open_demos(tmp_path / "a.zarr", "image")
    states = written["state"].astype(np.float64)
    np.testing.assert_array_equal(demos.images, render_observations(states))
    np.testing.assert_allclose(demos.keypoints, keypoints(states), atol=1e-3)
    assert demos.fingerprint == data.fingerprint(tmp_path / "a.zarr")


def test_another_way_of_drawing_draws_again(tmp_path, write_demos, monkeypatch):
    write_demos(tmp_path / "a.zarr")
    white = np.full((96, 96, 3), 255, np.uint8)
    data.open_demos(tmp_path / "a.zarr", "image")
    monkeypatch.setattr(
        "envs.rendering.observations.render_observations",
        lambda states: np.stack([white] * len(states)),
    )
    assert data.open_demos(tmp_path / "a.zarr", "image").images.min() == 255


def test_a_broken_data_set_is_refused_by_name(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", action=np.full((26, 2), np.nan))
    with pytest.raises(ValueError, match=r"a\.zarr: data/action: the numbers must be finite"):
        data.open_demos(tmp_path / "a.zarr")


def test_a_cache_folder_that_cannot_be_written(tmp_path, write_demos, monkeypatch):
    write_demos(tmp_path / "a.zarr", images="uint8")
    (tmp_path / "in-the-way").touch()
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "in-the-way"))
    for mode in ("image", "state"):
        with pytest.raises(
            UserError, match=f"the cache folder must be .*; set {paths.CACHE_VARIABLE}"
        ):
            data.open_demos(tmp_path / "a.zarr", mode)


def test_states_alone_need_no_cache(tmp_path, write_demos, cache):
    write_demos(tmp_path / "a.zarr")
    data.open_demos(tmp_path / "a.zarr")
    assert not cache.exists()


def test_importing_it_needs_no_torch_and_no_ray():
    code = (
        "import sys, harness.demos.source; "
        "print(*sorted({'torch', 'ray', 'pygame'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_the_second_look_at_the_recorded_demonstrations_is_quick(human_data):
    data.fingerprint(human_data)
    start = time.perf_counter()
    found = data.fingerprint(human_data)
    assert time.perf_counter() - start < 3  # 0.3 s on an idle core
    from harness.demos.download import FINGERPRINT

    assert found == FINGERPRINT

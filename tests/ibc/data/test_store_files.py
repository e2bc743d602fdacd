"""Where a store lies and what other tools make of one: zips, hub caches, pointers, names."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from ibc.data import layout
from ibc.data.demos import check, read, signature
from ibc.data.zarr_store import not_a_store

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


def zipped(store: Path, file: Path, prefix: str = "", **how: int) -> Path:
    with zipfile.ZipFile(file, "w", **how) as archive:
        for path in sorted(store.rglob("*")):
            archive.write(path, prefix + path.relative_to(store).as_posix())
    return file


@pytest.mark.parametrize("prefix", ["", "inner.zarr/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zip_is_read_like_its_folder(tmp_path, write_demos, prefix, compression, zarr_format):
    store = tmp_path / "a.zarr"
    write_demos(store, zarr_format=zarr_format, images="uint8")
    file = zipped(store, tmp_path / "a.zarr.zip", prefix, compression=compression)
    assert check(file) == []
    folder, archive = read(store), read(file, images=tmp_path / "images.npy")
    assert archive.fingerprint == folder.fingerprint
    assert np.array_equal(archive.images[3], zarr.open_array(store / "data/img", mode="r")[3])
    before = signature(file)
    write_demos(store, zarr_format=zarr_format, images="uint8", seed=1)
    zipped(store, file, prefix)
    assert signature(file) != before


def test_broken_zips_are_named(tmp_path, write_demos, faults_of):
    store = tmp_path / "a.zarr"
    write_demos(store, compressors=None)
    (store / "data/action/1.0").unlink()
    file = zipped(store, tmp_path / "lacking.zarr")
    assert faults_of(file)[0].startswith("data/action: 1 of 7 chunks are missing")
    write_demos(store, compressors=None)
    whole = zipped(store, tmp_path / "flipped.zarr").read_bytes()
    chunk = (store / "data/state/3.0").read_bytes()
    (tmp_path / "flipped.zarr").write_bytes(whole.replace(chunk, bytes(len(chunk))))
    assert "Bad CRC-32" in faults_of(tmp_path / "flipped.zarr")[0]
    (tmp_path / "cut.zarr").write_bytes(whole[:-30])
    assert "this is a file" in faults_of(tmp_path / "cut.zarr")[0]


def hub(folder: Path, store: Path) -> Path:
    """A store as a hub's cache has it: every file a link to a blob."""
    snapshot = folder / "snapshots" / "0" / store.name
    (folder / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in store.rglob("*") if p.is_file())):
        link = snapshot / path.relative_to(store)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "blobs" / str(number))
        link.symlink_to(folder / "blobs" / str(number))
    return snapshot


def test_links_of_a_hubs_cache_lead_to_its_blobs_alone(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr")
    found = hub(tmp_path / "hub", tmp_path / "a.zarr")
    assert check(found) == []
    assert read(found).fingerprint == read(tmp_path / "a.zarr").fingerprint
    link = found / "data/state/0.0"
    shutil.copy(link.resolve(), tmp_path / "elsewhere")
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    assert "0.0 is a link that leaves the store" in faults_of(found)[0]
    link.unlink()
    link.write_text("../../../../../blobs/5")  # what a copy without links makes of it
    assert "0.0 holds the target of a link as text" in faults_of(found)[0]


@pytest.mark.parametrize("name", ["data/state/0.0", "data/state/.zarray"])
def test_git_lfs_pointers_are_called_so(tmp_path, write_demos, name, faults_of):
    write_demos(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / name).write_text(LFS)
    [fault] = faults_of(tmp_path / "a.zarr")
    assert fault.startswith("data/state: ")
    assert fault.endswith(
        "is a Git LFS pointer, not the data: run `git lfs pull` in its repository"
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_root_group_that_is_missing_can_be_written(tmp_path, write_demos, zarr_format):
    store = tmp_path / "a.zarr"
    write_demos(store, zarr_format=zarr_format)
    name = {2: ".zgroup", 3: "zarr.json"}[zarr_format]
    (store / name).unlink()
    [fault] = check(store)
    assert f"lacks the root group, the file {name}" in fault
    (store / name).write_text(fault.partition("write ")[2].partition(" to it")[0])
    assert check(store) == []
    assert not_a_store(tmp_path) == "has neither .zgroup nor zarr.json"


def test_chunks_of_a_fill_value_are_called_so(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr")
    data = zarr.open_group(tmp_path / "a.zarr/data", mode="a")
    action = np.full((26, 2), 100.0)
    action[4:8] = 0.0
    data.create_array(name="action", data=action, chunks=(4, 2), overwrite=True)
    [fault] = faults_of(tmp_path / "a.zarr")
    assert fault.startswith("data/action: 1 of 7 chunks are missing, because the copy")
    assert "write_empty_chunks=True" in fault
    config = {"write_empty_chunks": True}  # the way out that it says
    data.create_array(name="action", data=action, chunks=(4, 2), overwrite=True, config=config)
    assert check(tmp_path / "a.zarr") == []


def test_whole_px_are_read(tmp_path, write_demos):
    action = np.arange(52).reshape(26, 2) * 9
    for kind in ("i2", "i4", "u2", "f4"):
        write_demos(tmp_path / f"{kind}.zarr", action=action.astype(kind))
    found = {read(tmp_path / f"{kind}.zarr").fingerprint for kind in ("i2", "i4", "u2", "f4")}
    assert len(found) == 1
    assert np.array_equal(read(tmp_path / "i4.zarr").action, action)


def test_images_have_two_names(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr", images="uint8")
    before = read(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/img").rename(tmp_path / "a.zarr/data/image")
    after = read(tmp_path / "a.zarr", images=tmp_path / "images.npy")
    assert after.images is not None
    assert (after.pixels, after.fingerprint) == (before.pixels, before.fingerprint)
    (tmp_path / "a.zarr/data/image/2.0.0.0").unlink()
    assert faults_of(tmp_path / "a.zarr")[0].startswith("data/image: 1 of 7 chunks are missing")


def test_chunks_of_one_image_are_decoded_many_at_once(tmp_path, write_demos):
    img = np.zeros((300, 96, 96, 3), np.uint8)
    lengths = {"lengths": (300,), "chunk": 1, "img": img, "compressors": None}
    write_demos(tmp_path / "a.zarr", **lengths)
    image = layout.survey(tmp_path / "a.zarr")[0]["data/img"]
    assert [len(block) for block in layout.pixels_of(image)] == [256, 44]


FAILING = Path(__file__).resolve().parents[4] / "shared" / "failing"


@pytest.mark.skipif(not FAILING.is_dir(), reason=f"{FAILING} is absent")
def test_inputs_of_users(tmp_path):
    plain = read(FAILING / "set.zarr.zip", keypoints=_keypoints)
    assert plain.fingerprint == read(FAILING / "plain.zarr", keypoints=_keypoints).fingerprint
    assert check(FAILING / "int_actions.zarr") == check(FAILING / "name_image.zarr") == []
    assert read(FAILING / "name_image.zarr", keypoints=_keypoints).pixels is not None
    assert "these look like degrees" in check(FAILING / "degrees.zarr")[0]
    assert all("git lfs pull" in fault for fault in check(FAILING / "lfs.zarr"))


def _keypoints(states: np.ndarray) -> np.ndarray:
    return np.zeros((len(states), 20))

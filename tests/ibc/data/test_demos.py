"""Reading, splitting and fingerprinting data sets that are right."""

from pathlib import Path

import numpy as np
import pytest
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from ibc.config.training import SplitConfig
from ibc.data.demos import Demos, check, fingerprint, read, split


def test_reads_what_was_written(tmp_path, write_demos):
    path = tmp_path / "a.zarr"
    written = write_demos(path)
    demos = read(path)
    assert demos.path == str(path)
    np.testing.assert_array_equal(demos.action, written["action"])
    np.testing.assert_array_equal(demos.state, written["state"])
    np.testing.assert_array_equal(demos.keypoints[:, :18], written["keypoint"].reshape(-1, 18))
    np.testing.assert_array_equal(demos.keypoints[:, 18:], written["state"][:, :2])
    assert demos.episode_ends.tolist() == [9, 14, 26]
    assert demos.episode_starts.tolist() == [0, 9, 14]
    assert demos.images is None
    assert demos.action.dtype == demos.keypoints.dtype == np.float32
    assert check(path) == []


def test_arrays_cannot_be_changed_by_accident(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr")
    demos = read(tmp_path / "a.zarr")
    for array in (demos.action, demos.state, demos.keypoints, demos.episode_ends):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


V3 = {"zarr_format": 3}
LAYOUTS = {
    "v2 zstd": {},
    "v2 raw": {"compressors": None},
    "v2 big-endian": {"state": np.full((26, 5), 3.5, ">f4")},
    "v2 one chunk": {"chunk": 100},
    "v3 zstd": V3,
    "v3 raw": {**V3, "compressors": None},
    "v3 blosc": {**V3, "compressors": BloscCodec(cname="zstd", shuffle="bitshuffle")},
    "v3 gzip": {**V3, "compressors": GzipCodec()},
    "v3 checked zstd": {**V3, "compressors": ZstdCodec(checksum=True)},
    "v3 shards": {**V3, "shard": 8},
    "v3 shards raw": {**V3, "shard": 12, "compressors": None},
    "v3 one shard": {**V3, "shard": 28},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_arrays_and_fingerprint(tmp_path, write_demos, layout):
    state = LAYOUTS[layout].get("state")
    plain = {} if state is None else {"state": state.astype("<f4")}
    write_demos(tmp_path / "plain.zarr", images="uint8", **plain)
    written = write_demos(tmp_path / "other.zarr", images="uint8", **LAYOUTS[layout])
    assert check(tmp_path / "other.zarr") == []
    other = read(tmp_path / "other.zarr", images=tmp_path / "other.npy")
    np.testing.assert_array_equal(other.action, written["action"])
    np.testing.assert_array_equal(other.images, written["img"])
    assert other.fingerprint == read(tmp_path / "plain.zarr").fingerprint
    assert other.fingerprint == fingerprint(tmp_path / "other.zarr")


def test_float_images_are_the_same_data_as_uint8_ones(tmp_path, write_demos):
    write_demos(tmp_path / "u.zarr", images="uint8")
    write_demos(tmp_path / "f.zarr", images="float32")
    assert fingerprint(tmp_path / "u.zarr") == fingerprint(tmp_path / "f.zarr")


@pytest.mark.parametrize("name", ["state", "action", "keypoint", "img", "episode_ends"])
def test_one_number_changes_the_fingerprint(tmp_path, write_demos, name):
    arrays = write_demos(tmp_path / "a.zarr", images="uint8")
    changed = arrays[name].copy()
    changed.flat[1] -= 1
    write_demos(tmp_path / "b.zarr", **{**arrays, name: changed})
    assert fingerprint(tmp_path / "a.zarr") != fingerprint(tmp_path / "b.zarr")


def test_no_images_is_other_data_than_images(tmp_path, write_demos):
    arrays = write_demos(tmp_path / "a.zarr", images="uint8")
    write_demos(tmp_path / "b.zarr", **{**arrays, "img": None})
    assert fingerprint(tmp_path / "a.zarr") != fingerprint(tmp_path / "b.zarr")


def test_remembered_pixels_spare_the_decoding_and_keep_the_fingerprint(tmp_path, write_demos):
    path = tmp_path / "a.zarr"
    write_demos(path, images="uint8")
    first = read(path)
    assert first.pixels is not None
    assert read(path, pixels=first.pixels).fingerprint == first.fingerprint
    assert read(path, pixels="0" * 64).fingerprint != first.fingerprint


def test_keypoints_are_computed_where_the_store_has_none(tmp_path, write_demos):
    path = tmp_path / "a.zarr"
    written = write_demos(path, keypoint=None)
    with pytest.raises(ValueError, match="data/keypoint: is missing"):
        read(path)
    demos = read(path, keypoints=lambda states: np.repeat(states[:, :1], 20, axis=1))
    np.testing.assert_array_equal(demos.keypoints[:, 7], written["state"][:, 0])


def test_float64_is_read_as_float32(tmp_path, write_demos):
    written = write_demos(tmp_path / "a.zarr", action=np.linspace(1, 500, 52).reshape(26, 2))
    action = read(tmp_path / "a.zarr").action
    np.testing.assert_array_equal(action, written["action"].astype(np.float32))


def test_a_store_in_a_linked_folder_is_read(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    assert read(tmp_path / "link.zarr").fingerprint == fingerprint(tmp_path / "a.zarr")


@pytest.fixture(scope="module")
def ten(tmp_path_factory, write_demos) -> Demos:
    path = tmp_path_factory.mktemp("ten") / "ten.zarr"
    write_demos(path, lengths=(3,) * 10)
    return read(path)


def test_split_is_disjoint_whole_and_reproducible(ten):
    for seed in range(5):
        one = split(ten, SplitConfig(val_share=0.3, split_seed=seed))
        assert len(one.val_episodes) == 3
        assert sorted(one.train_episodes + one.val_episodes) == list(range(10))
        assert one == split(ten, SplitConfig(val_share=0.3, split_seed=seed))
    assert len({split(ten, SplitConfig(0.3, s)).val_episodes for s in range(5)}) > 1


def test_split_stays_what_it_was_in_earlier_versions(ten):
    assert split(ten, SplitConfig(val_share=0.3)).val_episodes == (2, 4, 6)


def test_fewer_training_episodes_keep_the_validation_and_are_nested(ten):
    whole = split(ten, SplitConfig(val_share=0.2))
    for n in range(1, 9):
        part = split(ten, SplitConfig(val_share=0.2, train_episodes=n))
        assert part.val_episodes == whole.val_episodes
        assert len(part.train_episodes) == n
        more = split(ten, SplitConfig(val_share=0.2, train_episodes=min(8, n + 1)))
        assert set(part.train_episodes) <= set(more.train_episodes)


def test_split_without_validation_and_with_a_tiny_share(ten):
    assert split(ten, SplitConfig(val_share=0.0)).val_episodes == ()
    assert len(split(ten, SplitConfig(val_share=0.001)).val_episodes) == 1


def test_more_training_episodes_than_there_are(ten):
    with pytest.raises(ValueError, match=r"train_episodes must be 1 to 9 \(10 episodes less 1"):
        split(ten, SplitConfig(train_episodes=10))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("val_share", -0.1),
        ("val_share", 1.0),
        ("val_share", float("nan")),
        ("val_share", True),
        ("split_seed", -1),
        ("split_seed", 1.5),
        ("train_episodes", 0),
        ("train_episodes", True),
    ],
)
def test_split_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*, got {value}"):
        SplitConfig(**{field: value})


def test_one_episode_cannot_be_split(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", lengths=(7,))
    with pytest.raises(ValueError, match="train_episodes must be 1 to 0"):
        split(read(tmp_path / "a.zarr"), SplitConfig())


def test_the_recorded_demonstrations(human_data: Path):
    demos = read(human_data, pixels="not hashed here")
    assert demos.action.shape == (25650, 2)
    assert len(demos.episode_ends) == 206
    parts = split(demos, SplitConfig())
    assert (len(parts.train_episodes), len(parts.val_episodes)) == (185, 21)

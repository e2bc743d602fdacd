"""Data sets that are wrong or damaged: each fault is named by array and chunk or row."""

import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec

from ibc.data.demos import check, read


@pytest.mark.parametrize("name", ["data/action", "data/state", "meta/episode_ends"])
def test_missing_array(tmp_path, write_demos, name, faults_of):
    write_demos(tmp_path / "a.zarr", **{name.split("/")[1]: None})
    assert faults_of(tmp_path / "a.zarr") == [f"{name}: is missing"]


def test_an_absent_folder_a_file_and_a_plain_folder(tmp_path, faults_of):
    (tmp_path / "file.zarr").write_text("hello")
    (tmp_path / "plain.zarr").mkdir()
    assert faults_of(tmp_path / "absent.zarr") == ["there is no such data set"]
    for name in ("file.zarr", "plain.zarr"):
        assert "must be the folder of a zarr store" in faults_of(tmp_path / name)[0]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([9, 14, 14], "must increase from 1 on, entry 2 is 14"),
        ([9, 5, 26], "must increase from 1 on, entry 1 is 5"),
        ([0, 9, 26], "must increase from 1 on, entry 0 is 0"),
        ([-3, 9, 26], "must increase from 1 on, entry 0 is -3"),
        ([9, 14, 27], "the number of steps, 27 is past the end of 26"),
        ([9, 14, 25], "the number of steps, 25 is before the end of 26"),
    ],
)
def test_episode_ends(tmp_path, write_demos, ends, said, faults_of):
    write_demos(tmp_path / "a.zarr", episode_ends=np.array(ends))
    [fault] = faults_of(tmp_path / "a.zarr")
    assert fault.startswith("meta/episode_ends: ")
    assert said in fault


def test_no_episodes_at_all(tmp_path, write_demos, faults_of):
    empty = {"state": (0, 5), "action": (0, 2), "keypoint": (0, 9, 2)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in empty.items()}
    write_demos(tmp_path / "a.zarr", episode_ends=np.zeros(0, np.int64), **arrays)
    assert faults_of(tmp_path / "a.zarr") == [
        "meta/episode_ends: there must be at least one episode"
    ]


@pytest.mark.parametrize("name", ["state", "action", "keypoint"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(tmp_path, write_demos, name, value, faults_of):
    arrays = write_demos(tmp_path / "a.zarr")
    arrays[name][[7, 20]] = value
    write_demos(tmp_path / "a.zarr", **arrays)
    assert faults_of(tmp_path / "a.zarr") == [
        f"data/{name}: the numbers must be finite, 2 rows are not, the first is 7"
    ]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"action": np.ones((26, 3), "f4")}, "data/action: the shape must be (n, 2), got (26, 3)"),
        ({"action": np.ones(26, "f4")}, "data/action: the shape must be (n, 2), got (26,)"),
        ({"state": np.ones((26, 4), "f4")}, "data/state: the shape must be (n, 5), got (26, 4)"),
        ({"state": np.ones((26, 5), "?")}, "data/state: the type must be numeric, got '|b1'"),
        ({"state": np.ones((26, 5), "c8")}, "data/state: the type must be numeric, got '<c8'"),
        ({"episode_ends": np.array([26.0])}, "meta/episode_ends: the type must be integer or"),
        ({"episode_ends": np.array([[26]])}, "meta/episode_ends: the shape must be (n,), got"),
        ({"img": np.ones((26, 3, 96, 96), "u1")}, "data/img: the shape must be (n, 96, 96, 3)"),
        ({"img": np.ones((26, 96, 96, 3), "i1")}, "data/img: the type must be floating point or"),
        ({"keypoint": np.ones((26, 18), "f4")}, "data/keypoint: the shape must be (n, 9, 2)"),
    ],
)
def test_shape_and_type(tmp_path, write_demos, arrays, said, faults_of):
    write_demos(tmp_path / "a.zarr", **arrays)
    assert faults_of(tmp_path / "a.zarr")[0].startswith(said)


def test_different_numbers_of_rows(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr", action=np.full((25, 2), 9.0))
    [fault] = faults_of(tmp_path / "a.zarr")
    assert "same number of rows: data/action has 25, data/state has 26" in fault


def test_numbers_that_cannot_be_px(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr", action=np.linspace(-1, 1, 52).reshape(26, 2))
    write_demos(tmp_path / "b.zarr", action=np.full((26, 2), 1e300))
    assert "within 1 of 0 and look normalised" in faults_of(tmp_path / "a.zarr")[0]
    assert "at most 2048 from 0, got 1e+300" in faults_of(tmp_path / "b.zarr")[0]
    degrees = np.linspace(0, 359, 26 * 5).reshape(26, 5)
    write_demos(tmp_path / "c.zarr", state=degrees)
    assert (
        "angle is in rad, at most 31, got 359; these look like degrees"
        in (faults_of(tmp_path / "c.zarr")[0])
    )


@pytest.mark.parametrize(
    ("zarr_format", "chunk", "shown"),
    [(2, "data/state/3.0", "3.0"), (3, "data/state/c/3/0", "c/3/0")],
)
def test_a_missing_chunk_is_not_zeros(tmp_path, write_demos, zarr_format, chunk, shown, faults_of):
    write_demos(tmp_path / "a.zarr", zarr_format=zarr_format)
    (tmp_path / "a.zarr" / chunk).unlink()
    [fault] = faults_of(tmp_path / "a.zarr")
    assert fault.startswith("data/state: 1 of 7 chunks are missing")
    assert fault.endswith(f": {shown}")


def test_many_missing_chunks_are_counted(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr")
    for k in (0, 2, 4, 5):
        (tmp_path / f"a.zarr/data/action/{k}.0").unlink()
    (tmp_path / "a.zarr/meta/episode_ends/0").unlink()
    (tmp_path / "a.zarr/data/action/007.0").write_bytes(b"not a chunk's name")
    (tmp_path / "a.zarr/data/action/7.0").write_bytes(b"nor one of the grid")
    first, second = faults_of(tmp_path / "a.zarr")
    assert first.startswith("meta/episode_ends: 1 of 1 chunks are missing")
    assert second.startswith("data/action: 4 of 7 chunks are missing")
    assert second.endswith(": 0.0, 2.0, 4.0, ...")


def test_a_missing_image_chunk(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr", images="uint8")
    (tmp_path / "a.zarr/data/img/6.0.0.0").unlink()
    assert "data/img: 1 of 7 chunks are missing" in faults_of(tmp_path / "a.zarr")[0]


def test_a_part_missing_from_a_shard(tmp_path, write_demos, faults_of):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=3, shard=8)
    file = path / "data/state/c/1/0"
    content = bytearray(file.read_bytes())
    content[-36:-20] = b"\xff" * 16  # the index: two parts of 16 bytes, then 4 of checksum
    file.write_bytes(content)
    [fault] = faults_of(path)
    assert fault.startswith("data/state: chunk c/1/0, part 0/0 is missing")


def test_a_missing_shard(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr", zarr_format=3, shard=8)
    (tmp_path / "a.zarr/data/state/c/0/0").unlink()
    assert "data/state: 1 of 4 chunks are missing" in faults_of(tmp_path / "a.zarr")[0]


SMALL = {"lengths": (5, 3)}


@pytest.mark.parametrize("compressor", ["blosc", "zstd", "gzip", "zlib", "lz4", None])
def test_a_chunk_truncated_anywhere(tmp_path, write_demos, compressor, faults_of):
    import numcodecs

    codecs = {
        "blosc": numcodecs.Blosc(cname="zstd", shuffle=2),
        "zstd": numcodecs.Zstd(),
        "gzip": numcodecs.GZip(),
        "zlib": numcodecs.Zlib(),
        "lz4": numcodecs.LZ4(),
        None: None,
    }
    path = tmp_path / "a.zarr"
    write_demos(path, compressors=codecs[compressor], **SMALL)
    assert check(path) == []
    file = path / "data/state/1.0"
    whole = file.read_bytes()
    for eighth in range(8):
        file.write_bytes(whole[: len(whole) * eighth // 8])
        [fault] = faults_of(path)
        assert fault.startswith("data/state: ")
        assert "1.0" in fault or "rows 4 to 7 cannot be decoded" in fault or "rows 0 to" in fault


@pytest.mark.parametrize("shard", [None, 8])
def test_a_v3_file_truncated_anywhere(tmp_path, write_demos, shard, faults_of):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=3, shard=shard)
    file = path / "data/state/c/0/0"
    whole = file.read_bytes()
    for eighth in range(8):
        file.write_bytes(whole[: len(whole) * eighth // 8])
        said = faults_of(path)[0]
        assert said.startswith(("data/state: chunk c/0/0", "data/state: rows 0 to"))


def test_a_flipped_byte_is_an_error_where_the_codec_can_tell(tmp_path, write_demos, faults_of):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=3, compressors=GzipCodec())
    file = path / "data/state/c/2/0"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert faults_of(path)[0].startswith("data/state: chunk c/2/0 ")


@pytest.mark.parametrize("seeds", [[0, -1, 5], [0, 1, 2**32], [1, 2]])
def test_seeds(tmp_path, write_demos, seeds, faults_of):
    write_demos(tmp_path / "a.zarr")
    meta = zarr.open_group(tmp_path / "a.zarr/meta", mode="a")
    config = {"write_empty_chunks": True}
    meta.create_array(name="seeds", data=np.array(seeds), config=config)
    assert faults_of(tmp_path / "a.zarr")[0].startswith("meta/seeds: the")


def test_every_fault_is_listed_and_the_first_are_raised(tmp_path, write_demos):
    path = tmp_path / "a.zarr"
    write_demos(
        path,
        images="float32",
        state=None,
        keypoint=np.full((26, 9, 2), np.nan),
        img=np.full((26, 96, 96, 3), 0.5, "f4"),
        episode_ends=np.array([3, 2]),
    )
    (path / "data/action/0.0").unlink()
    faults = check(path)
    assert [fault.split(":")[0] for fault in faults] == [
        "data/action",
        "data/state",
        "data/keypoint",
        "meta/episode_ends",
        "data/img",
    ]
    with pytest.raises(ValueError, match="data/state: is missing"):
        read(path)

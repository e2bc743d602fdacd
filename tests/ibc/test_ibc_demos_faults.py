"""Data sets that are broken or hostile: each fault is named, none is read."""

import gzip
import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.codecs import GzipCodec

from ibc.demos import check, fingerprint, read


def edit(file: Path, **changes: Any) -> None:
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps({**metadata, **changes}))


def faults_of(path: Path) -> list[str]:
    """What `check` says; `read` and `fingerprint` must refuse with the same words."""
    faults = check(path)
    assert faults
    for reader in (read, fingerprint):
        with pytest.raises(ValueError, match="zarr: ") as refused:
            reader(path)
        assert faults[0] in str(refused.value)
    return faults


@pytest.mark.parametrize("name", ["data/action", "data/state", "meta/episode_ends"])
def test_missing_array(tmp_path, write_demos, name):
    write_demos(tmp_path / "a.zarr", **{name.split("/")[1]: None})
    assert faults_of(tmp_path / "a.zarr") == [f"{name}: is missing"]


def test_an_absent_folder_a_file_and_a_plain_folder(tmp_path):
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
def test_episode_ends(tmp_path, write_demos, ends, said):
    write_demos(tmp_path / "a.zarr", episode_ends=np.array(ends))
    [fault] = faults_of(tmp_path / "a.zarr")
    assert fault.startswith("meta/episode_ends: ")
    assert said in fault


def test_no_episodes_at_all(tmp_path, write_demos):
    empty = {"state": (0, 5), "action": (0, 2), "keypoint": (0, 9, 2)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in empty.items()}
    write_demos(tmp_path / "a.zarr", episode_ends=np.zeros(0, np.int64), **arrays)
    assert faults_of(tmp_path / "a.zarr") == [
        "meta/episode_ends: there must be at least one episode"
    ]


@pytest.mark.parametrize("name", ["state", "action", "keypoint"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(tmp_path, write_demos, name, value):
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
        ({"action": np.ones((26, 2), "i4")}, "data/action: the type must be floating point, got"),
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
def test_shape_and_type(tmp_path, write_demos, arrays, said):
    write_demos(tmp_path / "a.zarr", **arrays)
    assert faults_of(tmp_path / "a.zarr")[0].startswith(said)


def test_different_numbers_of_rows(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", action=np.full((25, 2), 9.0))
    [fault] = faults_of(tmp_path / "a.zarr")
    assert "same number of rows: data/action has 25, data/state has 26" in fault


def test_numbers_that_cannot_be_px(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", action=np.linspace(-1, 1, 52).reshape(26, 2))
    write_demos(tmp_path / "b.zarr", action=np.full((26, 2), 1e300))
    assert "within 1 of 0 and look normalised" in faults_of(tmp_path / "a.zarr")[0]
    assert "at most 2048 from 0, got 1e+300" in faults_of(tmp_path / "b.zarr")[0]


@pytest.mark.parametrize(
    ("zarr_format", "chunk", "shown"),
    [(2, "data/state/3.0", "3.0"), (3, "data/state/c/3/0", "c/3/0")],
)
def test_a_missing_chunk_is_not_zeros(tmp_path, write_demos, zarr_format, chunk, shown):
    write_demos(tmp_path / "a.zarr", zarr_format=zarr_format)
    (tmp_path / "a.zarr" / chunk).unlink()
    [fault] = faults_of(tmp_path / "a.zarr")
    assert fault.startswith("data/state: 1 of 7 chunks are missing")
    assert fault.endswith(f": {shown}")


def test_many_missing_chunks_are_counted(tmp_path, write_demos):
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


def test_a_missing_image_chunk(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", images="uint8")
    (tmp_path / "a.zarr/data/img/6.0.0.0").unlink()
    assert "data/img: 1 of 7 chunks are missing" in faults_of(tmp_path / "a.zarr")[0]


def test_a_part_missing_from_a_shard(tmp_path, write_demos):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=3, shard=8)
    file = path / "data/state/c/1/0"
    content = bytearray(file.read_bytes())
    content[-36:-20] = b"\xff" * 16  # the index: two parts of 16 bytes, then 4 of checksum
    file.write_bytes(content)
    [fault] = faults_of(path)
    assert fault.startswith("data/state: chunk c/1/0, part 0/0 is missing")


def test_a_missing_shard(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", zarr_format=3, shard=8)
    (tmp_path / "a.zarr/data/state/c/0/0").unlink()
    assert "data/state: 1 of 4 chunks are missing" in faults_of(tmp_path / "a.zarr")[0]


SMALL = {"lengths": (5, 3)}


@pytest.mark.parametrize("compressor", ["blosc", "zstd", "gzip", "zlib", "lz4", None])
def test_a_chunk_truncated_anywhere(tmp_path, write_demos, compressor):
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
def test_a_v3_file_truncated_anywhere(tmp_path, write_demos, shard):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=3, shard=shard)
    file = path / "data/state/c/0/0"
    whole = file.read_bytes()
    for eighth in range(8):
        file.write_bytes(whole[: len(whole) * eighth // 8])
        said = faults_of(path)[0]
        assert said.startswith(("data/state: chunk c/0/0", "data/state: rows 0 to"))


def test_a_flipped_byte_is_an_error_where_the_codec_can_tell(tmp_path, write_demos):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=3, compressors=GzipCodec())
    file = path / "data/state/c/2/0"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert faults_of(path)[0].startswith("data/state: chunk c/2/0 ")


@pytest.mark.parametrize("name", ["action", "img"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bomb_of_a_shape_is_refused_before_allocation(tmp_path, write_demos, name, zarr_format):
    path = tmp_path / "a.zarr"
    row_shape = {"action": [2], "img": [96, 96, 3]}[name]
    write_demos(path, zarr_format=zarr_format, images="uint8")
    file = path / "data" / name / ("zarr.json" if zarr_format == 3 else ".zarray")
    tracemalloc.start()
    for rows, chunk, said in (
        (10**12, 10**12, "at most 10000000 rows are read, the metadata declares 1000000000000"),
        (10**12, 4, "at most 10000000 rows are read"),
        (10**300, 4, "at most 10000000 rows are read"),
        (10**7, 10**12, "a chunk may decode to at most 1073741824 bytes"),
        (10**7, 4, "2499993 of 2500000 chunks are missing"),
    ):
        chunks = {"chunks": [chunk, *row_shape]}
        if zarr_format == 3:
            grid = {"name": "regular", "configuration": {"chunk_shape": chunks["chunks"]}}
            chunks = {"chunk_grid": grid}
        edit(file, shape=[rows, *row_shape], **chunks)
        assert any(f.startswith(f"data/{name}: ") and said in f for f in check(path))
        with pytest.raises(ValueError, match=f"data/{name}: "):
            read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_chunk_that_would_decode_to_more_than_its_shape(tmp_path, write_demos):
    import numcodecs

    path = tmp_path / "a.zarr"
    for codec in (numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.LZ4()):
        write_demos(path, compressors=codec)
        (path / "data/state/0.0").write_bytes(codec.encode(bytes(10**8)))
        [fault] = faults_of(path)
        assert fault.startswith("data/state: chunk 0.0 decodes to ")
        assert fault.endswith("its shape needs 80")


def test_two_gzip_streams_in_one_chunk(tmp_path, write_demos):
    import numcodecs

    path = tmp_path / "a.zarr"
    write_demos(path, compressors=numcodecs.GZip())
    file = path / "data/state/0.0"
    file.write_bytes(file.read_bytes() + gzip.compress(bytes(10**6)))
    assert "truncated, or something follows it" in faults_of(path)[0]


@pytest.mark.parametrize("where", ["compressor", "filters"])
def test_a_pickle_in_the_metadata_is_never_run(tmp_path, write_demos, where):
    path, mark = tmp_path / "a.zarr", tmp_path / "it-ran"

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    write_demos(path)
    codec = {"id": "pickle", "protocol": 5}
    changes = {"compressor": codec} if where == "compressor" else {"filters": [codec]}
    edit(path / "data/state/.zarray", dtype="|O", **changes)
    for file in (path / "data/state").glob("?.0"):
        file.write_bytes(pickle.dumps(Attack()))
    assert faults_of(path)[0].startswith("data/state: ")
    edit(path / "data/state/.zarray", dtype="<f4")
    assert faults_of(path)[0].startswith("data/state: ")
    assert not mark.exists()


METADATA = {
    "not JSON": b"{",
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "long": b" " * (2**20 + 1) + b"{}",
    "empty": b"",
    "no fields": b"{}",
    "a long number": b'{"shape": [' + b"9" * 10_000 + b"]}",
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("content", METADATA)
def test_metadata_that_is_not_metadata(tmp_path, write_demos, zarr_format, content):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=zarr_format)
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    (path / "data/state" / name).write_bytes(METADATA[content])
    [fault] = faults_of(path)
    assert fault.startswith("data/state: ")
    assert name in fault


V2_FIELDS = [
    {"shape": [26.0, 5]},
    {"shape": [True, 5]},
    {"shape": [-26, 5]},
    {"shape": "26,5"},
    {"shape": [26] * 100},
    {"shape": None},
    {"chunks": [0, 5]},
    {"chunks": [4]},
    {"dtype": [["x", "<f4"]]},
    {"dtype": "|O"},
    {"compressor": "blosc"},
    {"compressor": {"id": ["blosc"]}},
    {"filters": [{"id": "delta"}]},
    {"dimension_separator": "../"},
]


@pytest.mark.parametrize("change", V2_FIELDS, ids=str)
def test_v2_metadata_with_a_wrong_field(tmp_path, write_demos, change):
    write_demos(tmp_path / "a.zarr")
    edit(tmp_path / "a.zarr/data/state/.zarray", **change)
    assert faults_of(tmp_path / "a.zarr")[0].startswith("data/state: ")


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
V3_FIELDS = [
    {"node_type": "group"},
    {"data_type": {"name": "struct"}},
    {"data_type": "string"},
    {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
    {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}}},
    {"chunk_key_encoding": {"name": "suffix"}},
    {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}},
    {"codecs": []},
    {"codecs": [BYTES, {"name": "numcodecs.pickle"}]},
    {"codecs": [BYTES, {"name": "gzip"}, {"name": "zstd"}]},
    {"codecs": [{"name": "vlen-utf8"}]},
    {"codecs": 7},
    {"storage_transformers": [{"name": "x"}]},
]


@pytest.mark.parametrize("change", V3_FIELDS, ids=str)
def test_v3_metadata_with_a_wrong_field(tmp_path, write_demos, change):
    write_demos(tmp_path / "a.zarr", zarr_format=3)
    edit(tmp_path / "a.zarr/data/state/zarr.json", **change)
    assert faults_of(tmp_path / "a.zarr")[0].startswith("data/state: ")


def test_links_and_special_files(tmp_path, write_demos):
    path = tmp_path / "a.zarr"
    for name in ("0.0", ".zarray"):
        write_demos(path)
        file = path / "data/state" / name
        file.rename(tmp_path / "outside")
        file.symlink_to(tmp_path / "outside")
        assert faults_of(path) == [f"data/state: {name} is a link that leaves the store"]
    write_demos(path)
    file.with_name("0.0").unlink()
    os.mkfifo(file.with_name("0.0"))
    assert faults_of(path) == ["data/state: 0.0 is not a plain file"]


def test_an_array_that_is_a_link_out_of_the_store(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/state").rename(tmp_path / "state")
    (tmp_path / "a.zarr/data/state").symlink_to(tmp_path / "state")
    assert "a link that leaves the store" in faults_of(tmp_path / "a.zarr")[0]


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

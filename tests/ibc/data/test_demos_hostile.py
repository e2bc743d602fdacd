"""Data sets from strangers: none runs code, eats the machine, leaves its folder or raises oddly."""

import gzip
import json
import os
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ibc.data.demos import check, read


def edit(file: Path, **changes: Any) -> None:
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps({**metadata, **changes}))


@pytest.mark.parametrize("name", ["action", "img"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bomb_of_a_shape_is_refused_before_allocation(tmp_path, write_demos, name, zarr_format):
    path = tmp_path / "a.zarr"
    row_shape = {"action": [2], "img": [96, 96, 3]}[name]
    write_demos(path, zarr_format=zarr_format, images="uint8")
    file = path / "data" / name / ("zarr.json" if zarr_format == 3 else ".zarray")
    tracemalloc.start()
    for rows, chunk, said in (
        (10**12, 10**12, "at most 1000000 rows are read, the metadata declares 1000000000000"),
        (10**12, 4, "at most 1000000 rows are read"),
        (10**300, 4, "at most 1000000 rows are read"),
        (10**6, 10**12, "a chunk may decode to at most 1073741824 bytes"),
        (10**6, 4, "249993 of 250000 chunks are missing"),
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


def test_a_chunk_that_would_decode_to_more_than_its_shape(tmp_path, write_demos, faults_of):
    import numcodecs

    path = tmp_path / "a.zarr"
    for codec in (numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.LZ4()):
        write_demos(path, compressors=codec)
        (path / "data/state/0.0").write_bytes(codec.encode(bytes(10**8)))
        [fault] = faults_of(path)
        assert fault.startswith("data/state: chunk 0.0 decodes to ")
        assert fault.endswith("its shape needs 80")


def test_two_gzip_streams_in_one_chunk(tmp_path, write_demos, faults_of):
    import numcodecs

    path = tmp_path / "a.zarr"
    write_demos(path, compressors=numcodecs.GZip())
    file = path / "data/state/0.0"
    file.write_bytes(file.read_bytes() + gzip.compress(bytes(10**6)))
    assert "truncated, or something follows it" in faults_of(path)[0]


@pytest.mark.parametrize("where", ["compressor", "filters"])
def test_a_pickle_in_the_metadata_is_never_run(tmp_path, write_demos, where, faults_of):
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
def test_metadata_that_is_not_metadata(tmp_path, write_demos, zarr_format, content, faults_of):
    path = tmp_path / "a.zarr"
    write_demos(path, zarr_format=zarr_format)
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    (path / "data/state" / name).write_bytes(METADATA[content])
    [fault] = faults_of(path)
    assert fault.startswith("data/state: ")
    assert name in fault


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b" " * 2**20 + b"{}"], ids=len)
def test_attributes_that_are_not_attributes(tmp_path, write_demos, content, faults_of):
    write_demos(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/state/.zattrs").write_bytes(content)
    assert faults_of(tmp_path / "a.zarr")[0].startswith("data/state: .zattrs ")


def test_metadata_that_only_zarr_understands_to_be_wrong(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr")
    edit(tmp_path / "a.zarr/data/state/.zarray", order="Q")
    assert faults_of(tmp_path / "a.zarr")[0].startswith("data/state: cannot be opened: ")


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
def test_v2_metadata_with_a_wrong_field(tmp_path, write_demos, change, faults_of):
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
def test_v3_metadata_with_a_wrong_field(tmp_path, write_demos, change, faults_of):
    write_demos(tmp_path / "a.zarr", zarr_format=3)
    edit(tmp_path / "a.zarr/data/state/zarr.json", **change)
    assert faults_of(tmp_path / "a.zarr")[0].startswith("data/state: ")


def test_links_and_special_files(tmp_path, write_demos, faults_of):
    path = tmp_path / "a.zarr"
    for name in ("0.0", ".zarray"):
        write_demos(path)
        file = path / "data/state" / name
        file.rename(tmp_path / "outside")
        file.symlink_to(tmp_path / "outside")
        assert faults_of(path) == [
            f"data/state: {name} is a link that leaves the store (cp -rL copies without)"
        ]
    write_demos(path)
    file.with_name("0.0").unlink()
    os.mkfifo(file.with_name("0.0"))
    assert faults_of(path) == ["data/state: 0.0 is not a plain file"]


def test_an_array_that_is_a_link_out_of_the_store(tmp_path, write_demos, faults_of):
    write_demos(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/state").rename(tmp_path / "state")
    (tmp_path / "a.zarr/data/state").symlink_to(tmp_path / "state")
    assert "a link that leaves the store" in faults_of(tmp_path / "a.zarr")[0]


def test_what_follows_a_zstd_frame_is_refused_before_it_is_decoded(
    tmp_path, write_demos, faults_of
):
    import numcodecs

    path, zstd = tmp_path / "a.zarr", numcodecs.Zstd(checksum=True)
    write_demos(path, compressors=zstd)
    file = path / "data/state/1.0"
    whole = file.read_bytes()
    bomb, empty, skippable = zstd.encode(bytes(2**26)), zstd.encode(b""), b"P*M\x18\0\0\0\0"
    for more in (bomb, empty, skippable, b"\0"):
        file.write_bytes(whole + more)
        (fault,) = faults_of(path)
        assert fault == "data/state: chunk 1.0 is truncated, or something follows it"
    file.write_bytes(whole)
    assert check(path) == []


@pytest.fixture(scope="module")
def small_stores(tmp_path_factory, write_demos) -> list[Path]:
    import numcodecs

    folder = tmp_path_factory.mktemp("fuzzed")
    layouts = [
        {"compressors": numcodecs.Blosc(cname="zstd", shuffle=2)},
        {"compressors": numcodecs.Blosc(cname="lz4")},
        {"compressors": numcodecs.GZip()},
        {"compressors": numcodecs.LZ4()},
        {"compressors": None},
        {"zarr_format": 3},
        {"zarr_format": 3, "shard": 8},
    ]
    for k, layout in enumerate(layouts):
        write_demos(folder / f"{k}.zarr", lengths=(9, 5), **layout)
    return sorted(folder.iterdir())


def test_no_damage_to_any_file_does_more_than_be_noticed(small_stores):
    """Random damage ends in a list of faults: no exception, no crash of a codec, no wait."""
    rng = random.Random(0)
    noticed = 0
    for _ in range(80):
        path = rng.choice(small_stores)
        file = rng.choice(sorted(f for f in path.rglob("*") if f.is_file()))
        whole = file.read_bytes()
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 4])):
            at = rng.randrange(len(damaged) + 1)
            cut = rng.choice([1, 1, 1, 0, 8])
            damaged[at : at + cut] = rng.randbytes(rng.choice([1, 1, 1, 0, 8]))
        file.write_bytes(damaged)
        noticed += bool(check(path))
        file.write_bytes(whole)
    assert noticed > 40
    assert not any(map(check, small_stores))

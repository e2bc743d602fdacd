"""The metadata of a zarr array, v2 (.zarray) and v3 (zarr.json), as the fields of a StoredArray.

Read by hand, for two reasons: importing zarr takes a second, which commands that only ask whether a
data set has changed must not spend, and the JSON may come from a stranger, so shapes and codecs are
checked before zarr allocates or decodes anything. ValueError for what is not allowed, KeyError,
TypeError or AttributeError where the form is wrong.
"""

import json
import re
from typing import Any

import numpy as np

from ibc.data.store_files import StoreFiles, placeholder
from ibc.data.zarr_chunks import Codecs, Shards

MAX_METADATA_BYTES = 2**20
MAX_AXES = 8
# Numbers alone: an object array would be unpickled.
_DTYPE = {
    2: re.compile(r"[<>|](f[248]|[iu][1248])"),
    3: re.compile(r"(float(16|32|64)|u?int(8|16|32|64))"),
}


def read_json(files: StoreFiles, file: str) -> dict[str, Any]:
    """The JSON object in a file of the store; ValueError for one that may not be read."""
    content, name = files.read(file, MAX_METADATA_BYTES), file.rpartition("/")[2]
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        said = placeholder(content) or f"is not JSON: {error}"
        raise ValueError(f"{name} {said}") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{name} must be a JSON object, got {type(metadata).__name__}")
    return metadata


def array_fields(metadata: dict[str, Any], zarr_format: int) -> dict[str, Any]:
    """The fields of a StoredArray from the content of .zarray (format 2) or zarr.json (3)."""
    shards, prefix = None, ""
    if zarr_format == 2:
        _refuse(metadata.get("filters"), "filters are not read")
        dtype, chunks = metadata["dtype"], _lengths(metadata["chunks"], 1)
        separator, compressor = metadata.get("dimension_separator", "."), metadata["compressor"]
        codecs = Codecs(None if compressor is None else compressor["id"], checksum=False)
    else:
        grid, keys = metadata["chunk_grid"], metadata["chunk_key_encoding"]
        _refuse(metadata["node_type"] != "array", "the node must be an array")
        _refuse(metadata.get("storage_transformers"), "storage transformers are not read")
        _refuse(grid["name"] != "regular", "the chunk grid must be regular")
        _refuse(keys["name"] not in ("default", "v2"), "the chunk keys must be 'default' or 'v2'")
        dtype, chunks = metadata["data_type"], _lengths(grid["configuration"]["chunk_shape"], 1)
        plain = "/" if keys["name"] == "default" else "."
        separator = keys.get("configuration", {}).get("separator", plain)
        prefix = f"c{separator}" if keys["name"] == "default" else ""
        codecs, shards = codec_chain(metadata["codecs"])
    shape = _lengths(metadata["shape"], 0)
    if not isinstance(dtype, str) or not _DTYPE[zarr_format].fullmatch(dtype):
        raise ValueError(f"the type must be numeric, got {dtype!r}")
    if separator not in (".", "/"):
        raise ValueError(f"the separator of chunk keys must be '.' or '/', got {separator!r}")
    parts = chunks if shards is None else shards.chunks
    if not len(shape) == len(chunks) == len(parts) or any(
        c % p for c, p in zip(chunks, parts, strict=True)
    ):
        raise ValueError(f"chunks {chunks} do not fit the shape {shape} or the shards' parts")
    return {
        "shape": shape,
        "chunks": chunks,
        "dtype": np.dtype(dtype),
        "codecs": codecs,
        "shards": shards,
        "prefix": prefix,
        "separator": separator,
    }


def codec_chain(codecs: Any) -> tuple[Codecs, Shards | None]:
    """Reads a v3 codec chain: [transpose] bytes [compressor] [crc32c], or shards of such."""
    named = [
        (c, {}) if isinstance(c, str) else (c["name"], c.get("configuration", {})) for c in codecs
    ]
    names = [name for name, _ in named]
    if names == ["sharding_indexed"]:
        settings = named[0][1]
        inner, nested = codec_chain(settings["codecs"])
        index, _ = codec_chain(settings["index_codecs"])
        if nested is not None or index.compressor is not None:
            raise ValueError("shards within shards and compressed shard indices are not read")
        at_end = settings.get("index_location", "end") == "end"
        return inner, Shards(_lengths(settings["chunk_shape"], 1), at_end, index.checksum)
    rest = names[1:] if names[:1] == ["transpose"] else names
    checksum = rest[-1:] == ["crc32c"]
    compressors = rest[1:-1] if checksum else rest[1:]
    if rest[:1] != ["bytes"] or len(compressors) > 1:
        raise ValueError(f"the codecs must be [transpose] bytes [compressor] [crc32c], got {names}")
    return Codecs(compressors[0] if compressors else None, checksum), None


def _refuse(wrong: object, rule: str) -> None:
    if wrong:
        raise ValueError(rule)


def _lengths(values: Any, least: int) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > MAX_AXES:
        raise ValueError(f"shapes and chunks must be lists of at most {MAX_AXES} integers")
    if not all(type(n) is int and n >= least for n in values):
        raise ValueError(f"shapes and chunks must hold integers >= {least}, got {values!r}")
    return tuple(values)

"""The metadata of a zarr array, v2 (.zarray) and v3 (zarr.json), as the fields of a StoredArray.

What this reads is a stranger's JSON: ValueError for whatever is not plainly understood, KeyError,
TypeError or AttributeError where it has not even the form.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ibc.data.zarr_chunks import Codecs, Shards

MAX_METADATA_BYTES = 2**20
MAX_AXES = 8
_DTYPE_V2 = re.compile(r"[<>|](f[248]|[iu][1248])")
_DTYPE_V3 = re.compile(r"(float(16|32|64)|u?int(8|16|32|64))")


def read_json(root: Path, file: str) -> dict[str, Any]:
    """The JSON object in a file of the store; ValueError for links out of it and large files."""
    path = root / file
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path.name} is a link that leaves the store")
    if not path.is_file():
        raise ValueError(f"{path.name} is not a plain file")
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise ValueError(
            f"{path.name} may have {MAX_METADATA_BYTES} bytes, it has {path.stat().st_size}"
        )
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{path.name} must be a JSON object, got {type(metadata).__name__}")
    return metadata


def _lengths(values: Any, least: int) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > MAX_AXES:
        raise ValueError(f"shapes and chunks must be lists of at most {MAX_AXES} integers")
    if not all(type(n) is int and n >= least for n in values):
        raise ValueError(f"shapes and chunks must hold integers >= {least}, got {values!r}")
    return tuple(values)


def fields_v2(metadata: dict[str, Any]) -> dict[str, Any]:
    """The fields of a StoredArray from the content of .zarray."""
    if metadata.get("filters"):
        raise ValueError(f"filters are not read, got {metadata['filters']!r}")
    if not isinstance(metadata["dtype"], str) or not _DTYPE_V2.fullmatch(metadata["dtype"]):
        raise ValueError(f"the type must be numeric, got {metadata['dtype']!r}")
    compressor = metadata["compressor"]
    shape, chunks = _lengths(metadata["shape"], 0), _lengths(metadata["chunks"], 1)
    if len(shape) != len(chunks):
        raise ValueError(f"shape {shape} and chunks {chunks} have different lengths")
    separator = metadata.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise ValueError(f"the dimension separator must be '.' or '/', got {separator!r}")
    return {
        "shape": shape,
        "chunks": chunks,
        "dtype": np.dtype(metadata["dtype"]),
        "codecs": Codecs.named(None if compressor is None else compressor["id"], checksum=False),
        "shards": None,
        "prefix": "",
        "separator": separator,
    }


def fields_v3(metadata: dict[str, Any]) -> dict[str, Any]:
    """The fields of a StoredArray from the content of zarr.json."""
    if metadata["node_type"] != "array":
        raise ValueError(f"the node must be an array, got {metadata['node_type']!r}")
    if metadata.get("storage_transformers"):
        raise ValueError("storage transformers are not read")
    if not isinstance(metadata["data_type"], str) or not _DTYPE_V3.fullmatch(metadata["data_type"]):
        raise ValueError(f"the type must be numeric, got {metadata['data_type']!r}")
    if metadata["chunk_grid"]["name"] != "regular":
        raise ValueError(f"the chunk grid must be regular, got {metadata['chunk_grid']['name']!r}")
    shape = _lengths(metadata["shape"], 0)
    chunks = _lengths(metadata["chunk_grid"]["configuration"]["chunk_shape"], 1)
    encoding = metadata["chunk_key_encoding"]
    if encoding["name"] not in ("default", "v2"):
        raise ValueError(f"the chunk keys must be 'default' or 'v2', got {encoding['name']!r}")
    plain = "/" if encoding["name"] == "default" else "."
    separator = encoding.get("configuration", {}).get("separator", plain)
    if separator not in (".", "/"):
        raise ValueError(f"the chunk key separator must be '.' or '/', got {separator!r}")
    codecs, shards = chain(metadata["codecs"])
    if len(shape) != len(chunks) or (
        shards is not None
        and (
            len(shards.chunks) != len(chunks)
            or any(c % s for c, s in zip(chunks, shards.chunks, strict=True))
        )
    ):
        raise ValueError(f"chunks {chunks} do not fit the shape {shape} or the shards' parts")
    return {
        "shape": shape,
        "chunks": chunks,
        "dtype": np.dtype(metadata["data_type"]),
        "codecs": codecs,
        "shards": shards,
        "prefix": "c" + separator if encoding["name"] == "default" else "",
        "separator": separator,
    }


def chain(codecs: Any) -> tuple[Codecs, Shards | None]:
    """Reads a v3 codec chain: [transpose] bytes [compressor] [crc32c], or shards of such."""
    named = [
        (c, {}) if isinstance(c, str) else (c["name"], c.get("configuration", {})) for c in codecs
    ]
    if [name for name, _ in named] == ["sharding_indexed"]:
        settings = named[0][1]
        parts = _lengths(settings["chunk_shape"], 1)
        inner, nested = chain(settings["codecs"])
        index, _ = chain(settings["index_codecs"])
        if nested is not None or index.compressor is not None:
            raise ValueError("shards within shards and compressed shard indices are not read")
        at_end = settings.get("index_location", "end") == "end"
        return inner, Shards(parts, at_end, index.checksum)
    names = [name for name, _ in named]
    rest = names[1:] if names[:1] == ["transpose"] else names
    if rest[:1] != ["bytes"]:
        raise ValueError(f"the codecs must be [transpose] bytes [compressor] [crc32c], got {names}")
    rest = rest[1:]
    checksum = rest[-1:] == ["crc32c"]
    rest = rest[:-1] if checksum else rest
    if len(rest) > 1:
        raise ValueError(f"the codecs must be [transpose] bytes [compressor] [crc32c], got {names}")
    return Codecs.named(rest[0] if rest else None, checksum=checksum), None

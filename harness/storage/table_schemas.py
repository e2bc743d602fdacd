"""Result tables: their Arrow schemas with a version, and reading and writing one Parquet file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.config import trial_config
from harness.core import files
from harness.core.files import TornFileError, atomic
from harness.core.text import one_line
from harness.storage import parquet_sizes

Kind = Literal["trials", "curves", "episodes"]
VERSION = 1
# Bounds on what a file may ask of this machine. Decoded, six million episodes have a gigabyte.
MAX_BYTES, MAX_DECODED_BYTES = 2**29, 2**30
MAX_TEXT = 2**16
MAX_WHOLE = 2**53  # what floating point numbers hold exactly
_KIND, _VERSION = b"ibc_harness.kind", b"ibc_harness.version"


def _schema(kind: str, **columns: pa.DataType) -> pa.Schema:
    metadata = {_KIND: kind.encode(), _VERSION: str(VERSION).encode()}
    return pa.schema([pa.field(n, t) for n, t in columns.items()], metadata=metadata)


_TEXT, _INT, _REAL, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()


# What a row of each kind must have: rows are named, counted and ordered by them.
_REQUIRED = {
    "episodes": ("env_seed",),
    "curves": ("config_hash", "train_seed", "epoch", "step"),
    "trials": ("trial", "config_hash", "train_seed", "status"),
}

# `curves` has further columns for metrics (float64), `trials` for the settings of the config.
SCHEMAS: dict[str, pa.Schema] = {
    "episodes": _schema(
        "episodes",
        sweep=_TEXT,
        config_hash=_TEXT,
        train_seed=_INT,
        checkpoint_step=_INT,
        policy_hash=_TEXT,  # of the weights, so it changes when a checkpoint is trained again
        protocol_hash=_TEXT,
        execute_delay=_INT,  # these two are in the protocol's hash; null is 0
        repeat=_INT,
        env_seed=_INT,
        max_coverage=_REAL,  # gives success at every threshold
        final_coverage=_REAL,
        score=_REAL,
        success=_BOOL,
        length=_INT,
        terminated=_BOOL,
        truncated=_BOOL,
        success_at_reset=_BOOL,
        action_jerk=_REAL,
        idle_share=_REAL,
        policy_ms=_REAL,  # these three times are the episode's share of its batch
        env_ms=_REAL,
        render_ms=_REAL,
        error=_TEXT,  # null if there was none; with an error, the numbers are null
    ),
    "curves": _schema(
        "curves", config_hash=_TEXT, train_seed=_INT, epoch=_INT, step=_INT, train_loss=_REAL
    ),
    "trials": _schema(
        "trials",
        sweep=_TEXT,
        trial=_TEXT,
        config_hash=_TEXT,
        train_seed=_INT,
        question=_TEXT,
        arm=_TEXT,
        status=_TEXT,
        attempts=_INT,
        epoch=_INT,
        step=_INT,
        best_step=_INT,
        policy_hash=_TEXT,  # of the best checkpoint's weights
        select_score=_REAL,
        select_score_low=_REAL,
        select_score_high=_REAL,
        select_n=_INT,
        report_score=_REAL,
        report_score_low=_REAL,
        report_score_high=_REAL,
        report_success_rate=_REAL,
        report_success_rate_low=_REAL,
        report_success_rate_high=_REAL,
        report_n=_INT,
        report_protocol_hash=_TEXT,
        health=_TEXT,
        train_seconds=_REAL,
        samples_per_second=_REAL,
        device=_TEXT,
        git_revision=_TEXT,
        git_dirty=_BOOL,
        dataset_fingerprint=_TEXT,
        versions=_TEXT,
        error=_TEXT,
    ),
}


def table(kind: Kind, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table of this kind; a missing key is null.

    Keys outside the schema become float64 columns in `curves` and typed columns in `trials`.
    ValueError for such a key in `episodes`, and for a value of another type.
    """
    schema = SCHEMAS[kind]
    further = list(dict.fromkeys(key for row in rows for key in row if key not in schema.names))
    if further and kind == "episodes":
        raise ValueError(f"an episode's columns are {', '.join(schema.names)}; given {further[0]}")
    fields = [*schema]
    for name in further:
        values = [row[name] for row in rows if row.get(name) is not None]
        fields.append(pa.field(name, _REAL if kind == "curves" else _leaf_type(values)))
    columns = []
    for field in fields:
        values = [row.get(field.name) for row in rows]
        if field.type == _TEXT:
            values = [_text(value) for value in values]
        try:
            columns.append(pa.array(values, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"column {field.name} takes {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=schema.metadata))


def _leaf_type(values: Sequence[object]) -> pa.DataType:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return _BOOL
    if kinds == {int}:
        return _INT
    return _REAL if kinds and kinds <= {int, float} else _TEXT


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's settings as columns by their dotted names; a list becomes JSON text."""
    return {
        name: json.dumps(value) if isinstance(value, list | tuple) else value
        for name, value in trial_config.leaves(config).items()
    }


def write(content: pa.Table, path: Path) -> None:
    """Write a table as Parquet with page checksums, atomically."""
    with atomic(path) as file:
        pq.write_table(content, file, compression="zstd", write_page_checksum=True)


def read_metadata(path: Path) -> Mapping[bytes, bytes]:
    """Return the metadata of a Parquet file's schema; TornFileError when they cannot be read."""
    with files.open_file(path, MAX_BYTES) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - parquet_sizes.MAX_FOOTER_BYTES))
        end = file.read()
    try:
        parquet_sizes.flat_footer(end)
        return pq.read_schema(pa.BufferReader(end)).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TornFileError(f"{path} is not a whole Parquet file: {error}") from error


def read_file(path: Path, kind: Kind, most: int = MAX_DECODED_BYTES) -> pa.Table:
    """Return one Parquet file of this kind in the current schema.

    most: the bytes that it may have when it is decoded, beside others of the same table.
    TornFileError when it is not whole;
    ValueError for another kind, a newer schema version, a table that is too large, or values that
    no table of ours has.
    """
    content, name = files.read_bytes(path, MAX_BYTES), str(path)
    try:
        declared = parquet_sizes.sizes(content)  # before anything of it is allocated
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            metadata = file.schema_arrow.metadata or {}
            _check_types(file.schema_arrow, name)
            _check_size(content, file.schema_arrow, declared, kind, name, most)
            # Threads cost more than they save where there are few rows.
            found = file.read(use_threads=len(content) > 2**20)
    except (MemoryError, _RefusedError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TornFileError(f"{path} is not a whole Parquet file: {error}") from error
    if metadata.get(_KIND) != kind.encode():
        raise ValueError(f"{path} must be a table of {kind}, it says {metadata.get(_KIND)!r}")
    version = metadata.get(_VERSION, b"0")
    if not version.isdigit() or not 1 <= int(version) <= VERSION:
        raise ValueError(
            f"{path} has schema version {version.decode(errors='replace')[:20]} and this program "
            f"reads 1 to {VERSION}; upgrade it"
        )
    return _conform(found, kind, name)


class _RefusedError(ValueError):
    pass


def _check_types(schema: pa.Schema, name: str) -> None:
    """ValueError for a column whose values may take more memory than a number, but for text."""
    for field in schema:
        if not (pa.types.is_primitive(field.type) or field.type in (_TEXT, pa.null())):
            raise _RefusedError(
                f"{name} must have in column {one_line(field.name)[:60]} a text, a number or a "
                f"truth value, it has {one_line(field.type)[:60]}"
            )


def _check_size(
    content: bytes,
    schema: pa.Schema,
    declared: parquet_sizes.Sizes,
    kind: Kind,
    name: str,
    most: int,
) -> None:
    """ValueError when the decoded table would be too large."""
    rows, stored = declared.rows, declared.stored
    decoded = 8 * rows * max(declared.columns, len(SCHEMAS[kind])) + stored
    texts = [field.name for field in schema if field.type == _TEXT]
    # A text may be stored once and occur in every row; only then it is worth counting them.
    if decoded <= most < rows * stored and texts:
        with pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts) as encoded:
            chunks = (chunk for text in encoded.read(texts) for chunk in text.chunks)
            lengths = (pc.binary_length(c.dictionary).take(c.indices) for c in chunks)
            decoded += sum(pc.sum(each).as_py() or 0 for each in lengths)
    if decoded > most:
        raise _RefusedError(
            f"{name} must have at most {most:,} bytes when it is decoded "
            f"({MAX_DECODED_BYTES:,} with all of its table), it declares {rows:,} rows and "
            f"{decoded:,} bytes"
        )


def _conform(content: pa.Table, kind: Kind, name: str) -> pa.Table:
    """Cast the columns of the schema, add missing ones as nulls, append the further ones."""
    schema = SCHEMAS[kind]
    names = content.column_names
    if len(set(names)) < len(names):
        raise ValueError(f"{name} must have each column once, it has {max(names, key=names.count)}")
    further = [field for field in content.schema if field.name not in schema.names]
    if kind == "episodes":
        further = []  # no program has written any
    elif kind == "curves":
        further = [field.with_type(_REAL) for field in further]
    fields = [*schema, *further]
    columns = [
        content[field.name] if field.name in names else pa.nulls(content.num_rows, field.type)
        for field in fields
    ]
    for index, (field, column) in enumerate(zip(fields, columns, strict=True)):
        try:
            if column.type != field.type:
                if _TEXT in (column.type, field.type):
                    raise pa.ArrowTypeError(f"it has {column.type}")
                columns[index] = column = column.cast(field.type)
            column.validate(full=True)  # texts are UTF-8
        except pa.ArrowException as error:
            rule = f"{name} must have {field.type} in column {one_line(field.name)[:60]}"
            raise ValueError(f"{rule}: {one_line(error)[:200]}") from error
        _check_values(field, column, kind, name)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=schema.metadata))


def _check_values(field: pa.Field, column: pa.ChunkedArray, kind: Kind, name: str) -> None:
    where = f"{name} must have in column {one_line(field.name)[:60]}"
    if field.type not in (_TEXT, _INT, _REAL, _BOOL):
        raise ValueError(f"{where} a text, a number or a truth value, it has {field.type}")
    if field.name in _REQUIRED[kind] and column.null_count:
        raise ValueError(f"{where} a value in every row")
    if field.type == _TEXT:
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > MAX_TEXT:
            raise ValueError(f"{where} texts of at most {MAX_TEXT:,} bytes, one has {longest:,}")
    elif field.type == _INT:
        found = pc.min_max(column).as_py()
        low = 0 if field.name in SCHEMAS[kind].names else -MAX_WHOLE
        for value in (found["min"], found["max"]):
            if value is not None and not low <= value <= MAX_WHOLE:
                raise ValueError(f"{where} whole numbers from {low} to {MAX_WHOLE}, it has {value}")

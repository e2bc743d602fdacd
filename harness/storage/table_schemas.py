"""Result tables: their Arrow schemas with a version, and reading and writing one Parquet file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from harness.config import trial_config
from harness.core.files import TornFileError, atomic

Kind = Literal["trials", "curves", "episodes"]
VERSION = 1
_KIND, _VERSION = b"ibc_harness.kind", b"ibc_harness.version"


def _schema(kind: str, **columns: pa.DataType) -> pa.Schema:
    metadata = {_KIND: kind.encode(), _VERSION: str(VERSION).encode()}
    return pa.schema([pa.field(n, t) for n, t in columns.items()], metadata=metadata)


_TEXT, _INT, _REAL, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()


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


def read_file(path: Path, kind: Kind) -> pa.Table:
    """Return one Parquet file of this kind in the current schema.

    TornFileError when it is not whole; ValueError for another kind or a newer schema version.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            content = file.read()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TornFileError(f"{path} is not a whole Parquet file: {error}") from error
    metadata = content.schema.metadata or {}
    if metadata.get(_KIND) != kind.encode():
        raise ValueError(f"{path} must be a table of {kind}, it says {metadata.get(_KIND)!r}")
    version = int(metadata.get(_VERSION, b"0"))
    if not 1 <= version <= VERSION:
        raise ValueError(
            f"{path} has schema version {version} and this program reads 1 to {VERSION}; upgrade it"
        )
    try:
        return _conform(content, SCHEMAS[kind])
    except pa.ArrowException as error:
        raise TornFileError(f"{path} is not a table of {kind}: {error}") from error


def _conform(content: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast the columns of the schema, add missing ones as nulls, append all others."""
    if content.schema.equals(schema):  # the usual case of thousands of files
        return content.replace_schema_metadata(schema.metadata)
    fields = [*schema, *(field for field in content.schema if field.name not in schema.names)]
    columns = [
        content[field.name].cast(field.type)
        if field.name in content.schema.names
        else pa.nulls(content.num_rows, field.type)
        for field in fields
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=schema.metadata))

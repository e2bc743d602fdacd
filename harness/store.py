"""The earlier name of `harness.storage.tables.read`, for scripts and notebooks that use it."""

import warnings
from pathlib import Path

import pyarrow as pa

from harness.storage import tables
from harness.storage.table_schemas import Kind


def read(sweep_dir: Path | str, kind: Kind) -> pa.Table:
    """Return `harness.storage.tables.read(sweep_dir, kind)`, with a DeprecationWarning."""
    warnings.warn(
        "harness.store.read is now harness.storage.tables.read; harness.store goes in version 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return tables.read(sweep_dir, kind)

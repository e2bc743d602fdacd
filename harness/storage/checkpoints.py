"""Checkpoints: folders that are whole or absent."""

import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open

from harness.core import files, paths
from harness.core.errors import UserError
from harness.core.files import TornFileError, read_json, sync_folder, temporary_beside, write_json
from harness.storage import training_state as state_file

VERSION = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
POLICY = "policy.json"
MAX_BYTES = 2**32  # of weights and of a training state
_STATE = "training_state.safetensors"


class Saveable(Protocol):
    """A policy that can be written to a folder."""

    def save(self, directory: Path, /) -> object:
        """Write all files that loading needs, with the weights in `model.safetensors`."""


def save(
    directory: Path,
    name: str,
    policy: Saveable,
    *,
    config: Mapping[str, Any],
    step: int,
    training_state: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint `directory/name` in place of an earlier one; return its path.

    All files are on the disk before the folder gets its name. Between the two renames the old
    folder is named `.<name>.old`, where `find` looks too, so a kill at any instant leaves one
    whole checkpoint. `info` (config_hash, train_seed, ...) is added to config.json.
    """
    files.check_in_place(directory)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / paths.check_name(name, "a checkpoint's name")
    temporary = temporary_beside(target)
    temporary.mkdir()
    try:
        policy.save(temporary)
        if training_state is not None:
            state_file.write(dict(training_state), temporary / _STATE)
        described = {
            "version": VERSION,
            "step": step,
            "policy_hash": weights_hash(temporary),
            **(info or {}),
            "config": dict(config),
        }
        write_json(described, temporary / CONFIG)
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return put(directory, name, temporary)


def put(directory: Path, name: str, temporary: Path) -> Path:
    """Rename a whole checkpoint's folder to `directory/name`, in place of an earlier one."""
    target = directory / paths.check_name(name, "a checkpoint's name")
    old = _old(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    temporary.rename(target)
    sync_folder(directory)
    shutil.rmtree(old, ignore_errors=True)
    return target


def find(directory: Path, name: str) -> Path | None:
    """Return the path of the checkpoint `directory/name`, also during a save; None without one.

    A folder with a description alone stands for a checkpoint on an object store: None.
    """
    target = directory / name
    for _ in range(20):
        for path in (target, _old(target)):
            if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
                return path
        if not target.exists() and not _old(target).exists():
            return None
        time.sleep(0.01)
    return None


def remove_old(directory: Path) -> None:
    """Remove the old folders that a kill at the end of `save` has left beside whole checkpoints.

    Only for the folder's only writer.
    """
    for old in directory.glob(".*.old"):
        if (directory / old.name[1 : -len(".old")] / CONFIG).is_file():
            shutil.rmtree(old)


def load_training_state(path: Path) -> Any:
    """Return the training state of a checkpoint's folder; FileNotFoundError when it has none."""
    with files.open_file(path / _STATE, MAX_BYTES):  # a regular file, no link
        return state_file.read(path / _STATE)


def describe(path: Path) -> dict[str, Any]:
    """Return a checkpoint's config.json: step, policy_hash, config and the keys of `info`."""
    described = read_json(path / CONFIG)
    if not isinstance(described, dict) or not isinstance(described.get("version"), int):
        raise UserError(f"{path / CONFIG} must describe a checkpoint with its version")
    if described["version"] > VERSION:
        raise UserError(
            f"{path} is a checkpoint of version {described['version']} and this program reads up "
            f"to {VERSION}; upgrade it"
        )
    return described


def check(path: Path) -> Path:
    """Return the path of the checkpoint named `path`; TornFileError when a file is missing or cut.

    FileNotFoundError without one. Flipped bytes in the weights are noticed by their hash, when they
    are used.
    """
    found = find(path.parent, path.name)
    if found is None:
        raise FileNotFoundError(path)
    try:
        describe(found)
        read_json(found / POLICY)
        with files.open_file(found / WEIGHTS, MAX_BYTES), safe_open(found / WEIGHTS, "numpy"):
            return found
    except (FileNotFoundError, SafetensorError) as error:
        raise TornFileError(f"{found} is not a whole checkpoint: {error}") from error


def weights_hash(path: Path) -> str:
    """Return the first 12 hex digits of the SHA-256 of a checkpoint's weights."""
    with files.open_file(path / WEIGHTS, MAX_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")

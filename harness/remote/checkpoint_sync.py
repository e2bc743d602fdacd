"""Checkpoints on an object store: whole or absent, although they are several objects.

The files are written under a common hash, then one object, the pointer, names them. Earlier files
are removed after that. A reader whose files have been removed reads the pointer again.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core import files, paths
from harness.remote.object_store import Objects, RemoteError
from harness.storage.checkpoints import describe, find, put

MAX_POINTER_BYTES = 2**24


class RemoteCheckpoints:
    """Moves checkpoints between the folders of a mirror and the objects of the same names."""

    def __init__(self, objects: Objects, mirror: Path) -> None:
        self.objects, self.mirror = objects, mirror
        self._versions: dict[str, str] = {}  # versions on the store, as far as known

    def describe(self, checkpoints: Path, name: str) -> None:
        """Write the store's description of a checkpoint into its local folder, without weights."""
        pointer = self._pointer(checkpoints, name)
        target = checkpoints / name
        if pointer and pointer["version"] != _version(_digests(target)):
            if target.exists():
                shutil.rmtree(target)
            files.write_json(pointer["described"], target / "config.json")

    def _pointer(self, checkpoints: Path, name: str) -> dict[str, Any] | None:
        key = self._key(checkpoints / f"{name}.json")
        try:
            pointer = json.loads(self.objects.read(key, MAX_POINTER_BYTES))
            if not isinstance(pointer["described"], dict):
                raise TypeError
            return {
                "version": str(pointer["version"]),
                "described": pointer["described"],
                "files": {str(k): str(v) for k, v in pointer["files"].items()},
            }
        except FileNotFoundError:
            return None
        except RemoteError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RemoteError(f"{self.objects.uri}/{key} must name a checkpoint's files") from error

    def pull(self, checkpoints: Path, name: str) -> None:
        """Copy a whole checkpoint into the mirror, unless it has it or one of a later step."""
        for _ in range(5):
            pointer = self._pointer(checkpoints, name)
            here = find(checkpoints, name)
            if pointer is None:
                return
            if here is not None:
                same = _version(_digests(here)) == pointer["version"]
                step = pointer["described"].get("step") or 0
                if same or describe(here).get("step", 0) > step:
                    return
            try:
                self._copy_checkpoint(checkpoints, name, pointer)
            except FileNotFoundError:
                continue  # replaced meanwhile: the pointer names another one
            return
        raise RemoteError(
            f"{self.objects.uri}/{self._key(checkpoints / name)} lacks files it names"
        )

    def _copy_checkpoint(self, checkpoints: Path, name: str, pointer: Mapping[str, Any]) -> None:
        checkpoints.mkdir(parents=True, exist_ok=True)
        temporary = files.temporary_beside(checkpoints / name)
        temporary.mkdir()
        try:
            for file, digest in pointer["files"].items():
                key = self._key(checkpoints / f"{name}-{pointer['version']}" / file)
                content = self.objects.read(key)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise RemoteError(
                        f"{self.objects.uri}/{key} is not the file that was written there"
                    )
                with files.atomic(temporary / paths.check_name(file, "a file's name")) as out:
                    out.write(content)
            put(checkpoints, name, temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._versions[self._key(checkpoints / name)] = pointer["version"]

    def push(self, checkpoints: Path, name: str) -> None:
        """Copy a checkpoint to the store if it lacks it; for the trial's only writer."""
        here = find(checkpoints, name)
        if here is None:
            return
        key, digests = self._key(checkpoints / name), _digests(here)
        version = _version(digests)
        if self._versions.get(key) == version:
            return
        before = self._pointer(checkpoints, name)
        if before is None or before["version"] != version:
            for file in digests:
                self.objects.write(f"{key}-{version}/{file}", (here / file).read_bytes())
            pointer = {"version": version, "described": describe(here), "files": digests}
            self.objects.write(f"{key}.json", json.dumps(pointer, indent=1).encode())
        # Earlier versions, and files of a killed push, are unused now.
        for old in self.objects.list(self._key(checkpoints)):
            if old.startswith(f"{key}-") and not old.startswith(f"{key}-{version}/"):
                self.objects.delete(old)
        self._versions[key] = version

    def _key(self, path: Path) -> str:
        return path.relative_to(self.mirror).as_posix()


def _digests(folder: Path) -> dict[str, str]:
    """Return the hashes of a checkpoint's files by name, {} without the folder."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*"))
        if path.is_file()
    }


def _version(digests: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()[:16]

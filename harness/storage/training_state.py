"""A training state in one safetensors file: tensors by number, the nested structure as JSON.

Unlike a pickle (`torch.save`), this format runs no code when it is read. The metadata hold a
checksum of the content, as safetensors has none.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from harness.core.files import TornFileError

if TYPE_CHECKING:
    import torch  # at run time inside functions: readers of tables need no torch

_TREE, _VERSION, _SUM = "tree", "version", "crc32"


def write(state: object, path: Path) -> None:
    """Write nested dicts (str or int keys), lists, tuples, tensors and plain values.

    ValueError names the place of any other value.
    """
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, tensors, "state")
    text = json.dumps(tree)
    metadata = {_TREE: text, _VERSION: "1", _SUM: _checksum(text, tensors)}
    path.write_bytes(save(tensors, metadata=metadata))  # `save_file` gives it to its owner alone


def read(path: Path) -> Any:
    """Return what `write` was given, bit for bit, on the CPU; TornFileError for another file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get(_VERSION) != "1":
                raise TornFileError(
                    f"{path} must be a training state of version 1, given {metadata.get(_VERSION)}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # The first files have no checksum.
        if metadata.get(_SUM, found := _checksum(metadata[_TREE], tensors)) != found:
            raise TornFileError(f"{path} is not what was written: its checksum differs")
        return _unpack(json.loads(metadata[_TREE]), tensors)
    except (FileNotFoundError, TornFileError):
        raise
    except Exception as error:  # safetensors has no public class for a broken file
        raise TornFileError(f"{path} is not a whole training state: {error}") from error


def _checksum(tree: str, tensors: Mapping[str, "torch.Tensor"]) -> str:
    import torch

    found = zlib.crc32(tree.encode())
    for name in sorted(tensors, key=int):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def _pack(value: object, tensors: dict[str, "torch.Tensor"], where: str) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # Copies, as the format refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_pack(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise ValueError(f"a training state's keys are strings or integers, given {key!r}")
        items = [[key, _pack(item, tensors, f"{where}.{key}")] for key, item in value.items()]
        return {"dict": items}
    raise ValueError(
        f"a training state holds tensors and plain values, given {type(value).__name__} at {where}"
    )


def _unpack(value: Any, tensors: Mapping[str, "torch.Tensor"]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "tuple":
            return tuple(_unpack(item, tensors) for item in content)
        return {key: _unpack(item, tensors) for key, item in content}
    return value

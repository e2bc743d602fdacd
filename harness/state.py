"""A training state as one safetensors file: tensors by number, the tree around them as JSON.

`torch.save` would pickle the tree; this format can hold nothing that runs when it is read.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.files import TornFileError

_TREE, _VERSION = "tree", "version"


def write(state: object, path: Path) -> None:
    """Write nested dicts (str or int keys), lists, tuples, tensors and plain values.

    ValueError names the place of anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, tensors, "state")
    save_file(tensors, path, metadata={_TREE: json.dumps(tree), _VERSION: "1"})


def read(path: Path) -> Any:
    """Return what `write` was given, to the bit, on the CPU; TornFileError for anything else."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get(_VERSION) != "1":
                raise TornFileError(
                    f"{path} must be a training state of version 1, given {metadata.get(_VERSION)}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _unpack(json.loads(metadata[_TREE]), tensors)
    except FileNotFoundError:
        raise
    except TornFileError:
        raise
    except Exception as error:  # safetensors has no public class for a broken file
        raise TornFileError(f"{path} is not a whole training state: {error}") from error


def _pack(value: object, tensors: dict[str, torch.Tensor], where: str) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # A copy each: the format refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_pack(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        items = [_pack(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
        return {"tuple": items}
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise ValueError(f"a training state's keys are strings or integers, given {key!r}")
        items = [[key, _pack(item, tensors, f"{where}.{key}")] for key, item in value.items()]
        return {"dict": items}
    raise ValueError(
        f"a training state holds tensors and plain values, given {type(value).__name__} at {where}"
    )


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
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

"""Policies of other code: how they are loaded, and the hash of what decides their actions.

`module:factory` is imported from a folder or from what is installed, `FILE.py:factory` from the
file. docs/POLICIES.md has the interface.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.core.errors import UserError
from harness.core.text import one_line
from harness.evaluation.rollout import Predicts, error_text

Arguments = tuple[tuple[str, str], ...]  # names and values of --policy-arg, as they were given
_TAKES = "--policy takes module:factory or FILE.py:factory"
_OWN = ("envs", "harness", "ibc")
_DEEPEST = 3  # attributes of attributes in which networks and arrays are looked for


def seed_everything(*entropy: int) -> None:
    """Seed the global generators of torch, numpy and Python."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that other policies draw from
    random.seed(seed)


def load(factory: str, folder: Path | None, arguments: Arguments = ()) -> Predicts:
    """Return the object that a factory makes; UserError in one line where it makes no policy.

    The global generators are seeded first, so that weights drawn in the factory are the same in
    every process.
    """
    _, make = _find(factory, folder)
    given = {name: _value(text) for name, text in arguments}
    try:
        inspect.signature(make).bind(**given)
    except TypeError as error:
        raise UserError(f"--policy-arg NAME=VALUE gives what {factory} takes: {error}") from None
    except ValueError:
        pass  # some built-in functions do not tell what they take
    seed_everything(0)
    try:
        policy = make(**given)
    except Exception as error:
        raise UserError(
            f"--policy must make a policy, and {factory} failed: {error_text(error)}"
        ) from error
    return _with_generators(policy, factory)


class ObservationsAlone:
    """A policy whose predict_action takes observations alone, as Diffusion Policy's do."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["policy"], name)

    def predict_action(self, obs: dict[str, Tensor], generators: Sequence[torch.Generator]) -> Any:
        """Return what the policy does; it draws from the global generators, if at all."""
        return self.policy.predict_action(obs)


def _with_generators(policy: Any, factory: str) -> Predicts:
    """Return the policy in a form whose predict_action takes observations and generators."""
    predict = getattr(policy, "predict_action", None)
    if not callable(predict):
        raise UserError(
            f"--policy must make an object with predict_action(obs, generators), and "
            f"{factory} made a {type(policy).__name__}"
        )
    try:
        signature = inspect.signature(predict)
    except ValueError:
        return policy  # type: ignore[no-any-return]
    first, *others = signature.parameters.values() or (None,)
    # A second one with a default is an option of its own, unless it is ours by its name.
    asked = others[0] if others else first
    count = 1
    if getattr(policy, "uses_previous", False):
        count = 3
    elif asked is not None and (
        asked.kind is asked.VAR_POSITIONAL
        or asked.name == "generators"
        or (asked is not first and asked.default is asked.empty)
    ):
        count = 2
    try:
        signature.bind(*[None] * count)
    except TypeError:
        raise UserError(
            f"predict_action takes (obs, generators), or (obs) as in Diffusion Policy; that of "
            f"{factory} takes {one_line(signature)}"
        ) from None
    return ObservationsAlone(policy) if count == 1 else policy


def _find(factory: str, folder: Path | None) -> tuple[ModuleType, Callable[..., Any]]:
    where, _, name = factory.rpartition(":")
    if not where or not name.isidentifier():
        raise UserError(f"{_TAKES}, given {factory[:120]!r}")
    path = (folder or Path()) / Path(where).expanduser()
    of_file = where.endswith(".py") or "/" in where
    if of_file and not path.is_file():
        near = path.with_suffix(".py") if path.suffix == "" else path
        hint = f"; did you mean {where}.py:{name}?" if near != path and near.is_file() else ""
        raise UserError(f"{_TAKES}, and there is no file {where[:120]}{hint}")
    root = path.parent if of_file else folder
    if root is not None and str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        module = _of_file(path.resolve()) if of_file else importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise UserError(f"{_TAKES}, and {factory!r}: {error}") from error
    except Exception as error:
        text = error_text(error)
        raise UserError(f"{_TAKES}, and {where[:120]} cannot be imported: {text}") from error
    make = getattr(module, name, None)
    if not callable(make):
        raise UserError(f"{_TAKES}, and {where[:120]} has no {name}()")
    return module, make


def _of_file(path: Path) -> ModuleType:
    """Return the module of a file, imported once under a name that no other file has."""
    name = f"policy_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _value(text: str) -> Any:
    """Return a number, true, false, null, or a list where the text is one in JSON; else the text.

    NaN and Infinity stay text.
    """
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def policy_hash(
    policy: Predicts, factory: str, folder: Path | None, arguments: Arguments = ()
) -> str:
    """Return 12 hex digits of the hash of a policy just made: its code, arguments and weights.

    The code is the factory's file and, of the same folder or package, every file that its import
    statements name, and so on. A value of an argument that is a file or folder counts with its
    content. Weights are the torch modules, tensors and arrays among the policy's attributes.
    """
    digest = hashlib.sha256()
    module, make = _find(factory, folder)

    def add(name: str, content: bytes) -> None:
        digest.update(f"{len(name)} {name} {len(content)} ".encode())
        digest.update(content)

    add("factory", make.__name__.encode() if hasattr(make, "__name__") else b"")
    for name, content in sorted(_code(module).items()):
        add(name, content)
    for name, text in sorted(arguments):
        add(name, text.encode())
        for path in _files_of(text):
            with path.open("rb") as file:
                add(path.name, hashlib.file_digest(file, "sha256").digest())
    for values in _weights(policy, _DEEPEST):
        add(str(values.dtype) + str(tuple(values.shape)), values.tobytes())
    return digest.hexdigest()[:12]


def _files_of(text: str) -> list[Path]:
    """Return the file that an argument names, or all files of the folder."""
    path = Path(text)
    try:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [each for each in inside if each.is_file()]
    except OSError:  # too long for a name
        return []


def _code(module: ModuleType) -> dict[str, bytes]:
    """Return the source files of a module and of what it imports from the same place, by name."""
    file = getattr(module, "__file__", None)
    if file is None:
        return {}
    path = Path(file).resolve()
    dotted = module.__name__.split(".")
    package = path.name == "__init__.py"
    root = path.parents[len(dotted) - 1 + package]
    top = dotted[0] if len(dotted) > 1 or package else ""
    found: dict[str, bytes] = {}
    waiting = [path]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name in found or not path.is_file():
            continue
        found[name] = path.read_bytes()
        for imported in _imported(found[name], path.relative_to(root)):
            # Beside an installed package lie all others; what this project has is no policy's own.
            beside = "site-packages" not in root.parts and imported[0] not in _OWN
            if imported[0] == top or beside:
                stem = root.joinpath(*imported)
                waiting += [stem.with_suffix(".py"), stem / "__init__.py"]
    return found


def _imported(content: bytes, path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the modules that a file's import statements may name, as parts of a dotted name."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: len(path.parts) - node.level] if node.level else ()
            base = (*above, *(node.module or "").split(".")) if node.module else above
            named = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for parts in named:
            yield from (parts[:count] for count in range(1, len(parts) + 1))


def _weights(thing: Any, depth: int) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(thing, nn.Module):
        for _, value in sorted(thing.state_dict().items()):
            yield from _weights(value, 0)
    elif isinstance(thing, Tensor):
        if thing.layout == torch.strided:
            yield thing.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif isinstance(thing, np.ndarray):
        if not thing.dtype.hasobject:
            yield thing
    elif isinstance(thing, list | tuple | dict):
        for value in thing.values() if isinstance(thing, dict) else thing:
            if isinstance(value, nn.Module | Tensor | np.ndarray):
                yield from _weights(value, 0)
    elif depth and hasattr(thing, "__dict__") and not isinstance(thing, type | ModuleType):
        for _, value in sorted(vars(thing).items()):
            yield from _weights(value, depth - 1)

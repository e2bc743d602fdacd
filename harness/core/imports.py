"""Imports that take seconds: late, and with the garbage collector off."""

import gc
import importlib
import importlib.abc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def importing() -> Iterator[None]:
    """Switch the garbage collector off in the body, and exempt the imported objects from it.

    Repeated scans of torch's half million objects take a third of the time of its import.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load(name: str) -> Any:
    """Return "package.module:attribute" of this project, imported now.

    Entry points start what needs torch or Ray through this, so that a mistake in the input is
    answered before seconds of imports. tests/test_structure.py lists the callers.
    """
    module, _, attribute = name.partition(":")
    if module not in sys.modules:  # workers call this for every trial, and freeze nothing then
        with importing():
            importlib.import_module(module)
    return getattr(sys.modules[module], attribute)


class _NoPandas(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)


def keep_pandas_out() -> None:
    """Make pyarrow in this process go without pandas, which takes half a second to import.

    pyarrow imports pandas, where it is installed, the first time that a list becomes an array, to
    ask whether the list is a Series. It asks once; others can import pandas afterwards.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("pyarrow").array([])
    finally:
        sys.meta_path.remove(finder)

"""Imports that take seconds: late, and with the garbage collector off."""

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def importing() -> Iterator[None]:
    """Keep the garbage collector off in the body, and what was imported out of its sight for good.

    Scanning the half million objects of torch again and again takes a third of its import's time.
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
    with importing():
        return getattr(importlib.import_module(module), attribute)

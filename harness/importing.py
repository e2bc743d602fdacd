"""Imports that take a while, without a search for garbage that there cannot be."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import in the body: half a million objects that stay until the process ends.

    Python would look through them again and again, while they are made and ever after. That takes
    about a third of the time of importing torch, and of planning a sweep of thousands of trials.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

"""Imports that take a while, without a search for garbage that there cannot be."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import in the body: half a million objects that stay until the process ends.

    Python would look through them again and again, while they are made and ever after. That takes
    a fifth of the time that importing torch takes, and a third of that of planning a big sweep.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

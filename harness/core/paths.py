"""The folders of results, data and caches, and names that are safe as file names."""

import os
import re
from pathlib import Path

from harness.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"

# Beside the code, so that results do not depend on the working directory.
RESULTS = ROOT / "results"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.")


def is_uri(text: object) -> bool:
    """Return whether a results location is the URI of an object store, not a folder."""
    return isinstance(text, str) and _URI.match(text) is not None


def check_name(name: str, what: str = "a sweep's name") -> str:
    """Return the name if it is safe as a folder's name; UserError otherwise.

    1 to 100 letters, digits, `.`, `_` and `-`, the first a letter or digit: no path, no control
    character, no markup.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{what} is 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit; "
            f"given {name[:120]!r}"
        )
    return name


JOINED = " + "  # between the paths of several data sets
CACHE_VARIABLE = "IBC_HARNESS_CACHE"


def cache_folder() -> Path:
    """Return the folder of derived files: $IBC_HARNESS_CACHE, else data/cache in the repository."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser().absolute() if given else DATA / "cache"

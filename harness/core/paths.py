"""Where results, data and caches lie, and names that cannot leave their folder."""

import os
import re
from pathlib import Path

from harness.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"

# Beside the code, not in the working directory: results must not move with it.
RESULTS = ROOT / "results"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.")


def is_uri(text: object) -> bool:
    """Whether results lie on an object store and not in a folder."""
    return isinstance(text, str) and _URI.match(text) is not None


def check_name(name: str, what: str = "a sweep's name") -> str:
    """Return the name if it may be a folder's; UserError otherwise.

    Letters, digits, `.`, `_` and `-`, at most 100, the first a letter or digit: no path, no
    control character, no markup.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{what} is 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit; "
            f"given {name[:120]!r}"
        )
    return name


CACHE_VARIABLE = "IBC_HARNESS_CACHE"


def cache_folder() -> Path:
    """The folder of derived files: data/cache in the repository, or $IBC_HARNESS_CACHE."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser().absolute() if given else DATA / "cache"

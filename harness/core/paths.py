"""The folders of results, data and caches, and names that are safe as file names."""

import os
import re
from pathlib import Path

from harness.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = not (ROOT / "pyproject.toml").is_file()  # as a package, without the repository
_INSIDE = ROOT / "harness" if INSTALLED else ROOT  # setup.py
SEARCH_SPACES = _INSIDE / "search_spaces"
BUILT_IN_DATA = _INSIDE / "data" / "expert.zarr"
POLICIES = _INSIDE / "policies"

# In a repository beside the code, so that results do not depend on the working directory; of an
# installed package in the working directory.
_BESIDE = Path() if INSTALLED else ROOT
DATA = _BESIDE / "data"
RESULTS = _BESIDE / "results"
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


def names_alone(joined: str) -> str:
    """Return the names of several data sets without their folders."""
    return JOINED.join(Path(each).name for each in joined.split(JOINED))


CACHE_VARIABLE = "IBC_HARNESS_CACHE"


def cache_folder() -> Path:
    """Return the folder of derived files: $IBC_HARNESS_CACHE, else data/cache in the repository.

    Of an installed package it is the user's cache (~/.cache, as $XDG_CACHE_HOME says).
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    if INSTALLED:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ibc-harness"
    return DATA / "cache"


def search_space(given: Path) -> Path:
    """Return the file of a search space, which may be given by the name of one of ours."""
    if len(given.parts) != 1 or given.exists():
        return given
    named = SEARCH_SPACES / f"{given.name.removesuffix('.yaml')}.yaml"
    return named if named.is_file() else given

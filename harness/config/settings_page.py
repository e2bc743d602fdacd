"""docs/SETTINGS.md: every setting of a trial, from the dataclasses and their docstrings.

python -m harness.config.settings_page
"""

import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal

from harness.config.trial_config import TrialConfig

_HEAD = """# Settings

Every setting of a trial by its dotted name, as [search spaces](SEARCH_SPACES.md) write it.
`python -m harness.config.settings_page` prints this page from the dataclasses in
[ibc/config](../ibc/config) and `harness/config/trial_config.py`.
"""
_GROUPS = re.compile(r" (Images|States and keypoints|Both):$")  # headings inside a docstring


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_section("", TrialConfig)])


def _section(prefix: str, config: type) -> Iterator[str]:
    """Yield the lines of a dataclass's settings, then those of the ones inside it."""
    fields = dataclasses.fields(config)
    hints = typing.get_type_hints(config)
    own = [field for field in fields if not dataclasses.is_dataclass(hints[field.name])]
    if own:
        text, meanings = _docstring(config, [field.name for field in fields])
        yield f"## {prefix.rstrip('.')}\n\n{text}\n"
        yield "| setting | values | default | |\n|---|---|---|---|"
        for field in own:
            values, meaning = _values(hints[field.name]), meanings.get(field.name, "")
            if not meaning.startswith("retired"):
                row = f"| `{prefix}{field.name}` | {values} | {_default(field)} | {meaning} |"
                yield row.replace("|dE/da|", r"\|dE/da\|")
        yield ""
    for field in fields:
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _section(f"{prefix}{field.name}.", typing.cast(type, hints[field.name]))


def _docstring(config: type, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of the whole, and of each setting ("a, b: text. c: text")."""
    text = " ".join((inspect.getdoc(config) or "").split())
    any_of = "|".join(sorted(names, key=len, reverse=True))
    begin = re.compile(rf"(?:^|(?<=[.:)] ))((?:(?:{any_of})(?:, |: ))+)")
    parts = begin.split(text)
    meanings = {}
    for which, meaning in zip(parts[1::2], parts[2::2], strict=True):
        for name in re.findall(any_of, which):
            meanings[name] = _GROUPS.sub("", meaning.rstrip())
    return _GROUPS.sub("", parts[0].rstrip()), meanings


def _values(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    if isinstance(hint, UnionType):
        given = [_values(each) for each in typing.get_args(hint) if each is not NoneType]
        return ", ".join([*given, "`null`"])
    if typing.get_origin(hint) is tuple:
        of = [each for each in typing.get_args(hint) if each is not Ellipsis]
        return f"list of {_values(of[0])}"
    names = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text"}
    return names[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        assert field.default_factory is not dataclasses.MISSING
        value = field.default_factory()
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    plain = {None: "null", True: "true", False: "false"}
    return f"`{plain[value] if value is None or isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(page())

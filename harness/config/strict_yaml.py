"""A strict YAML reader: plain values only; ambiguities are refused with file, line and rule.

It follows the core schema of YAML 1.2: `1e-4` is a number, `yes` and `on` are strings. Values are
built from the parser's events, so tags cannot name Python objects and aliases cannot explode.
"""

import math
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.core.errors import UserError
from ibc.data.plain_files import open_plain

MAX_BYTES = 2**18
MAX_DEPTH = 32
MAX_VALUES = 100_000
Location = tuple[str | int, ...]


# The parser in C, if PyYAML was built with libyaml, as its wheels are.
_C_LOADER = getattr(yaml, "CSafeLoader", None)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class Document:
    """A file's content: nested dicts, lists and plain values, and the line of each."""

    name: str
    content: dict[str, Any]
    lines: Mapping[Location, int]

    def error(self, where: Location, rule: str) -> UserError:
        """Return the error for a place, with the file, its line (or its parent's) and the rule.

        where: the path of keys and list indices from the root.
        """
        for length in range(len(where), -1, -1):
            if where[:length] in self.lines:
                return _error(self.name, self.lines[where[:length]], rule)
        return _error(self.name, 1, rule)


def read(path: Path) -> Document:
    """Read a YAML file whose root is a mapping; UserError (file, line, rule) for anything else."""
    name = str(path)
    try:
        with open_plain(path.resolve(), sys.maxsize) as file:  # the user's own links are followed
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(str(error)) from None
    return parse(raw, name)


def parse(raw: bytes, name: str) -> Document:
    """Parse the bytes of a YAML file, as `read` does; `name` is its name in errors."""
    if len(raw) > MAX_BYTES:
        raise _error(name, 1, f"the file must be at most {MAX_BYTES // 1024} KiB")
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _error(name, 1, "the file must be UTF-8 without a byte order mark")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _error(
            name, line, f"the file must be UTF-8, given byte {raw[error.start]:#x}"
        ) from None
    if _C_LOADER is not None:
        with suppress(yaml.YAMLError):  # the parser in Python has clearer errors
            return _Builder(name, text, _C_LOADER).document()
    try:
        return _Builder(name, text, yaml.SafeLoader).document()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _error(name, line, f"control character {int(error.character):#x}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"{error.problem or error.context}"
        if "'\\t'" in problem:
            problem = "indent with spaces, given a tab"
        raise _error(name, mark.line + 1 if mark else 1, problem) from None


class _Builder:
    def __init__(self, name: str, text: str, loader: Any) -> None:
        self.name = name
        # Events come one by one, so an alias bomb is found before it is expanded.
        self.events = yaml.parse(text, Loader=loader)
        self.lines: dict[Location, int] = {}
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.values = 0

    def document(self) -> Document:
        next(self.events)  # the stream starts
        if isinstance(next(self.events), yaml.StreamEndEvent):
            raise self.error(1, "the file must hold a mapping (key: value), it is empty")
        first = next(self.events)
        line = _line(first)
        if not isinstance(first, yaml.MappingStartEvent):
            raise self.error(line, "the file must hold a mapping (key: value) at its root")
        content: dict[str, Any] = self.value(first, ())
        next(self.events)  # the document ends
        further = next(self.events)
        if not isinstance(further, yaml.StreamEndEvent):
            raise self.error(_line(further), "the file must hold a single document")
        return Document(self.name, content, self.lines)

    def value(self, event: Any, where: Location) -> Any:
        line = _line(event)
        self.lines[where] = line
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self.error(line, f"*{event.anchor} must name an anchor that stands before it")
            value, size = self.anchors[event.anchor]
            self.count(size, line)
            return value
        before = self.values
        self.count(1, line)
        if event.tag is not None:
            raise self.error(line, f"tags are not read, given {event.tag}")
        if len(where) > MAX_DEPTH:
            raise self.error(line, f"values may be nested {MAX_DEPTH} deep")
        value = self.content(event, where, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.values - before
        return value

    def content(self, event: Any, where: Location, line: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return event.value if event.style else self.plain(event.value, line)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                items.append(self.value(item, (*where, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            line = _line(key)
            if not isinstance(key, yaml.ScalarEvent) or key.tag is not None:
                raise self.error(line, "a key must be a plain word")
            if key.value in mapping:
                first = self.lines[(*where, key.value)]
                raise self.error(
                    line, f"key {key.value!r} must be given once, it is on line {first} too"
                )
            self.count(1, line)
            mapping[key.value] = self.value(next(self.events), (*where, key.value))
            self.lines[(*where, key.value)] = line
        return mapping

    def plain(self, text: str, line: int) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            if len(text) > 18:
                raise self.error(line, f"a whole number has at most 18 digits, given {text[:40]}")
            return int(text)
        if _LEADING_ZERO.fullmatch(text):
            raise self.error(line, f"a number has no leading zero, given {text[:40]}")
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            number = math.nan if _NOT_FINITE.fullmatch(text) else float(text)
            if not math.isfinite(number):
                raise self.error(line, f"a number must be finite, given {text[:40]}")
            return number
        return text

    def count(self, values: int, line: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise self.error(line, f"the file may hold {MAX_VALUES:,} values, aliases written out")

    def error(self, line: int, rule: str) -> UserError:
        return _error(self.name, line, rule)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _error(name: str, line: int, rule: str) -> UserError:
    return UserError(f"{name}:{line}: {rule}")

"""What a Parquet file takes in memory when it is decoded, by its footer and its pages' headers.

Nothing is decoded for it. Both are structs of Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md) with the fields
of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift. The footer's
own sums are not used, as nothing compares them with the pages before memory is allocated for these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Ours have a tenth of these. Of a column one page at a time is in memory, of about a megabyte.
MAX_FOOTER_BYTES, MAX_PAGE_BYTES = 2**21, 2**26
MAX_HEADER_BYTES, MAX_HEADERS_BYTES = 2**15, 2**22  # of a page, and of all pages together
_MAGIC = b"PAR1"
# PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, RLE_DICTIONARY. In others a few bytes can be many texts.
_ENCODINGS = {0, 2, 3, 4, 8}
# Thrift's types.
_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE, _TEXT = 1, 2, 3, {4, 5, 6}, 7, 8
_LISTS, _STRUCT = {9, 10}, 12
# Numbers of fields: of the footer, a group of rows, a chunk of a column, an element of the schema,
# the header of a page, and in it those of a data page, a dictionary and a data page of version 2.
_SCHEMA, _GROUPS = 2, 4
_COLUMNS, _ROWS = 1, 3
_METADATA, _VALUES, _COMPRESSED, _DATA_PAGE, _DICTIONARY = 3, 5, 7, 9, 11
_REPETITION, _CHILDREN, _REPEATED = 3, 5, 2
_PAGE_BYTES, _PAGE_COMPRESSED = 2, 3
_ENCODING_IN = {5: 2, 7: 2, 8: 4}
# What a field that is missing or of another type, and content that ends early or nests deep, raise.
_BROKEN = (LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Sizes:
    """Rows and columns of a Parquet file, and the bytes of all its pages when decompressed."""

    rows: int
    columns: int
    stored: int


def sizes(content: bytes) -> Sizes:
    """Return the sizes of a Parquet file; ValueError for one that is not whole, or is nested."""
    footer = flat_footer(content)
    rows = stored = headers = 0
    try:
        for group in footer[_GROUPS]:
            if group[_ROWS] < 0:
                raise ValueError(f"a group has {group[_ROWS]:,} rows")
            rows += group[_ROWS]
            for chunk in group[_COLUMNS]:
                for size, header in _pages(content, chunk[_METADATA]):
                    stored, headers = stored + size, headers + header
                    if headers > MAX_HEADERS_BYTES:
                        raise ValueError(
                            f"its pages' headers have over {MAX_HEADERS_BYTES:,} bytes"
                        )
    except _BROKEN as error:
        raise ValueError(f"its footer or a page's header is broken: {error!r}") from error
    return Sizes(rows, len(footer[_SCHEMA]) - 1, stored)


def flat_footer(content: bytes) -> dict[int, Any]:
    """Return the footer of a file, of which the end is enough; ValueError for a nested schema.

    Its texts are left out.
    """
    length = int.from_bytes(content[-8:-4], "little")
    if content[-4:] != _MAGIC or length > min(MAX_FOOTER_BYTES, len(content)) - 8:
        raise ValueError(f"it has no footer of at most {MAX_FOOTER_BYTES:,} bytes")
    try:
        footer = _struct(content, len(content) - 8 - length)[0]
        for column in footer[_SCHEMA][1:]:
            if column.get(_CHILDREN) or column.get(_REPETITION) == _REPEATED:
                raise ValueError("a table has one value in each row of a column")
    except _BROKEN as error:
        raise ValueError(f"its footer is broken: {error!r}") from error
    return footer


def _pages(content: bytes, chunk: dict[int, Any]) -> Iterator[tuple[int, int]]:
    """Yield each page of a column's chunk: its size when decompressed, and that of its header."""
    if not chunk[_VALUES]:
        return  # of an empty table; no page is read then
    at = chunk[_DATA_PAGE]
    if 0 < chunk.get(_DICTIONARY, 0) < at:
        at = chunk[_DICTIONARY]
    end = at + chunk[_COMPRESSED]
    if not 0 < at <= end <= len(content):
        raise ValueError("a column lies outside the file")
    while at < end:
        header, length = _struct(content[at : at + MAX_HEADER_BYTES], 0)
        size, compressed = header[_PAGE_BYTES], header[_PAGE_COMPRESSED]
        if not 0 <= size <= MAX_PAGE_BYTES or compressed < 0:
            raise ValueError(f"a page has at most {MAX_PAGE_BYTES:,} bytes, this one has {size:,}")
        for name in _ENCODING_IN.keys() & header:
            if header[name][_ENCODING_IN[name]] not in _ENCODINGS:
                raise ValueError(f"a page has encoding {header[name][_ENCODING_IN[name]]}")
        yield size, length
        at += length + compressed
    if at != end:
        raise ValueError("a page lies outside its column")


def _struct(content: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the values of a struct by their fields' numbers, and where it ends.

    A text is None: nobody asks for it. IndexError beyond the end.
    """
    found: dict[int, Any] = {}
    number = 0
    while head := content[at]:
        kind = head & 15
        if head > 15:
            number, at = number + (head >> 4), at + 1
        else:
            number, at = _integer(content, at + 1)
        if kind in _INTEGERS:  # most are: this saves a call
            found[number], at = _integer(content, at)
        elif kind <= _FALSE:
            found[number] = kind == _TRUE
        else:
            found[number], at = _value(content, at, kind)
    return found, at + 1


def _value(content: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _integer(content, at)
    if kind == _TEXT:
        length, at = _varint(content, at)
        return None, at + length
    if kind == _STRUCT:
        return _struct(content, at)
    if kind in _LISTS:
        count, kind = content[at] >> 4, content[at] & 15
        count, at = _varint(content, at + 1) if count == 15 else (count, at + 1)
        values = []
        for _ in range(count):
            value, at = _value(content, at, kind)
            values.append(value)
        return values, at
    if kind <= _BYTE:  # a truth value in a list is a byte, too
        return content[at], at + 1
    if kind == _DOUBLE:
        return None, at + 8
    raise ValueError(f"it has a value of type {kind}")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    byte = content[at]
    if byte < 128:
        return byte, at + 1
    found, shift = byte & 127, 7
    while (byte := content[at + 1]) > 127 and shift < 63:
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
    return found | byte << shift, at + 2


def _integer(content: bytes, at: int) -> tuple[int, int]:
    """Return a signed number, which is in zigzag."""
    found, at = (content[at], at + 1) if content[at] < 128 else _varint(content, at)
    return (found >> 1) ^ -(found & 1), at

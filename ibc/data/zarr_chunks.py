"""Checks of one stored chunk, from its first bytes, before it is decoded.

Formats: the zarr v3 specification (codec chains, sharding_indexed), the 16-byte header of c-blosc
1, RFC 8878 for zstd frames, RFC 1952 for gzip; numcodecs' lz4 puts the decoded size in four bytes.
"""

import math
import zlib
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from ibc.data.store_files import placeholder

COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4")
CHECKSUM_BYTES = 4
_HEAD = 24


@dataclass(frozen=True)
class Codecs:
    """How a chunk is encoded: at most one compressor, then at most one CRC-32C.

    The list of compressors is fixed: numcodecs has codecs that unpickle, and the decoded size must
    be known before decoding.
    """

    compressor: str | None
    checksum: bool

    def __post_init__(self) -> None:
        if self.compressor is not None and self.compressor not in COMPRESSORS:
            rule = f"the compressor must be one of {', '.join(COMPRESSORS)}"
            raise ValueError(f"{rule}, got {self.compressor!r}")


@dataclass(frozen=True)
class Shards:
    """How a shard file is divided: the shape of its parts, and where and how its index is kept."""

    ABSENT: ClassVar[int] = 2**64 - 1

    chunks: tuple[int, ...]
    index_at_end: bool
    index_checksum: bool

    def index(
        self, stream: BinaryIO, size: int, shard: tuple[int, ...]
    ) -> NDArray[np.uint64] | None:
        """Offset and length of each part (parts along each axis..., 2); None if truncated."""
        grid = tuple(n // c for n, c in zip(shard, self.chunks, strict=True))
        plain = 16 * math.prod(grid)
        length = plain + CHECKSUM_BYTES * self.index_checksum
        if size < length:
            return None
        stream.seek(size - length if self.index_at_end else 0)
        index = np.frombuffer(stream.read(plain), "<u8").reshape(*grid, 2)
        stored = index[..., 0] != self.ABSENT
        outside = index[..., 0] > np.uint64(2**62), index[..., 1] > np.uint64(2**62)
        return None if bool((stored & (outside[0] | outside[1])).any()) else index


def encoded_fault(
    codecs: Codecs, stream: BinaryIO, offset: int, length: int, expected: int
) -> str | None:
    """What is wrong with the `length` bytes at `offset`, which must decode to `expected` bytes.

    By hand, because c-blosc reads as far as its header says, past the end of a truncated chunk, and
    a decompression bomb must be refused before it is decoded.
    """
    fault = _fault(codecs, stream, offset, length, expected)
    if fault is None:
        return None
    stream.seek(0)
    return placeholder(stream.read(_HEAD)) or fault


def _fault(codecs: Codecs, stream: BinaryIO, offset: int, length: int, expected: int) -> str | None:
    length -= CHECKSUM_BYTES * codecs.checksum
    stream.seek(offset)
    head = stream.read(max(0, min(length, 18)))
    if codecs.compressor is None:
        declared: int | None = length
    elif codecs.compressor == "blosc":
        if len(head) < 16 or int.from_bytes(head[12:16], "little") != length:
            return f"is truncated: {max(length, 0)} bytes, its header does not say so"
        declared = int.from_bytes(head[4:8], "little")
    elif codecs.compressor == "zstd":
        declared, start = _zstd_header(head)
        if declared is not None and _zstd_end(stream, offset + start, head) != offset + length:
            return "is truncated, or something follows it"
    elif codecs.compressor == "lz4":
        declared = int.from_bytes(head[:4], "little")
    else:
        stream.seek(offset)
        decoder = zlib.decompressobj(31 if codecs.compressor == "gzip" else 15)
        try:
            declared = len(decoder.decompress(stream.read(length), expected + 1))
        except zlib.error as error:
            return f"cannot be decoded: {error}"
        if declared <= expected and (not decoder.eof or decoder.unused_data):
            return "is truncated, or something follows it"
    if declared is None:
        return "is truncated, or does not declare its decoded size"
    if declared != expected:
        return f"decodes to {declared} bytes, its shape needs {expected}"
    return None


def _zstd_header(head: bytes) -> tuple[int | None, int]:
    """The decoded size that a zstd frame declares (RFC 8878, 3.1.1.1), and its header's length.

    None if it declares none.
    """
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None, 0
    descriptor = head[4]
    single = descriptor >> 5 & 1
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not width or len(head) < start + width:
        return None, 0
    size = int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)
    return size, start + width


def _zstd_end(stream: BinaryIO, block: int, head: bytes) -> int | None:
    """Where a zstd frame ends whose first block is at `block` (RFC 8878, 3.1.1.2); None if torn.

    A further frame would be decoded too, whatever size it declares.
    """
    last = False
    while not last:
        stream.seek(block)
        header = stream.read(3)
        if len(header) < 3:
            return None
        fields = int.from_bytes(header, "little")
        last, run_length, size = bool(fields & 1), fields >> 1 & 3 == 1, fields >> 3
        if not size and not last:
            return None  # no encoder writes one; a file of nothing else would take minutes
        block += 3 + (1 if run_length else size)
    return block + (4 if head[4] >> 2 & 1 else 0)

"""The checksum of a file as HDFS has it: the MD5 of the MD5s of the CRC-32Cs of its chunks, block by block.

It depends on how long blocks and chunks are: it equals that of the same file in HDFS with the defaults there,
128 MiB and 512 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final

from forebay.api.hadoop._chunks import crc32c_chunks
from forebay.api.hadoop.status import FileChecksum
from forebay.config import MIB

BLOCK_BYTES: Final = 128 * MIB
CHUNK_BYTES: Final = 512

_READ_BYTES: Final = 4 * MIB
_BUFFER_BYTES: Final = 32
_HEAD: Final = struct.Struct(">iq")


def checksum_of(size: int, readinto: Callable[[memoryview, int], None]) -> FileChecksum:
    """Return the checksum of size bytes; readinto(buffer, offset) fills a buffer with some of them."""
    blocks = b""
    buffer = bytearray(min(_READ_BYTES, size))
    for begin in range(0, size, BLOCK_BYTES):
        block = hashlib.md5(usedforsecurity=False)
        end = min(begin + BLOCK_BYTES, size)
        for offset in range(begin, end, _READ_BYTES):
            part = memoryview(buffer)[: min(_READ_BYTES, end - offset)]
            readinto(part, offset)
            block.update(crc32c_chunks(part, CHUNK_BYTES))
        blocks += block.digest()
    md5 = hashlib.md5(_padded(blocks), usedforsecurity=False).digest()
    if not size:
        return FileChecksum("MD5-of-0MD5-of-0CRC32", _HEAD.pack(0, 0) + md5)
    # HDFS names no number of checksums in a block where there is one block.
    per_block = BLOCK_BYTES // CHUNK_BYTES if size > BLOCK_BYTES else 0
    algorithm = f"MD5-of-{per_block}MD5-of-{CHUNK_BYTES}CRC32C"
    return FileChecksum(algorithm, _HEAD.pack(CHUNK_BYTES, per_block) + md5)


def _padded(blocks: bytes) -> bytes:
    """Return the bytes with zeros behind, as HDFS takes the sum over all of a buffer that doubles from 32."""
    length = _BUFFER_BYTES
    while length < len(blocks):
        length *= 2
    return blocks.ljust(length, b"\0")

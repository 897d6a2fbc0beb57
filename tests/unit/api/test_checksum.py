"""Checksums of files as HDFS makes them."""

from __future__ import annotations

import hashlib
import os
import struct

import pytest

from forebay.api.hadoop._chunks import crc32c_chunks
from forebay.api.hadoop.checksum import CHUNK_BYTES, checksum_of
from forebay.api.hadoop.status import FileChecksum
from forebay.config import MIB


def checksum(data: bytes) -> FileChecksum:
    def readinto(buffer: memoryview, offset: int) -> None:
        buffer[:] = data[offset : offset + len(buffer)]

    return checksum_of(len(data), readinto)


def test_an_empty_file_has_the_sum_that_hdfs_is_known_by() -> None:
    found = checksum(b"")
    assert (found.algorithm, found.length) == ("MD5-of-0MD5-of-0CRC32", 28)
    assert found.bytes.hex() == "0" * 24 + "70bc8f4b72a86921468bf8e8441dce51"


def test_known_answers_of_chunks() -> None:
    # The sums of RFC 3720, appendix B.4.
    assert crc32c_chunks(bytes(32), 32).hex() == "8a9136aa"
    assert crc32c_chunks(b"\xff" * 32 + bytes(32), 32).hex() == "62a8ab43" + "8a9136aa"
    assert crc32c_chunks(bytes(33), 32)[4:] == crc32c_chunks(b"\0", 32)
    assert crc32c_chunks(b"", 32) == b""
    with pytest.raises(ValueError, match="chunk_bytes"):
        crc32c_chunks(b"1", 0)


def test_one_block() -> None:
    data = os.urandom(5 * MIB + 7)
    sums = crc32c_chunks(data, CHUNK_BYTES)
    block = hashlib.md5(sums).digest()
    found = checksum(data)
    assert found.algorithm == "MD5-of-0MD5-of-512CRC32C"
    assert found.bytes == struct.pack(">iq", 512, 0) + hashlib.md5(block + bytes(16)).digest()


def test_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.api.hadoop.checksum.BLOCK_BYTES", 4 * MIB)
    data = os.urandom(9 * MIB)
    blocks = [data[begin : begin + 4 * MIB] for begin in range(0, len(data), 4 * MIB)]
    joined = b"".join(hashlib.md5(crc32c_chunks(block, CHUNK_BYTES)).digest() for block in blocks)
    found = checksum(data)
    assert found.algorithm == "MD5-of-8192MD5-of-512CRC32C"
    assert found.bytes == struct.pack(">iq", 512, 8192) + hashlib.md5(joined.ljust(64, b"\0")).digest()

"""The files of a store as the tests read and edit them: the structs of csrc/src/layout.h, and their sums.

Written a second time on purpose: a change of the format that is not meant as one shows here.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char, c_int64, c_uint8, c_uint32, c_uint64
from pathlib import Path
from typing import Final, TypeVar

from forebay.store.report import COUNTERS

PATH_MAX: Final = 256
TIERS_MAX: Final = 16
SUPER_BYTES: Final = 49152
ACCOUNTS: Final = 64
PAGE_BYTES: Final = 65536
PAGE_HEADER_BYTES: Final = 64
SLOT_BYTES: Final = 32
SLOT_PRESENT: Final = 1
SEGMENT_SUPER_BYTES: Final = 4096
RECORD_BYTES: Final = 64
CHUNK_BYTES: Final = 65536

_POLYNOMIAL: Final = 0x82F63B78
_TABLE: Final = [0] * 256
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = _value >> 1 ^ (_POLYNOMIAL if _value & 1 else 0)
    _TABLE[_byte] = _value


def crc32c(data: bytes) -> int:
    """The CRC of all sums on disk (Castagnoli)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def offset_of(kind: type[ctypes.Structure], name: str) -> int:
    """Where a field begins."""
    return int(getattr(kind, name).offset)


class TierSaved(ctypes.Structure):
    """struct fb_tier_saved."""

    _fields_ = [
        ("path", c_char * PATH_MAX),
        ("quota_bytes", c_uint64),
        ("segment_bytes", c_uint64),
        ("medium", c_uint32),
        ("high_permille", c_uint32),
        ("low_permille", c_uint32),
        ("level", c_uint32),
        ("segment_base", c_uint32),
        ("segment_count", c_uint32),
        ("whole_base", c_uint32),
        ("whole_count", c_uint32),
    ]


class AccountSaved(ctypes.Structure):
    """struct fb_account_saved."""

    _fields_ = [("id_plus_1", c_uint64), ("counters", c_uint64 * len(COUNTERS))]


class IndexSuper(ctypes.Structure):
    """struct fb_index_super."""

    _fields_ = [
        ("magic", c_uint64),
        ("format", c_uint32),
        ("features", c_uint32),
        ("store_id", c_uint8 * 16),
        ("row_count", c_uint32),
        ("segment_count", c_uint32),
        ("page_count_max", c_uint32),
        ("directory_bits", c_uint32),
        ("tier_count", c_uint32),
        ("ghost_count", c_uint32),
        ("block_bytes", c_uint32),
        ("reserved", c_uint32),
        ("tiers", TierSaved * TIERS_MAX),
        ("static_crc", c_uint64),
        ("boot_id", c_char * 40),
        ("live_id", c_uint64),
        ("live_path", c_char * (PATH_MAX + 64)),
        ("clean", c_uint32),
        ("page_count", c_uint32),
        ("verify_generation", c_uint32),
        ("contents_crc", c_uint32),
        ("clock_base_ms", c_int64),
        ("closed_boot_ms", c_int64),
        ("closed_real_ms", c_int64),
        ("sequence", c_uint64),
        ("accounts", AccountSaved * ACCOUNTS),
        ("dynamic_crc", c_uint64),
    ]

    def sum_up(self) -> None:
        """Make both sums right again after an edit that is not meant as damage."""
        self.static_crc = crc32c(bytes(self)[: offset_of(IndexSuper, "static_crc")])
        dynamic = slice(offset_of(IndexSuper, "boot_id"), offset_of(IndexSuper, "dynamic_crc"))
        self.dynamic_crc = crc32c(bytes(self)[dynamic])


class SegmentSuper(ctypes.Structure):
    """struct fb_segment_super."""

    _fields_ = [
        ("magic", c_uint64),
        ("format", c_uint32),
        ("generation", c_uint32),
        ("store_id", c_uint8 * 16),
        ("tier_number", c_uint32),
        ("local_number", c_uint32),
        ("dataset_id", c_uint32),
        ("whole_block_bytes", c_uint32),
        ("file_bytes", c_uint64),
        ("whole_bytes", c_uint64),
        ("whole_hi", c_uint64),
        ("whole_lo", c_uint64),
        ("whole_check", c_uint64),
        ("whole_sum", c_uint32),
        ("crc", c_uint32),
    ]


class Record(ctypes.Structure):
    """struct fb_record."""

    _fields_ = [
        ("hi", c_uint64),
        ("lo", c_uint64),
        ("check", c_uint64),
        ("sequence", c_uint64),
        ("unit", c_uint32),
        ("length", c_uint32),
        ("generation", c_uint32),
        ("owner", c_uint32),
        ("expiry", c_uint32),
        ("crc", c_uint32),
        ("self_crc", c_uint32),
        ("state", c_uint32),
    ]


class Slot(ctypes.Structure):
    """struct fb_slot."""

    _fields_ = [
        ("lo", c_uint64),
        ("check", c_uint64),
        ("place", c_uint64),
        ("extent", c_uint64),
    ]


AnyStruct = TypeVar("AnyStruct", bound=ctypes.Structure)


def load(path: Path, kind: type[AnyStruct], offset: int = 0) -> AnyStruct:
    """Read a struct from a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return kind.from_buffer_copy(file.read(ctypes.sizeof(kind)))


def save(path: Path, value: ctypes.Structure, offset: int = 0) -> None:
    """Write a struct into a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(value))


@contextmanager
def edited_super(index: Path) -> Iterator[IndexSuper]:
    """Edit the index's superblock; its sums are right afterwards."""
    value = load(index, IndexSuper)
    yield value
    value.sum_up()
    save(index, value)


def record_offset(path: Path, data_offset: int) -> int:
    """Where in a slotted segment file the table entry of the data at an offset lies."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        for offset in range(size_bytes - RECORD_BYTES, SEGMENT_SUPER_BYTES, -RECORD_BYTES):
            record = Record.from_buffer_copy(view, offset)
            if record.unit << 6 == data_offset:
                return offset
            assert record.generation, f"{path}: no entry for the data at {data_offset}"
    raise AssertionError(f"{path}: no entry for the data at {data_offset}")


def first_page_offset(value: IndexSuper) -> int:
    """Where the pages of slots begin in the index."""
    table_bytes = int(value.segment_count) * 64
    return SUPER_BYTES + (table_bytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES


def slot_offsets(index: Path) -> list[int]:
    """Where in the index the slots in use lie."""
    value = load(index, IndexSuper)
    raw = index.read_bytes()
    begin = first_page_offset(value)
    return [
        offset
        for page in range(begin, len(raw), PAGE_BYTES)
        for offset in range(page + PAGE_HEADER_BYTES, page + PAGE_BYTES - SLOT_BYTES + 1, SLOT_BYTES)
        if Slot.from_buffer_copy(raw, offset).place & 3 == SLOT_PRESENT
    ]

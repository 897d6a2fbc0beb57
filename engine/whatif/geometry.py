"""The figures by which the store lays out a tier: they are those of csrc/src, and a test compares them.

Sources in csrc/src: geometry.c (segments), record.c and space.c (records in them), segment.c (watermarks),
choose.c (which side of them), ghost.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forebay.config import KIB, MIB

TIER_BYTES_MIN: Final = 4 * MIB

_SEGMENTS_AIMED_AT: Final = 512
_SEGMENTS_AT_LEAST: Final = 16
_SEGMENT_BYTES_MIN: Final = MIB
_SEGMENT_BYTES_MAX: Final = 256 * MIB
_SUPER_BYTES: Final = 4 * KIB
ENTRY_BYTES: Final = 64
_CHUNK_BYTES: Final = 64 * KIB
_SMALL_ALIGN: Final = 64
LARGE_ALIGN: Final = 4 * KIB

_HIGH_PERMILLE: Final = 950
_LOW_PERMILLE: Final = 900
_EVICT_AHEAD: Final = 6
_MOVER_RESERVE: Final = 2

_GHOST_BYTES: Final = 8 * KIB
_GHOSTS_MIN: Final = 4_096
_GHOSTS_MAX: Final = 1 << 20
GHOST_WAYS: Final = 7
_GHOST_SET: Final = 8


@dataclass(frozen=True, slots=True)
class Geometry:
    """A tier of a size. Marks and limits are numbers of segments in use.

    In a segment records begin at begin_bytes, and share what lies before end_bytes with their entries.
    put_limit, kept_limit, moved_limit: up to which another one is opened for a put under s3fifo and lru, for
    one under epoch, and for what the evictor moves. Above high it evicts, down to low.
    """

    segments: int
    begin_bytes: int
    end_bytes: int
    high: int
    low: int
    put_limit: int
    kept_limit: int
    moved_limit: int
    ghost_sets: int


def geometry_of(quota_bytes: int, block_bytes: int) -> Geometry:
    """Return the geometry of a tier with the usual watermarks, in a cache of one tier.

    The caller guarantees TIER_BYTES_MIN at least, and a power of two for block_bytes.
    """
    segment_bytes = _segment_bytes(quota_bytes, block_bytes)
    high_bytes = quota_bytes // 1000 * _HIGH_PERMILLE
    high, low = _marks(quota_bytes, segment_bytes)
    reserve_bytes = _MOVER_RESERVE * segment_bytes
    put_bytes = quota_bytes - reserve_bytes if quota_bytes > reserve_bytes else quota_bytes
    ghosts = _power_of_two_below(max(_GHOSTS_MIN, min(quota_bytes // _GHOST_BYTES, _GHOSTS_MAX)))
    return Geometry(
        segments=quota_bytes // segment_bytes,
        begin_bytes=_SUPER_BYTES,
        end_bytes=segment_bytes,
        high=high // segment_bytes,
        low=low // segment_bytes,
        put_limit=max(put_bytes // segment_bytes, 1),
        kept_limit=max(high_bytes // segment_bytes, 1),
        moved_limit=quota_bytes // segment_bytes,
        ghost_sets=ghosts // _GHOST_SET,
    )


def extent_of(length_bytes: int) -> tuple[int, int]:
    """Return the bytes that a record takes beside its entry in the table, and what it is aligned to."""
    chunks = -(-length_bytes // _CHUNK_BYTES)
    extent = -(-length_bytes // 8) * 8 + (4 * chunks if chunks > 1 else 0)
    align = LARGE_ALIGN if length_bytes >= _CHUNK_BYTES else _SMALL_ALIGN
    return -(-extent // 64) * 64, align


def _segment_bytes(quota_bytes: int, block_bytes: int) -> int:
    aimed = _power_of_two_below(quota_bytes // _SEGMENTS_AIMED_AT)
    for_a_block = min(_power_of_two_below(quota_bytes // _SEGMENTS_AT_LEAST), block_bytes)
    data = max(_SEGMENT_BYTES_MIN, min(max(aimed, for_a_block), _SEGMENT_BYTES_MAX))
    return data + data // 512 + 3 * 4 * KIB


def _marks(quota_bytes: int, segment_bytes: int) -> tuple[int, int]:
    """Return the bytes in use at which eviction begins and ends."""
    high = quota_bytes // 1000 * _HIGH_PERMILLE
    low = quota_bytes // 1000 * _LOW_PERMILLE
    ahead = _EVICT_AHEAD * segment_bytes
    if quota_bytes < 4 * ahead:
        ahead = (_MOVER_RESERVE + 1) * segment_bytes
    latest = max(quota_bytes - ahead, 0)
    if high > latest:
        low = max(low - (high - latest), 0)
        high = latest
    return high, low


def _power_of_two_below(number: int) -> int:
    return 1 << max(number.bit_length() - 1, 0)

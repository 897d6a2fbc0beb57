"""Counts of a mount's operations and how long they took, cheap enough for each of them.

Durations are counted by powers of two of a microsecond, so a quantile is exact to a factor of two, whatever
the number of operations.
"""

from __future__ import annotations

from array import array
from enum import IntEnum
from typing import Any, Final

_NS_PER_US: Final = 1_000
# The last bucket has all that took longer than 2**30 us, 18 minutes.
_BUCKETS: Final = 32
_QUANTILES: Final = (0.5, 0.99)


class Operation(IntEnum):
    """What the kernel asks for."""

    LOOKUP = 0
    GETATTR = 1
    OPEN = 2
    READ = 3
    RELEASE = 4
    OPENDIR = 5
    READDIR = 6
    RELEASEDIR = 7
    STATFS = 8
    GETXATTR = 9
    LISTXATTR = 10
    CREATE = 11
    WRITE = 12
    FLUSH = 13
    FSYNC = 14
    SETATTR = 15
    UNLINK = 16
    MKDIR = 17
    RMDIR = 18
    RENAME = 19


class Counters:
    """The counts of one mount. Threads: one, that of the event loop."""

    def __init__(self) -> None:
        """Begin with nothing."""
        kinds = len(Operation)
        self._counts: Final = array("Q", bytes(8 * kinds * _BUCKETS))
        self._total_ns: Final = array("Q", bytes(8 * kinds))
        self._max_ns: Final = array("Q", bytes(8 * kinds))
        self._failed: Final = array("Q", bytes(8 * kinds))
        self._waited: Final = array("Q", bytes(8 * kinds))

    def add(self, operation: int, taken_ns: int) -> None:
        """Count an operation that took so long, and how it ended is told apart."""
        bucket = (taken_ns // _NS_PER_US).bit_length()
        self._counts[operation * _BUCKETS + (bucket if bucket < _BUCKETS else _BUCKETS - 1)] += 1
        self._total_ns[operation] += taken_ns
        if taken_ns > self._max_ns[operation]:
            self._max_ns[operation] = taken_ns

    def fail(self, operation: int) -> None:
        """Count that it was answered with an error."""
        self._failed[operation] += 1

    def wait(self, operation: int) -> None:
        """Count that it could not be answered at once."""
        self._waited[operation] += 1

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return by operation, of those that came, the counts and the latencies in microseconds."""
        found = {}
        for operation in Operation:
            counts = self._counts[operation * _BUCKETS : (operation + 1) * _BUCKETS]
            total = sum(counts)
            if total == 0:
                continue
            found[operation.name.lower()] = {
                "count": total,
                "errors": self._failed[operation],
                "waited": self._waited[operation],
                "mean_us": round(self._total_ns[operation] / total / _NS_PER_US, 1),
                "max_us": round(self._max_ns[operation] / _NS_PER_US, 1),
                **{
                    f"p{quantile * 100:g}_us": _quantile_us(counts, total * quantile)
                    for quantile in _QUANTILES
                },
            }
        return found


def _quantile_us(counts: array[int], wanted: float) -> int:
    """Return the upper edge of the bucket up to which so many have come."""
    reached = 0
    for bucket, count in enumerate(counts):
        reached += count
        if reached >= wanted:
            return 1 << bucket
    return 1 << (len(counts) - 1)

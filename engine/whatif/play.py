"""Playing a trace against caches of several sizes and retentions, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from forebay.cache import RETENTIONS, Trace
from forebay.config import nearest, parse_bytes
from forebay.errors import ConfigError
from forebay.whatif.geometry import TIER_BYTES_MIN, geometry_of
from forebay.whatif.reads import READS_MAX, Reads
from forebay.whatif.tier import EpochTier, LruTier, S3FifoTier, Tier

SHARES_DEFAULT: Final = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)

_TIERS: Final[dict[str, type[Tier]]] = {"epoch": EpochTier, "s3fifo": S3FifoTier, "lru": LruTier}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a tier of size_bytes makes of a trace: hits and hit bytes over all that is read, from empty on."""

    retention: str
    size_bytes: int
    hit_ratio: float
    byte_hit_ratio: float


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A trace and what was made of it.

    accesses: calls that read; reads, read_bytes: the blocks that they were of; distinct_bytes: these, each
    once. rate: the share of the blocks that was looked at, 1 for all; the figures are for all.
    """

    trace: str
    block_bytes: int
    accesses: int
    reads: int
    read_bytes: int
    distinct_bytes: int
    rate: float
    estimates: tuple[Estimate, ...]

    @property
    def sizes(self) -> list[int]:
        """The sizes, in order."""
        return sorted({estimate.size_bytes for estimate in self.estimates})

    def of(self, retention: str) -> list[Estimate]:
        """Return what is told of one retention, by size."""
        found = [estimate for estimate in self.estimates if estimate.retention == retention]
        return sorted(found, key=lambda estimate: estimate.size_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self) | {"estimates": [asdict(estimate) for estimate in self.estimates]}


def what_if(
    trace: Trace,
    sizes: Iterable[int | str] | None = None,
    retentions: Sequence[str] = RETENTIONS,
    *,
    reads_max: int = READS_MAX,
) -> WhatIf:
    """Return the hit ratios of a trace in a cache of one tier, for each size and each retention.

    sizes: in bytes, as ``"10GiB"``, or as ``"40%"`` of what the trace reads; by default some shares of that.
    Of more than reads_max reads a sample is played. Blocking: some seconds for a million reads; memory is
    bounded by reads_max. Raises: ConfigError (a size that is none, or below 4 MiB; an unknown retention; a
    trace in which nothing is read); OSError, ValueError (the trace cannot be read).
    """
    for retention in retentions:
        _check_retention(retention)
    reads = Reads(trace.accesses(), trace.block_bytes, reads_max)
    if not reads.blocks:
        raise ConfigError(f"trace {trace.name!r}: nothing is read in it")
    chosen = _sizes(sizes, reads.distinct_bytes)
    return WhatIf(
        trace=trace.name,
        block_bytes=trace.block_bytes,
        accesses=reads.accesses,
        reads=reads.total,
        read_bytes=reads.total_bytes,
        distinct_bytes=reads.distinct_bytes,
        rate=reads.rate,
        estimates=tuple(
            _estimate(reads, size, retention, trace.block_bytes)
            for size in chosen
            for retention in retentions
        ),
    )


def _estimate(reads: Reads, size_bytes: int, retention: str, block_bytes: int) -> Estimate:
    tier = _TIERS[retention](geometry_of(size_bytes, block_bytes), reads)
    tier.play()
    return Estimate(
        retention,
        size_bytes,
        _ratio(tier.missed, reads.total * reads.rate),
        _ratio(tier.missed_bytes, reads.total_bytes * reads.rate),
    )


def _ratio(missed: int, total: float) -> float:
    """Return the share that is not missed; a sample may have a few misses more than it has reads."""
    return max(1 - missed / total, 0.0)


def _check_retention(value: str) -> None:
    if value not in _TIERS:
        known = ", ".join(_TIERS)
        raise ConfigError(f"retention: {value!r} is unknown{nearest(value, _TIERS)}; there are {known}")


def _sizes(sizes: Iterable[int | str] | None, distinct_bytes: int) -> list[int]:
    """Return the sizes in order, each once. Raises: ConfigError."""
    if sizes is None:
        return sorted({max(int(share * distinct_bytes), TIER_BYTES_MIN) for share in SHARES_DEFAULT})
    found = {_size(size, distinct_bytes) for size in sizes}
    if not found:
        raise ConfigError("sizes: name at least one")
    if min(found) < TIER_BYTES_MIN:
        raise ConfigError(f"sizes: {min(found)} bytes are below the smallest tier, 4 MiB")
    return sorted(found)


def _size(size: int | str, distinct_bytes: int) -> int:
    if isinstance(size, str) and size.strip().endswith("%"):
        try:
            return int(float(size.strip()[:-1]) / 100 * distinct_bytes)
        except (ValueError, OverflowError):
            raise ConfigError(f"sizes: {size!r} is no share; write for example '40%'") from None
    return parse_bytes(size, "sizes")

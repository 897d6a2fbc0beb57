"""What the store tells of itself: status and check, as plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MEDIA: Final = ("MEM", "SSD", "HDD")

# In the order of enum fb_counter in csrc/include/forebay/store.h.
COUNTERS: Final = (
    "hits_mem",
    "hits_ssd",
    "hits_hdd",
    "hit_bytes_mem",
    "hit_bytes_ssd",
    "hit_bytes_hdd",
    "misses_cold",
    "misses_evicted",
    "misses_expired",
    "misses_checksum",
    "misses_busy",
    "misses_io",
    "admitted",
    "admitted_bytes",
    "not_admitted",
    "not_admitted_bytes",
    "written_bytes_mem",
    "written_bytes_ssd",
    "written_bytes_hdd",
    "evicted",
    "evicted_bytes",
    "expired",
    "deleted",
    "moved",
    "demoted",
    "promoted",
    "private_copies",
    "flight_waits",
    "flight_takeovers",
    "flight_stalled",
    "lock_takeovers",
    "page_repairs",
    "io_errors",
    "rebuilt_segments",
    "segments_retired",
    "misses_changed",
    "misses_not_admitted",
    "peer_down",
    "source_requests",
    "source_bytes",
    "source_errors",
    "source_throttled",
    "peer_requests",
    "peer_bytes",
    "readahead_bytes",
    "load_bytes",
    "writes",
    "write_bytes",
    "write_errors",
    "source_gets",
    "source_heads",
    "source_lists",
    "source_puts",
    "source_deletes",
)


_NO_QUOTA: Final = (1 << 64) - 1

# What is of the store as a whole and of no dataset.
_OF_THE_STORE: Final = frozenset(
    (
        "flight_waits",
        "flight_takeovers",
        "flight_stalled",
        "lock_takeovers",
        "page_repairs",
        "io_errors",
        "rebuilt_segments",
        "segments_retired",
    )
)
DATASET_COUNTERS: Final = tuple(name for name in COUNTERS if name not in _OF_THE_STORE)

_NUMBERS: Final = {name: number for number, name in enumerate(COUNTERS)}


def counter_number(name: str) -> int:
    """Return a counter's number in the C library, that of one which nobody else counts for a wrong name."""
    return _NUMBERS.get(name, 0)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def _render_tier(fields: Mapping[str, Any]) -> dict[str, Any]:
    tier = dict(fields)
    tier["path"] = _text(tier["path"])
    tier["cause"] = _text(tier["cause"])
    tier["medium"] = MEDIA[tier["medium"]]
    tier["failed"] = bool(tier["failed"])
    return tier


def _render_dataset(fields: Mapping[str, Any]) -> dict[str, Any]:
    counted = dict(zip(COUNTERS, fields["counters"], strict=True)) if fields["has_account"] else {}
    return {
        "committed_bytes": fields["committed_bytes"],
        "blocks": fields["blocks"],
        "pinned_bytes": fields["pinned_bytes"],
        "quota_bytes": None if fields["quota_bytes"] == _NO_QUOTA else fields["quota_bytes"],
        "counters": {name: counted[name] for name in DATASET_COUNTERS if name in counted},
    }


def render_status(fields: Mapping[str, Any], holders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn the C library's status into what `BlockStore.status` returns: JSON-able, names as documented."""
    counters = dict(zip(COUNTERS, fields["counters"], strict=True))
    blocks = fields["blocks"]
    return {
        "tiers": [_render_tier(tier) for tier in fields["tiers"]],
        "counters": counters,
        "datasets": {dataset["id"]: _render_dataset(dataset) for dataset in fields["datasets"]},
        "blocks": blocks,
        "committed_bytes": sum(tier["committed_bytes"] for tier in fields["tiers"]),
        "index": {
            "bytes": fields["index_bytes"],
            "bytes_max": fields["index_bytes_max"],
            "pages": fields["index_pages"],
            "live_bytes": fields["live_bytes"],
            "live_path": _text(fields["live_path"]),
            "rebuilding": bool(fields["rebuilding"]),
        },
        "rows": {
            "own": None if fields["row"] == 0xFFFFFFFF else fields["row"],
            "used": fields["rows_used"],
            "max": fields["row_count"],
        },
        "maps": {"used": fields["segments_mapped"], "max": fields["segments_mapped_max"]},
        "max_held_bytes": fields["max_held_bytes"],
        "maintainer_alive": bool(fields["maintainer_alive"]),
        "read_only": bool(fields["read_only"]),
        "holders": [{**holder, "name": _text(holder["name"])} for holder in holders],
    }


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `BlockStore.check` found. orphan_records is space that nothing names any more: no damage."""

    pages: int
    slots: int
    records: int
    segments: int
    bytes_verified: int
    bad_pages: int
    bad_slots: int
    bad_records: int
    bad_checksums: int
    orphan_records: int
    repaired: int
    first: str

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> CheckReport:
        """Make a report of the C library's struct."""
        return cls(**{**fields, "first": _text(fields["first"])})

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong, or all that was has been repaired."""
        return self.bad_pages + self.bad_slots + self.bad_checksums <= self.repaired

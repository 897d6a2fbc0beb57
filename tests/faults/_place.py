"""Where a test's store lies, what of it may lie in the file system, and when its account is exact."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from forebay.config import Medium
from forebay.store import BlockStore, Tier

DEADLINE_S: Final = 30.0
CACHE_FILES: Final = {"identity", "index", "open.lock", "rows.lock", "tiers"}
STATES: Final = ("free", "open", "sealed", "held", "absent", "unscanned")


@dataclass(frozen=True, slots=True)
class Place:
    """A cache directory with one tier."""

    cache: Path
    tier: Tier

    @classmethod
    def under(
        cls, folder: Path, *, medium: Medium = "MEM", quota: int | str = "24MiB", high: float = 0.95
    ) -> Place:
        """Lay one out under a folder (on tmpfs for a MEM tier)."""
        return cls(folder / "cache", Tier(str(folder / "tier"), quota, medium, high, round(high - 0.05, 3)))

    def open(self, *, maintainer: bool = False, **options: Any) -> BlockStore:
        """Open it, by default without a maintainer's thread: tests decide when a round is done."""
        options.setdefault("block_bytes", "64KiB")
        return BlockStore(self.cache, [self.tier], maintainer=maintainer, **options)

    def files(self) -> tuple[set[str], set[str]]:
        """List what lies in the cache directory and in the tier."""
        cache, tier = ({path.name for path in folder.glob("v1/*")} for folder in (self.cache, self.tier_path))
        return cache, tier

    @property
    def tier_path(self) -> Path:
        """The tier's directory."""
        return Path(self.tier.path)

    def lose_index(self) -> None:
        """Remove the index, as if it had been damaged: the next opener rebuilds it."""
        (self.cache / "v1" / "index").unlink()


def settle(store: BlockStore) -> None:
    """Maintain until a rebuild is over and what dead processes left has been taken up."""
    limit = time.monotonic() + DEADLINE_S
    while store.status()["index"]["rebuilding"] and time.monotonic() < limit:
        store.maintain()
    for _ in range(3):
        assert store.maintain(), "another process is the maintainer"


def assert_account(place: Place, store: BlockStore, present: dict[bytes, int], *, processes: int = 1) -> None:
    """Hold the store's figures to what is there, when nobody is at work and nobody holds a view."""
    status = store.status()
    assert status["committed_bytes"] == sum(present.values())
    assert status["blocks"] == len(present)
    assert status["rows"]["used"] == processes
    assert status["holders"] == []
    assert not status["index"]["rebuilding"]
    tier = status["tiers"][0]
    counts = {state: tier[f"segments_{state}"] for state in STATES}
    slotted = sum(counts.values()) - tier["segments_whole"]
    assert slotted == tier["quota_bytes"] // tier["segment_bytes"], counts
    assert tier["segments_held"] == tier["held_bytes"] == 0
    assert tier["free_bytes"] == counts["free"] * tier["segment_bytes"]
    assert_files(place, status, slotted - counts["absent"])
    report = store.check()
    assert report.ok, report
    assert report.bad_pages + report.bad_slots + report.bad_checksums == 0, report


def assert_files(place: Place, status: dict[str, Any], segments: int) -> None:
    """Hold the files to the segments that there are: none too many, none of another kind."""
    cache, tier = place.files()
    live = Path(status["index"]["live_path"])
    whole = {name for name in tier if name.startswith("whole-")}
    assert len({name for name in tier if name.startswith("seg-")}) == segments
    assert len(whole) == status["tiers"][0]["segments_whole"]
    lengths = [(place.tier_path / "v1" / name).stat().st_size for name in tier if name.startswith("seg-")]
    whole_bytes = sum((place.tier_path / "v1" / name).stat().st_size for name in whole)
    figures = status["tiers"][0]
    assert figures["used_bytes"] + figures["free_bytes"] == sum(lengths) + whole_bytes
    extra = {name for name in cache | tier if not name.startswith(("seg-", "whole-"))}
    assert extra - {live.name} <= CACHE_FILES | {"tier"}
    assert live.parent in (place.cache / "v1", place.tier_path / "v1", Path("/dev/shm"))

"""Whole-file segments: large files that are wanted whole lie in one piece, so that a read is one view.

A file is brought whole by one process of the host, in parts side by side. Where the store has no place for
it in one piece (too small, too large, no room) its blocks are cached one by one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from forebay.cache.blocks import blocks_of, runs_of
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher
from forebay.cache.filling import Filling
from forebay.cache.paths import whole_key
from forebay.cache.pool import Kind
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.store import View

# A sequential reader that has come so far is taken to want the rest as well.
_SHARE_READ: Final = 4
_FOLLOWED_MAX: Final = 1_024
# Files on their way behind readers; of another the blocks are cached one by one.
_THREADS_MAX: Final = 4


class WholeFiles:
    """Brings files whole, for one process. Threads: any."""

    def __init__(self, fetcher: Fetcher) -> None:
        """Use this fetcher, its pool and its store."""
        self._fetcher: Final = fetcher
        self._store: Final = fetcher.store
        self._lock: Final = threading.Lock()
        self._threads: Final = threading.Semaphore(_THREADS_MAX)
        # Object's key -> the offset behind what was read of it without a gap, from its beginning.
        self._followed: Final[OrderedDict[bytes, int]] = OrderedDict()
        self._largest_tier_bytes: int | None = None

    def view(self, attached: Attached, entry: Entry) -> View | None:
        """Return one contiguous view of the file if it lies whole in a tier that gives such views."""
        return self._store.get_file(self._key(attached, entry))

    def is_worth(self, attached: Attached, entry: Entry) -> bool:
        """Say whether most of a file of several blocks is yet to come: what is cached is not moved."""
        if entry.size <= self._fetcher.block_bytes or self._store.read_only or not self._may_fit(entry):
            return False
        if not self._fetcher.admission.may_be_whole(attached, entry.path, entry.size):
            return False
        return 2 * self._missing_bytes(attached, entry) >= entry.size

    def fetch(self, attached: Attached, entry: Entry, kind: Kind = Kind.LOAD) -> bool:
        """Bring a whole file into one piece; return whether all of it is cached now.

        The caller is no task of the pool. What is cached by blocks stays so. False, at once, where the store
        has no such place for it, or another thread or process brings it. Blocking: for the whole file.
        Raises: as UnderStorage.read_range; the parts that came are given up.
        """
        if not self._may_fit(entry):
            return False
        if self._missing_bytes(attached, entry) == 0:
            return True
        filling = Filling.begin(
            self._store,
            self._fetcher.admission,
            attached,
            entry,
            asked_bytes=None if kind is Kind.LOAD else entry.size,
            counts_misses=kind is Kind.DEMAND,
        )
        if filling is None:
            return False
        blocks = blocks_of(attached, entry, 0, entry.size, self._fetcher.block_bytes)
        runs = runs_of(attached, blocks, filling)
        try:
            self._fetcher.bring(runs, kind)
        finally:
            is_whole = filling.finish()
        for run in runs:
            if run.error is not None:
                raise run.error
        return is_whole

    def is_wanted_whole(self, attached: Attached, entry: Entry, offset: int, end: int) -> bool:
        """Note a read of a part; true once, when parts in order have passed a quarter of the file."""
        if entry.size <= self._fetcher.block_bytes:
            return False
        key = self._key(attached, entry)
        mark = entry.size // _SHARE_READ
        with self._lock:
            reached = self._followed.pop(key, 0)
            if offset > reached:
                return False
            self._followed[key] = max(reached, end)
            if len(self._followed) > _FOLLOWED_MAX:
                self._followed.popitem(last=False)
        return reached <= mark < end

    def fetch_behind(self, attached: Attached, entry: Entry) -> None:
        """Bring a file whole in a thread of its own, if one is left, for a reader on its way through it."""
        if self.is_worth(attached, entry) and self._threads.acquire(blocking=False):
            threading.Thread(
                target=self._fetch_quietly, args=(attached, entry), name="forebay-whole", daemon=True
            ).start()

    def _fetch_quietly(self, attached: Attached, entry: Entry) -> None:
        try:
            self.fetch(attached, entry, Kind.READAHEAD)
        except (OSError, ValueError):
            # Whatever is wrong with the file, its reader is about to be told; a closed cache has none.
            return
        finally:
            self._threads.release()

    def _may_fit(self, entry: Entry) -> bool:
        """Say whether a tier might take the file, before its blocks are gone through.

        A size is whatever a server says that it is.
        """
        if self._largest_tier_bytes is None:
            self._largest_tier_bytes = max(tier["quota_bytes"] for tier in self._store.status()["tiers"])
        return entry.size <= self._largest_tier_bytes

    def _missing_bytes(self, attached: Attached, entry: Entry) -> int:
        blocks = blocks_of(attached, entry, 0, entry.size, self._fetcher.block_bytes)
        return sum(block.length for block in blocks if not self._store.contains(block.key))

    def _key(self, attached: Attached, entry: Entry) -> bytes:
        return whole_key(attached.record.id, entry.path, entry.version, self._fetcher.block_bytes)

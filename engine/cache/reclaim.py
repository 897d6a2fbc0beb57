"""Blocks of versions that are no more: reclaimed in the background, and whenever somebody frees a file.

The entries keep a list of stale versions, written by the very transaction that noted the new one, so that
nothing is lost when a process dies in between: whoever opens the cache next goes on with it. Versions that a
manifest lists are not reclaimed: they are what it is for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final

from forebay.cache.manifests.listed import Listed
from forebay.cache.paths import block_keys, whole_key
from forebay.cache.pool import FetchPool, Kind
from forebay.errors import Closed, StoreBusy
from forebay.meta import Entries, Entry, StaleObject

if TYPE_CHECKING:
    from forebay.store import BlockStore

_BATCH: Final = 256


class Reclaimer:
    """Drops blocks, for one process. Threads: any."""

    def __init__(
        self, store: BlockStore, entries: Entries, pool: FetchPool, make_listed: Callable[[], Listed]
    ) -> None:
        """Use these; in a store that is read only there is nothing to reclaim."""
        self._store: Final = store
        self._entries: Final = entries
        self._pool: Final = pool
        self._make_listed: Final = make_listed
        self._lock: Final = threading.Lock()
        self._is_due = False

    def begin(self) -> None:
        """Go on with what an earlier process left, if anything."""
        if not self._store.read_only and self._entries.stale(1):
            self.schedule()

    def schedule(self) -> None:
        """Reclaim soon, in a thread of the pool, what is on the list by then."""
        with self._lock:
            if self._is_due or self._store.read_only:
                return
            self._is_due = True
        self._pool.submit(Kind.READAHEAD, 0, self._run)

    def drop(self, dataset_id: int, found: Sequence[Entry | StaleObject]) -> None:
        """Drop what is cached of these versions, some blocks at a time; views of it stay good.

        Raises: StoreBusy; PermissionError.
        """
        block_bytes = self._store.block_bytes
        for each in found:
            if each.size > block_bytes:
                self._store.delete(whole_key(dataset_id, each.path, each.version, block_bytes))
        versions = ((each.path, each.version, each.size) for each in found)
        for keys in block_keys(dataset_id, versions, block_bytes):
            # Looking takes no lock, and most of what is asked about was never cached.
            there = self._store.contains_many(keys)
            if 1 in there:
                self._store.delete_many(compress(keys, there))

    def _run(self) -> None:
        with self._lock:
            self._is_due = False
        try:
            while stale := self._entries.stale(_BATCH):
                listed = self._make_listed()
                for each in stale:
                    # When such a manifest is deleted, its blocks go with it.
                    if not listed.has(each.dataset_id, each.path, each.version):
                        self.drop(each.dataset_id, [each])
                self._entries.reclaimed(stale)
                if len(stale) < _BATCH:
                    return
        except (Closed, StoreBusy, PermissionError):
            # They stay on the list, for the next who reclaims.
            return

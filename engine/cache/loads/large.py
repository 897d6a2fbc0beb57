"""One large file of a load: brought in parts by several threads, into one piece where it can lie so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from forebay.cache.blocks import part_bytes
from forebay.cache.loads.file import FileLoader, LoadItem
from forebay.cache.loads.progress import Outcome


class LargeFile:
    """One large file, brought in parts by several threads; the last part to end settles it. Threads: any."""

    def __init__(self, loader: FileLoader, item: LoadItem, *, dry_run: bool) -> None:
        """Begin with nothing brought; the caller guarantees that the item has an entry."""
        assert item.entry is not None
        self._loader: Final = loader
        self._item: Final = item
        self._entry: Final = item.entry
        self._dry_run: Final = dry_run
        self._lock: Final = threading.Lock()
        self._filling: Final = None if dry_run else loader.begin_whole(item.entry)
        self._left = 1
        self._fetched = False
        self._refused = False
        self._error: OSError | None = None

    def parts(self) -> Iterator[tuple[int, int]]:
        """Yield the parts, as offset and end; the caller brings each, and calls ``close`` once besides."""
        size_bytes = part_bytes(self._entry.size)
        for offset in range(0, self._entry.size, size_bytes):
            if self._is_lost:
                return
            with self._lock:
                self._left += 1
            yield offset, min(offset + size_bytes, self._entry.size)

    @property
    def _is_lost(self) -> bool:
        return self._refused or self._error is not None

    def bring(self, part: tuple[int, int]) -> LoadItem | None:
        """Bring one part; return the file where the whole has ended and is to be tried again.

        Raises: LoadStopped; NotNow (the part is to be brought later).
        """
        try:
            if not self._is_lost:
                self._bring(part)
        except OSError as error:
            self._error = self._error or error
        return self.close()

    def _bring(self, part: tuple[int, int]) -> None:
        missing = self._loader.missing(self._entry, *part)
        if missing:
            self._fetched = True
        if self._dry_run:
            return
        wanted = list(self._loader.blocks(self._entry, *part)) if self._filling is not None else missing
        if wanted and not self._loader.bring(wanted, permitted=True, filling=self._filling):
            self._refused = True

    def abandon(self) -> None:
        """Give up what is in its place so far, after the run was stopped; no part is at work any more."""
        if self._filling is not None:
            self._filling.finish()

    @property
    def is_settled(self) -> bool:
        """Whether the last part has ended."""
        return self._left == 0

    def close(self) -> LoadItem | None:
        """End a part, or the yielding of parts; return as ``bring``."""
        with self._lock:
            self._left -= 1
            if self._left:
                return None
        if self._filling is not None and not self._filling.finish():
            # What was written into its place has gone with it.
            self._refused = True
        if self._error is not None:
            return self._loader.failed(self._item, self._error)
        outcome: Outcome = "not_admitted" if self._refused else "done" if self._fetched else "skipped"
        self._loader.settle(self._item, outcome)
        return None

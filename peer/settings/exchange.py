"""Keeps the settings of one member and those of the others alike.

What was changed here, by any process that has the cache open, is noted, given a version, and handed on; what
others have newer is made to hold here. An item that cannot hold yet (its storage does not answer, its dataset
is not here) is left as it was, and tried again at the next exchange, for it still is newer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Final

from forebay.peer.settings.book import Book
from forebay.peer.settings.items import DATASET, Item
from forebay.peer.settings.local import LocalSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of items that came: how many hold here now, and why others do not, by key."""

    count: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)


class SettingsExchange:
    """The settings of one member. Threads: any."""

    def __init__(self, local: LocalSettings, book: Book) -> None:
        """Join the cache's settings and the book of what is known of them."""
        self._local: Final = local
        self._book: Final = book
        # From the reading of what there is until it is noted nothing that comes is made to hold, and the
        # other way round: else a change of another's would be taken for one of ours.
        self._lock: Final = threading.Lock()
        self._noted_commit: int | None = None

    def note(self) -> list[Item]:
        """Return what was changed here since the last time, with its new versions. Raises: as Cache."""
        with self._lock:
            return self._note()

    def summary(self) -> dict[str, tuple[int, str]]:
        """Return the versions that are known here, by key."""
        return {key: item.order for key, item in self._book.items().items()}

    def newer_than(self, known: Mapping[str, tuple[int, str]]) -> list[Item]:
        """Return what somebody who knows these versions has yet to be told."""
        return self._book.newer_than(known)

    def write_listing(self, item: Item, spool: IO[bytes]) -> None:
        """Write the listing of a manifest, to go beside its item. Raises: as Cache.export_manifest."""
        self._local.write_listing(item, spool)

    def take(self, items: Iterable[Item], listings: Mapping[str, IO[bytes]]) -> Taken:
        """Make those hold here that are newer; listings are those of manifests, by key, at their beginning.

        Whatever is wrong with one is logged, and the others are taken.
        """
        count, refused = 0, {}
        datasets: set[str] = set()
        with self._lock:
            # What was changed here a moment ago is newer than what it was changed from.
            self._note()
            for item in sorted(items, key=lambda item: item.turn):
                if not self._book.is_newer(item):
                    continue
                if item.kind == DATASET and item.content is not None:
                    datasets.add(item.dataset)
                try:
                    if self._local.replaces(item):
                        # First: what goes with the dataset was taken away by nobody, should this end here.
                        self._book.forget_missing(item.dataset, {})
                    self._local.apply(item, listings.get(item.key))
                    self._book.take(item)
                    count += 1
                except (OSError, ValueError, LookupError) as error:
                    refused[item.key] = f"{type(error).__name__}: {error}"
                    _log.warning("setting %s of %s does not hold here yet: %s", item.key, item.writer, error)
            if datasets:
                self._forget_missing(datasets)
        return Taken(count, refused)

    def _forget_missing(self, datasets: Iterable[str]) -> None:
        """Let what went with a dataset that was to show something else not pass for taken away here."""
        present = self._local.read()
        for dataset in datasets:
            self._book.forget_missing(dataset, present)

    def _note(self) -> list[Item]:
        # Before it is read: what changes meanwhile is noted the next time.
        commit = self._local.commit()
        if commit == self._noted_commit:
            return []
        changed = self._book.note(self._local.read())
        self._noted_commit = commit
        return changed

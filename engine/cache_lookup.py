"""What is known of the objects: asked of the entries first, of the under storage when they are not fresh.

A dataset's max_age says what fresh is: None, everything once seen; 0, nothing; else seconds. Answers are
remembered, failures never; that there is no such object is not remembered either.
"""

from __future__ import annotations

from typing import Final

from forebay.cache_datasets import Attached
from forebay.clock import NS_PER_S, Clock
from forebay.errors import NotFound
from forebay.meta import Dataset, Entries, Entry
from forebay.ufs import ObjectInfo


class Lookup:
    """Looks up entries for one process. Threads: any."""

    def __init__(self, entries: Entries, clock: Clock) -> None:
        """Use these entries and this clock."""
        self._entries: Final = entries
        self._clock: Final = clock

    def known(self, attached: Attached, path: str) -> Entry | None:
        """Return what the entries say of an object, fresh or not."""
        return self._entries.get(attached.record.id, path)

    def is_fresh(self, dataset: Dataset, checked_ns: int) -> bool:
        """Say whether what was checked then still holds by the dataset's max_age."""
        if dataset.max_age is None:
            return True
        age_ns = self._clock.boot_ns() - checked_ns
        # A check in the future was made by a clock that is not ours, such as another time namespace's.
        return dataset.max_age > 0 and 0 <= age_ns <= dataset.max_age * NS_PER_S

    def stat(self, attached: Attached, path: str) -> Entry:
        """Describe an object or directory. Raises: as UnderStorage.stat."""
        entry = self._entries.get(attached.record.id, path, directories=True)
        if entry is not None and self.is_fresh(attached.record, entry.checked_ns):
            return entry
        return self.ask(attached, path)

    def ask(self, attached: Attached, path: str) -> Entry:
        """Describe an object or directory by the under storage's answer. Raises: as UnderStorage.stat."""
        asked_ns = self._clock.boot_ns()
        try:
            info = attached.storage.stat(path)
        except NotFound:
            self._entries.forget(attached.record.id, path)
            raise
        entry = as_entry(info, asked_ns)
        self.remember(attached, entry)
        return entry

    def remember(self, attached: Attached, entry: Entry) -> None:
        """Keep what the under storage said of an object; the dataset itself has no entry."""
        if entry.path:
            self._entries.put(attached.record.id, [entry])

    def forget(self, attached: Attached, path: str) -> None:
        """Drop what is known of an object, because it turned out to be wrong."""
        self._entries.forget(attached.record.id, path)

    def now_ns(self) -> int:
        """Return the time to give to ``as_entry``, taken before the under storage is asked."""
        return self._clock.boot_ns()

    def children(self, attached: Attached, directory: str) -> list[Entry]:
        """List a directory, in the order of names. Raises: as UnderStorage.list."""
        dataset_id = attached.record.id
        listed_ns = self._entries.listed_ns(dataset_id, directory)
        if listed_ns is not None and self.is_fresh(attached.record, listed_ns):
            children = self._entries.children(dataset_id, directory)
        else:
            children = self._list(attached, directory)
        return sorted(children, key=lambda entry: (entry.path, entry.is_dir))

    def _list(self, attached: Attached, directory: str) -> list[Entry]:
        """List anew, remembering page by page, so that no write waits for the network."""
        started_ns = self._clock.boot_ns()
        found: list[Entry] = []
        all_kept = True
        for page in attached.storage.list(directory):
            entries = [as_entry(info, started_ns) for info in page]
            all_kept = self._entries.put(attached.record.id, entries) and all_kept
            found += entries
        if all_kept:
            self._entries.finish_listing(attached.record.id, directory, started_ns)
        return found


def as_entry(info: ObjectInfo, asked_ns: int) -> Entry:
    """Make an entry from what the under storage said after asked_ns."""
    return Entry(info.path, info.size, info.mtime_ns, info.version, info.is_dir, asked_ns)

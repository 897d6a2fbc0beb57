"""What is known of the objects: asked of the entries first, of the under storage when they are not fresh.

A dataset's max_age says what fresh is: None, everything once seen; 0, nothing; else seconds. Answers are
remembered, failures never; that there is no such object is remembered for the dataset's negative_ttl.

Where a manifest is shown it alone answers: it is always fresh, nobody is asked, and what it does not list is
not there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from forebay.cache.datasets import Attached
from forebay.cache.paths import block_key
from forebay.cache.status import SyncReport
from forebay.clock import NS_PER_S, BootClock, Clock
from forebay.errors import NotFound, not_found
from forebay.meta import Entries, Entry, Manifest, Seen
from forebay.ufs import ObjectInfo

if TYPE_CHECKING:
    from forebay.meta import Recent

_T = TypeVar("_T")


# No answer is kept for longer: 146 years.
_MAX_AGE_NS: Final = 1 << 62


class Lookup:
    """Looks up entries for one process. Threads: any."""

    def __init__(
        self,
        entries: Entries,
        clock: Clock,
        recent: Recent,
        block_bytes: int,
        is_current: Callable[[Attached], bool],
        on_stale: Callable[[], None],
    ) -> None:
        """Use these; is_current says whether a dataset still is as it was.

        on_stale is called when versions have become stale, whose blocks are to go.
        """
        self._entries: Final = entries
        self._clock: Final = clock
        self._recent: Final = recent
        self._block_bytes: Final = block_bytes
        self._is_current: Final = is_current
        self._on_stale: Final = on_stale
        # What is kept for a time is kept by the machine's own clock.
        self._keeps_for_a_time: Final = isinstance(clock, BootClock)

    def known(self, attached: Attached, path: str) -> Entry | None:
        """Return what is known of an object, fresh or not."""
        if attached.manifest is None:
            return self._entries.get(attached.record.id, path)
        entry = attached.manifest.find(path)
        return None if entry is None or entry.is_dir else entry

    def look(self, attached: Attached, path: str) -> Seen:
        """Return what is known of an object, fresh or not, with the number of changes for ``keep``.

        Raises: NotFound, IsADirectoryError (by the manifest).
        """
        if attached.manifest is None:
            return self._entries.seen(attached.record.id, path)
        seen = self._look_in(attached, attached.manifest, path)
        if seen.entry is not None:
            refuse_directory(attached, seen.entry)
        return seen

    def fresh(self, attached: Attached, path: str) -> tuple[Entry | None, int]:
        """Return what is known of an object if that still holds, and the number of changes from before.

        Raises: as ``look``.
        """
        changes = self.changes(attached)
        known = self._recent.get(f"{attached.label}/{path}")
        if known is not None and attached.shows(found := known.entry):
            return found, changes
        entry, changes = self.look(attached, path)
        if entry is None or not self.is_fresh(attached, path, entry.checked_ns):
            return None, changes
        self.keep(attached, entry, changes)
        return entry, changes

    def is_fresh(self, attached: Attached, path: str, checked_ns: int) -> bool:
        """Say whether what was checked then of a path still holds: always in a manifest, else by its age."""
        max_age = attached.max_age(path)
        return max_age is None or self._is_within(max_age, checked_ns)

    def stat(self, attached: Attached, path: str) -> Entry:
        """Describe an object or directory. Raises: as UnderStorage.stat."""
        if attached.manifest is None:
            entry, changes = self._entries.seen(attached.record.id, path, directories=True)
        else:
            entry, changes = self._look_in(attached, attached.manifest, path)
        if entry is None:
            self.raise_if_absent(attached, path)
        if entry is None or not self.is_fresh(attached, path, entry.checked_ns):
            entry = self.ask(attached, path)
        self.keep(attached, entry, changes)
        return entry

    def _look_in(self, attached: Attached, manifest: Manifest, path: str) -> Seen:
        # The number first: by a switch after it the entry is not found again (see Entries.announcing).
        changes = self._entries.changes(attached.record.id)
        entry = manifest.find(path)
        if entry is None:
            raise attached.not_listed(path)
        return Seen(entry, changes)

    def keep(self, attached: Attached, entry: Entry, changes: int) -> None:
        """Let this process find an entry that is fresh without a look-up, until something changes.

        With it goes the key of an object's only block.
        """
        dataset = attached.record
        max_age = attached.max_age(entry.path)
        if max_age == 0 or not entry.path:
            return
        max_age_ns = -1
        if max_age is not None:
            if not self._keeps_for_a_time:
                return
            max_age_ns = int(min(max_age * NS_PER_S, _MAX_AGE_NS))
        # Another manifest may have been put in use after the dataset was looked up, and before the number.
        if not self._is_current(attached):
            return
        is_one_block = not entry.is_dir and 0 < entry.size <= self._block_bytes
        key = block_key(dataset.id, entry.path, entry.version, 0, self._block_bytes) if is_one_block else None
        counter = self._entries.counter(dataset.id)
        self._recent.put(
            f"{attached.label}/{entry.path}", entry, counter, changes, max_age_ns=max_age_ns, key=key
        )

    def ask(self, attached: Attached, path: str) -> Entry:
        """Describe an object or directory by the under storage's answer. Raises: as UnderStorage.stat."""
        asked_ns = self._clock.boot_ns()
        try:
            info = attached.storage.stat(path)
        except NotFound:
            self.forget(attached, path)
            self.note_absent(attached, path, asked_ns)
            raise
        entry = as_entry(info, asked_ns)
        self.remember(attached, entry)
        return entry

    def learn(self, attached: Attached, path: str) -> None:
        """Ask about an object that turned out to be another or gone, so that opening it anew helps.

        Whatever comes of it: whoever calls this has an exception to raise. A manifest learns nothing.
        """
        if attached.manifest is None:
            with suppress(OSError):
                self.ask(attached, path)

    def remember(self, attached: Attached, entry: Entry) -> None:
        """Keep what the under storage said of an object; the dataset itself has no entry."""
        if entry.path and self._entries.put(attached.record.id, [entry]).replaced:
            self._on_stale()

    def forget(self, attached: Attached, path: str) -> None:
        """Drop what is known of an object, because it turned out to be wrong; a manifest forgets nothing."""
        if attached.manifest is None and self._entries.forget(attached.record.id, path):
            self._on_stale()

    def note_absent(self, attached: Attached, path: str, asked_ns: int) -> None:
        """Remember for the dataset's negative_ttl that there is no such object."""
        if attached.record.negative_ttl > 0 and self._entries.note_absent(attached.record.id, path, asked_ns):
            self._on_stale()

    def changes(self, attached: Attached) -> int:
        """Return how often something known of the dataset has become different; cheap enough to ask often."""
        return self._entries.counter(attached.record.id).load()

    def now_ns(self) -> int:
        """Return the time to give to ``as_entry``, taken before the under storage is asked."""
        return self._clock.boot_ns()

    def children(self, attached: Attached, directory: str) -> list[Entry]:
        """List a directory, in the order of names. Raises: as UnderStorage.list."""
        if attached.manifest is not None:
            return _listed(attached, directory, attached.manifest.children(directory))
        listed_ns, children = self._entries.listing(attached.record.id, directory)
        if not self._is_listing_fresh(attached, directory, listed_ns):
            children = self.relist(attached, directory)
        return sorted(children, key=lambda entry: (entry.path, entry.is_dir))

    def names(self, attached: Attached, directory: str) -> list[str]:
        """Return the names in a directory, each once and in order. Raises: as UnderStorage.list."""
        if attached.manifest is not None:
            return _listed(attached, directory, attached.manifest.names(directory))
        listed_ns, names = self._entries.names(attached.record.id, directory)
        if self._is_listing_fresh(attached, directory, listed_ns):
            return names
        return sorted({entry.path.rpartition("/")[2] for entry in self.relist(attached, directory)})

    def relist(self, attached: Attached, directory: str) -> list[Entry]:
        """List by the under storage's answer, remembering page by page, so that no write waits for it.

        Raises: as UnderStorage.list.
        """
        started_ns = self._clock.boot_ns()
        found: list[Entry] = []
        all_kept = True
        for page in attached.storage.list(directory):
            entries = [as_entry(info, started_ns) for info in page]
            all_kept = self._entries.put(attached.record.id, entries).complete and all_kept
            found += entries
        if all_kept:
            self._entries.finish_listing(attached.record.id, directory, started_ns)
        self._on_stale()
        return found

    def remember_page(self, attached: Attached, entries: Sequence[Entry]) -> bool:
        """Keep what a page of a listing said; return whether all of it is kept."""
        written = self._entries.put(attached.record.id, entries)
        if written.replaced:
            self._on_stale()
        return bool(written)

    def sync(self, attached: Attached, path: str) -> SyncReport:
        """Ask now for all that is known, fresh or not, of an object or of a directory and all below it.

        Raises: as UnderStorage.stat and list; what was counted until then has been noted all the same.
        """
        dataset_id = attached.record.id
        if path:
            before = self._entries.get(dataset_id, path)
            try:
                now = self.ask(attached, path)
            except NotFound:
                if before is None:
                    raise
                return SyncReport(removed=1)
            if not now.is_dir:
                changed = before is not None and before.version != now.version
                return SyncReport(added=before is None, changed=changed)
        known_before = self._count_known(dataset_id, path)
        report, directories = SyncReport(), [path]
        seen: set[str] = set()
        while directories:
            directory = directories.pop()
            seen.add(directory)
            found, below = self._sync_directory(attached, directory)
            report += found
            directories += below
            if not directories:
                # Where nothing was listed before: directories that are known by what was read in them.
                known = self._entries.known_directories(dataset_id, path)
                directories = [each for each in known if each not in seen]
        # Told by the figures: what lay below a directory that is gone goes with it, uncounted.
        removed = known_before + report.added - self._count_known(dataset_id, path)
        return report + SyncReport(removed=max(removed, 0))

    def _sync_directory(self, attached: Attached, directory: str) -> tuple[SyncReport, list[str]]:
        """List a directory; return what is new or has changed in it, and the directories in it."""
        known = self._entries.children(attached.record.id, directory)
        before = {entry.path: entry for entry in known if not entry.is_dir}
        try:
            now = self.relist(attached, directory)
        except NotFound:
            if not directory:
                raise
            for entry in known:
                self.forget(attached, entry.path)
            return SyncReport(), []
        report = SyncReport()
        for entry in now:
            if not entry.is_dir:
                old = before.get(entry.path)
                changed = old is not None and old.version != entry.version
                report += SyncReport(added=old is None, changed=changed)
        return report, [entry.path for entry in now if entry.is_dir]

    def _count_known(self, dataset_id: int, path: str) -> int:
        """Count the objects that are known below a directory."""
        return sum(
            sum(not entry.is_dir for entry in self._entries.children(dataset_id, directory))
            for directory in list(self._entries.known_directories(dataset_id, path))
        )

    def _is_listing_fresh(self, attached: Attached, directory: str, listed_ns: int | None) -> bool:
        return listed_ns is not None and self.is_fresh(attached, directory, listed_ns)

    def raise_if_absent(self, attached: Attached, path: str) -> None:
        """Raise NotFound if the under storage said so within the dataset's negative_ttl."""
        dataset = attached.record
        if dataset.negative_ttl > 0:
            absent_ns = self._entries.absent_ns(dataset.id, path)
            if absent_ns is not None and self._is_within(dataset.negative_ttl, absent_ns):
                raise not_found(f"{dataset.uri}/{path}", "there was no such object a moment ago")

    def _is_within(self, age_s: float, checked_ns: int) -> bool:
        age_ns = self._clock.boot_ns() - checked_ns
        # A check in the future was made by a clock that is not ours, such as another time namespace's.
        return age_s > 0 and 0 <= age_ns <= age_s * NS_PER_S


def refuse_directory(attached: Attached, entry: Entry) -> None:
    """Raise IsADirectoryError if the entry is no object."""
    if entry.is_dir:
        raise IsADirectoryError(errno.EISDIR, "is a directory", f"{attached.label}/{entry.path}")


def _listed(attached: Attached, directory: str, found: list[_T] | None) -> list[_T]:
    """Return what a manifest lists in a directory. Raises: NotFound."""
    if found is None:
        raise attached.not_listed(directory)
    return found


def as_entry(info: ObjectInfo, asked_ns: int) -> Entry:
    """Make an entry from what the under storage said after asked_ns."""
    return Entry(info.path, info.size, info.mtime_ns, info.version, info.is_dir, asked_ns)

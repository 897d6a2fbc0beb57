"""What is known of the objects: asked of the entries first, when they are not fresh of the peers that answer
for them, and then of the under storage.

A peer's answer is as old as the peer says, and is taken where the dataset's max_age allows that.

A dataset's max_age says what fresh is: None, everything once seen; 0, nothing; else seconds. Answers are
remembered, failures never; that there is no such object is remembered for the dataset's negative_ttl.

Where a manifest is shown it alone answers: it is always fresh, nobody is asked, and what it does not list is
not there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from forebay.cache.datasets import Attached
from forebay.cache.pages import entries_of_directory, in_order
from forebay.cache.paths import block_key
from forebay.cache.peers import Peers, entry_of
from forebay.clock import NS_PER_S, BootClock, Clock
from forebay.errors import NotFound, not_found
from forebay.meta import Entries, Entry, Manifest, Seen, entries_of
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
        peers: Peers,
    ) -> None:
        """Use these; is_current says whether a dataset still is as it was.

        on_stale is called when versions have become stale, whose blocks are to go.
        """
        self._peers: Final = peers
        self._entries: Final = entries
        self._clock: Final = clock
        self._recent: Final = recent
        self._block_bytes: Final = block_bytes
        self._is_current: Final = is_current
        self._on_stale: Final = on_stale
        # What is kept for a time is kept by the machine's own clock.
        self._keeps_for_a_time: Final = isinstance(clock, BootClock)

    def strict(self) -> Lookup:
        """Return a look-up that raises, besides all else, what it cannot remember: as ``Entries.strict``."""
        return self._like(entries=self._entries.strict())

    def remembering(self, recent: Recent) -> Lookup:
        """Return a look-up that keeps what it finds in a table of its own."""
        return self._like(recent=recent)

    def asking(self, peers: Peers) -> Lookup:
        """Return a look-up that asks these peers instead."""
        return self._like(peers=peers)

    def _like(
        self, *, entries: Entries | None = None, recent: Recent | None = None, peers: Peers | None = None
    ) -> Lookup:
        return Lookup(
            self._entries if entries is None else entries,
            self._clock,
            self._recent if recent is None else recent,
            self._block_bytes,
            self._is_current,
            self._on_stale,
            self._peers if peers is None else peers,
        )

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

    def valid_s(self, attached: Attached, entry: Entry) -> float | None:
        """Return for how many seconds from now on an entry holds, None for ever."""
        max_age = attached.max_age(entry.path)
        if max_age is None:
            return None
        age_s = (self._clock.boot_ns() - entry.checked_ns) / NS_PER_S
        return max_age - age_s if 0 <= age_s <= max_age else 0.0

    def stat(self, attached: Attached, path: str) -> Entry:
        """Describe an object or directory. Raises: as UnderStorage.stat."""
        if attached.manifest is None:
            entry, changes = self._entries.seen(attached.record.id, path, directories=True)
        else:
            entry, changes = self._look_in(attached, attached.manifest, path)
        if entry is None:
            self.raise_if_absent(attached, path)
        if entry is None or not self.is_fresh(attached, path, entry.checked_ns):
            entry = self.refresh(attached, path)
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

    def refresh(self, attached: Attached, path: str) -> Entry:
        """Describe an object or directory by a peer's answer, or as ``ask``. Raises: as UnderStorage.stat."""
        if self._peers.any and self._may_ask_peers(attached, path):
            asked_ns = self._clock.boot_ns()
            try:
                found = self._peers.stat(attached, path)
            except NotFound:
                self.forget(attached, path)
                self.note_absent(attached, path, asked_ns)
                raise
            if found is not None:
                entry = entry_of(found, asked_ns)
                if self.is_fresh(attached, path, entry.checked_ns):
                    self.remember(attached, entry)
                    return entry
        return self.ask(attached, path)

    def touch_peer(
        self, attached: Attached, path: str, offset: int, length: int
    ) -> tuple[Entry, memoryview] | None:
        """Return what a peer says of an unknown object, and bytes of it; None: ask the under storage.

        Nothing is remembered of it. Raises: NotFound.
        """
        if not self._may_ask_peers(attached, path):
            return None
        asked_ns = self._clock.boot_ns()
        touched = self._peers.touch(attached, path, offset, length)
        if touched is None:
            return None
        entry = entry_of(touched[0], asked_ns)
        return (entry, touched[1]) if self.is_fresh(attached, path, entry.checked_ns) else None

    def _may_ask_peers(self, attached: Attached, path: str) -> bool:
        """Say whether an answer of any age will do: what is checked at each use is, with the source."""
        return attached.max_age(path) != 0

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

        Whatever comes of it: whoever calls this has an exception to raise. Where no answer comes, what is
        known is forgotten. A manifest learns nothing.
        """
        if attached.manifest is None:
            try:
                self.ask(attached, path)
            except NotFound:
                return
            except OSError:
                self.forget(attached, path)

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
        if not self.is_listing_fresh(attached, directory, listed_ns):
            children = self.refresh_listing(attached, directory)
        return sorted(children, key=lambda entry: (entry.path, entry.is_dir))

    def scan(self, attached: Attached, directory: str, after: str = "") -> Iterator[Entry]:
        """List a directory as ``entries_of_directory``, holding all of it only if it has to be asked for.

        Raises: as UnderStorage.list; while it is iterated, as ``pages_of``.
        """
        if attached.manifest is not None:
            if directory and attached.manifest.shown(directory) is None:
                raise attached.not_listed(directory)
            return entries_of_directory(self._entries, attached, directory, after)
        listed_ns = self._entries.listed_ns(attached.record.id, directory)
        if not self.is_listing_fresh(attached, directory, listed_ns):
            unwritten = self.list_anew(attached, directory)
            if unwritten is not None:
                return in_order(unwritten, after)
        return entries_of_directory(self._entries, attached, directory, after)

    def list_anew(self, attached: Attached, directory: str) -> list[Entry] | None:
        """List as ``refresh_listing``; return what lies there only where that could not be written down."""
        started_ns = self.now_ns()
        found = self.refresh_listing(attached, directory)
        listed_ns = self._entries.listed_ns(attached.record.id, directory)
        # One that a peer gave began before it was asked.
        is_new = listed_ns is not None and listed_ns >= started_ns
        return None if is_new or self.is_listing_fresh(attached, directory, listed_ns) else found

    def names(self, attached: Attached, directory: str) -> list[str]:
        """Return the names in a directory, each once and in order. Raises: as UnderStorage.list."""
        if attached.manifest is not None:
            return _listed(attached, directory, attached.manifest.names(directory))
        listed_ns, names = self._entries.names(attached.record.id, directory)
        if self.is_listing_fresh(attached, directory, listed_ns):
            return names
        return sorted({entry.path.rpartition("/")[2] for entry in self.refresh_listing(attached, directory)})

    def listed(self, attached: Attached, directory: str) -> tuple[int, list[Entry]]:
        """Return a directory as the under storage has it, and since when that is known.

        Raises: as UnderStorage.list.
        """
        listed_ns, children = self._entries.listing(attached.record.id, directory)
        if listed_ns is not None and self.is_listing_fresh(attached, directory, listed_ns):
            return listed_ns, children
        started_ns = self._clock.boot_ns()
        return started_ns, self.relist(attached, directory)

    def refresh_listing(self, attached: Attached, directory: str) -> list[Entry]:
        """List by a peer's answer, or as ``relist``. Raises: as UnderStorage.list."""
        if self._peers.any and self._may_ask_peers(attached, directory):
            started_ns = self._clock.boot_ns()
            said = self._peers.list(attached, directory)
            # An empty one does not say how old it is.
            if said:
                found = [entry_of(each, started_ns) for each in said]
                listed_ns = min(entry.checked_ns for entry in found)
                if self.is_fresh(attached, directory, listed_ns):
                    if self._entries.put(attached.record.id, found).complete:
                        self._entries.finish_listing(attached.record.id, directory, listed_ns)
                    self._on_stale()
                    return found
        return self.relist(attached, directory)

    def relist(self, attached: Attached, directory: str) -> list[Entry]:
        """List by the under storage's answer, remembering page by page, so that no write waits for it.

        Raises: as UnderStorage.list.
        """
        started_ns = self._clock.boot_ns()
        found: list[Entry] = []
        all_kept = True
        for page in attached.storage.list(directory):
            entries = entries_of(page, started_ns)
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

    def is_listing_fresh(self, attached: Attached, directory: str, listed_ns: int | None) -> bool:
        """Say whether a complete listing that began then, None if there was none, still holds."""
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

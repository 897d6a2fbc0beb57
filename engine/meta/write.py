"""What one writing transaction does to the entries of a dataset, with all that has to follow from it.

Whatever replaces or removes a row keeps the tables together: inodes, stale versions, absent paths, and the
dataset's change counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress, cycle
from typing import Any, Final, Protocol

from forebay.meta import absent, stale
from forebay.meta._rows import pack_entry, packed, placed, unpack_entry
from forebay.meta.ledger import Ledger
from forebay.meta.rows import (
    DIRECTORY,
    NAME_AT,
    OBJECT,
    PREFIX_BYTES,
    DirectoryRow,
    Entry,
    directory_key,
    inode_key,
    name_bytes,
    pack_directory,
    parent_key,
    prefix_of,
    unpack_directory,
)
from forebay.meta.stale import StaleObject

_Rows = list[tuple[bytes, bytes]]

# LMDB cuts a full page in the middle, so rows that come in order before others of the page leave pages half
# full. So three of five are written first, and the others into the room that is left: pages are 80 % full on
# the average. A larger second part would overflow those whose rows are longer, and bring the halves back.
_IS_FIRST: Final = (True, False, True, False, True)
_IS_LATER: Final = tuple(not each for each in _IS_FIRST)


class Announcer(Protocol):
    """What is told of changes: the change counters, for all but an environment that nobody looks into yet."""

    def settle(self, transaction: Any, dataset_id: int) -> None:
        """At the beginning of a writing transaction, mend what a writer left that did not commit."""

    def announce(self, transaction: Any, dataset_id: int) -> None:
        """As the last act of a writing transaction, tell that what was known has changed."""


class Write:
    """One writing transaction on a dataset's entries; ``finish`` is its last act before the commit."""

    def __init__(self, transaction: Any, dataset_id: int, changes: Announcer) -> None:
        """Begin; the caller opened the transaction and commits it."""
        self.transaction: Final = transaction
        self.dataset_id: Final = dataset_id
        self.replaced: Final[list[StaleObject]] = []
        self.has_changed = False
        self.has_skipped = False
        self._changes: Final[Announcer] = changes
        self._ledger: Final = Ledger(transaction)
        self._directories: Final[dict[str, DirectoryRow | None]] = {}
        changes.settle(transaction, dataset_id)

    def finish(self) -> None:
        """Write what is counted, and tell of changes."""
        self._ledger.save()
        if self.has_changed:
            self._changes.announce(self.transaction, self.dataset_id)

    def put(self, entries: Iterable[Entry]) -> None:
        """Remember entries, unless something newer is known; has_skipped says that one cannot be kept."""
        wanted, is_complete = placed(entries, self.make_directory)
        self.has_skipped = self.has_skipped or not is_complete
        if self._ledger.absent_count:
            wanted = {key: entry for key, entry in wanted.items() if not self._was_absent_since(entry)}
        keys = sorted(wanted)
        cursor = self.transaction.cursor()
        known = dict(cursor.getmulti(keys))
        self._note_shadowed(cursor, [key for key in keys if key not in known] if known else keys)
        rows: _Rows = []
        for key, value in known.items():
            if self._put_known(key, wanted[key], value, rows):
                del wanted[key]
        new = keys if len(wanted) == len(keys) else sorted(wanted)
        new_rows, inodes = packed(new, wanted, self._ledger.take_inodes(len(new)))
        self._follow_new(new_rows, wanted)
        self.has_skipped = self.has_skipped or len(new_rows) < len(new)
        rows += new_rows
        if len(rows) > 1:
            cursor.putmulti(compress(rows, cycle(_IS_FIRST)))
            cursor.putmulti(compress(rows, cycle(_IS_LATER)))
        else:
            cursor.putmulti(rows)
        cursor.putmulti(inodes)

    def directory(self, path: str) -> DirectoryRow | None:
        """Return the row of a directory; None if there is none, or another path has its place."""
        if path not in self._directories:
            key = directory_key(self.dataset_id, path)
            value = self.transaction.get(key)
            row = None if value is None else unpack_directory(key, value)
            self._directories[path] = row if row is not None and row.path == path else None
        return self._directories[path]

    def make_directory(self, path: str, oldest_ns: int) -> DirectoryRow | None:
        """Return the row of a directory, made if need be, with rows as old as oldest_ns in it.

        None if another path has its place.
        """
        known = self.directory(path)
        if known is not None and known.oldest_ns <= oldest_ns:
            return known
        if known is not None:
            return self.set_directory(known._replace(oldest_ns=oldest_ns))
        key = directory_key(self.dataset_id, path)
        value = self.transaction.get(key)
        if value is not None:
            if unpack_directory(key, value) is not None:
                return None
            # A damaged row: what was known in the directory is out of reach from now on.
            self.has_changed = True
        row = DirectoryRow(self._ledger.take_directory(), 0, 0, oldest_ns, path)
        self.transaction.put(parent_key(prefix_of(row.id)), key[1:])
        return self.set_directory(row)

    def set_directory(self, row: DirectoryRow) -> DirectoryRow:
        """Write the row of a directory that is known, and return it."""
        if row != self._directories.get(row.path):
            key = directory_key(self.dataset_id, row.path)
            self.transaction.put(key, pack_directory(key, row))
            self._directories[row.path] = row
        return row

    def remove(self, path: str, before_ns: int | None = None) -> bool:
        """Remove the object and the directory of that name, with before_ns only what was checked earlier.

        Returns whether one is left.
        """
        parent, _, name = path.rpartition("/")
        directory = self.directory(parent)
        if directory is None:
            return False
        prefix, encoded = prefix_of(directory.id), name_bytes(name)
        is_left = False
        for kind in (OBJECT, DIRECTORY):
            key = prefix + kind + encoded
            value = self.transaction.get(key)
            if value is None:
                continue
            entry = unpack_entry(parent, key, value)
            if entry is not None and before_ns is not None and entry.checked_ns >= before_ns:
                is_left = True
            elif entry is None or entry.path == path:
                self.remove_row(key, entry)
        return is_left

    def remove_row(self, key: bytes, entry: Entry | None) -> str | None:
        """Remove a row that was read, None if it is damaged; return the path of a directory with content."""
        self.transaction.delete(key)
        self.has_changed = True
        if entry is None:
            return None
        self.transaction.delete(inode_key(entry.inode))
        if not entry.is_dir:
            self._note_stale(entry)
            return None
        known = self.directory(entry.path)
        if known is None:
            return None
        self.set_directory(known._replace(listed_ns=0))
        return entry.path

    def note_absent(self, path: str, asked_ns: int) -> None:
        """Remember that there was neither object nor directory at asked_ns."""
        if self.remove(path, asked_ns):
            return
        known = self.directory(path)
        if known is not None and known.void_ns < asked_ns:
            self.set_directory(known._replace(listed_ns=0, void_ns=asked_ns))
        absent.note(self.transaction, self._ledger, self.dataset_id, path, asked_ns)

    def forget_absent(self, path: str) -> None:
        """Forget that there was no such object."""
        if absent.clear(self.transaction, self._ledger, self.dataset_id, path):
            self.has_changed = True

    def forget_all_absent(self) -> None:
        """Forget of all paths that there is no such object."""
        if absent.clear_all(self.transaction, self._ledger, self.dataset_id):
            self.has_changed = True

    def reclaimed(self, objects: Iterable[StaleObject]) -> None:
        """Take stale versions, of any dataset, off the list."""
        for each in objects:
            stale.remove(self.transaction, self._ledger, each.dataset_id, each.path, each.version)

    def discard(self, keys: Iterable[bytes]) -> None:
        """Delete damaged rows that nothing else refers to."""
        for key in keys:
            self.transaction.delete(key)

    def _was_absent_since(self, entry: Entry) -> bool:
        if not self._ledger.absent_count:
            return False
        asked_ns = absent.asked_ns(self.transaction, self.dataset_id, entry.path)
        return asked_ns is not None and asked_ns > entry.checked_ns

    def _note_shadowed(self, cursor: Any, new_keys: Sequence[bytes]) -> None:
        """Note whether a new object hides a known directory of its name."""
        if self.has_changed:
            return
        for prefix in {key[:PREFIX_BYTES] for key in new_keys}:
            directories = prefix + DIRECTORY
            # Most directories have objects in them or directories, not both.
            if cursor.set_range(directories) and cursor.key().startswith(directories):
                objects = prefix + OBJECT
                hidden = [directories + key[NAME_AT:] for key in new_keys if key.startswith(objects)]
                if cursor.getmulti(hidden):
                    self.has_changed = True
                    return

    def _put_known(self, key: bytes, entry: Entry, value: bytes, rows: _Rows) -> bool:
        """Have an entry take the place of a row, unless it is newer; return False if that row is no more."""
        parent = entry.path.rpartition("/")[0]
        known = unpack_entry(parent, key, value)
        directory = self.directory(parent)
        if known is None or directory is None or known.checked_ns < directory.void_ns:
            self.remove_row(key, known)
            return False
        if known.path != entry.path:
            self.has_skipped = True
        elif known.checked_ns <= entry.checked_ns:
            try:
                packed_value = pack_entry(key, entry, known.inode)
            except (OverflowError, UnicodeEncodeError):
                self.has_skipped = True
                return True
            if packed_value != value:
                rows.append((key, packed_value))
                self._follow(entry, known)
        return True

    def _follow(self, entry: Entry, known: Entry) -> None:
        """Do what follows from an entry that takes the place of another."""
        if known[1:4] != entry[1:4]:
            self.has_changed = True
        if not entry.is_dir and known.version != entry.version:
            self._note_stale(known)
            self._note_current(entry)

    def _follow_new(self, rows: _Rows, entries: dict[bytes, Entry]) -> None:
        """Do what follows from entries that are new."""
        if self._ledger.absent_count or self._ledger.stale_count:
            for key, _ in rows:
                self.forget_absent(entries[key].path)
                self._note_current(entries[key])

    def _note_current(self, entry: Entry) -> None:
        if not entry.is_dir:
            stale.remove(self.transaction, self._ledger, self.dataset_id, entry.path, entry.version)

    def _note_stale(self, entry: Entry) -> None:
        if entry.version:
            found = StaleObject(self.dataset_id, entry.path, entry.version, entry.size)
            stale.add(self.transaction, self._ledger, found)
            self.replaced.append(found)

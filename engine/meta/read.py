"""What one reading transaction finds in the entries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple

from forebay.meta import absent
from forebay.meta._rows import unpack_entries, unpack_entry
from forebay.meta.rows import (
    DIRECTORIES,
    DIRECTORY,
    ENTRIES,
    LONG_KEY_BYTES,
    NAME_AT,
    OBJECT,
    DirectoryRow,
    Entry,
    dataset_of,
    directory_key,
    end_of,
    inode_key,
    name_bytes,
    parent_key,
    prefix_of,
    unpack_directory,
)

_OBJECT: Final = (OBJECT,)
_DIRECTORY: Final = (DIRECTORY,)
_EITHER: Final = (OBJECT, DIRECTORY)
_DIRECTORY_FIRST: Final = (DIRECTORY, OBJECT)

_PAGE_ROWS: Final = 1_000


class Listing(NamedTuple):
    """A directory's content, complete as of listed_ns, or whatever is known of it if that is None."""

    listed_ns: int | None
    entries: list[Entry]


class Names(NamedTuple):
    """The names in a directory, complete as of listed_ns, or those that are known if that is None."""

    listed_ns: int | None
    names: list[str]


class Read:
    """One reading transaction; a damaged row is as if it were not there, and counted in damaged_rows."""

    __slots__ = ("damaged_rows", "transaction")

    def __init__(self, transaction: Any) -> None:
        """Use a transaction that the caller opened, and ends."""
        self.transaction: Final = transaction
        self.damaged_rows = 0

    def find(self, dataset_id: int, path: str, *, directories: bool = False) -> Entry | None:
        """Return what is known of the object, or else, if asked for, of the directory of that name."""
        return self._find(dataset_id, path, _EITHER if directories else _OBJECT)

    def find_directory(self, dataset_id: int, path: str) -> Entry | None:
        """Return what is known of the directory, whether or not there is an object of that name."""
        return self._find(dataset_id, path, _DIRECTORY)

    def shown(self, dataset_id: int, path: str) -> Entry | None:
        """Return the directory of that name, or else the object, as a file system has room for one."""
        return self._find(dataset_id, path, _DIRECTORY_FIRST)

    def _find(self, dataset_id: int, path: str, kinds: Sequence[bytes]) -> Entry | None:
        parent, _, name = path.rpartition("/")
        directory = self.directory(dataset_id, parent)
        if directory is None:
            return None
        prefix, encoded = prefix_of(directory.id), name_bytes(name)
        for kind in kinds:
            key = prefix + kind + encoded
            value = self.transaction.get(key)
            if value is None:
                continue
            entry = unpack_entry(parent, key, value)
            if entry is None:
                self.damaged_rows += 1
            elif entry.checked_ns >= directory.void_ns and entry.path == path:
                return entry
        return None

    def find_inode(self, inode: int) -> tuple[int, Entry] | None:
        """Return the dataset's id and the entry that has this inode."""
        rest = self.transaction.get(inode_key(inode))
        if rest is None:
            return None
        key = ENTRIES + rest
        value, directory_rest = self.transaction.get(key), self.transaction.get(parent_key(key))
        if value is None or directory_rest is None:
            return None
        above = DIRECTORIES + directory_rest
        row = self.transaction.get(above)
        directory = None if row is None else unpack_directory(above, row)
        if directory is None or not key.startswith(prefix_of(directory.id)):
            return None
        entry = unpack_entry(directory.path, key, value)
        if entry is None or entry.inode != inode or entry.checked_ns < directory.void_ns:
            return None
        return dataset_of(above), entry

    def directory(self, dataset_id: int, path: str) -> DirectoryRow | None:
        """Return the row of a directory."""
        key = directory_key(dataset_id, path)
        value = self.transaction.get(key)
        if value is None:
            return None
        row = unpack_directory(key, value)
        if row is None:
            self.damaged_rows += 1
            return None
        return row if row.path == path else None

    def listing(self, dataset_id: int, path: str) -> Listing:
        """Return a directory's content and when it was listed."""
        directory = self.directory(dataset_id, path)
        if directory is None:
            return Listing(None, [])
        prefix = prefix_of(directory.id)
        cursor = self.transaction.cursor()
        rows = cursor if cursor.set_range(prefix) else ()
        entries, damaged = unpack_entries(path, rows, end_of(prefix))
        self.damaged_rows += damaged
        if directory.oldest_ns < directory.void_ns:
            entries = [entry for entry in entries if entry.checked_ns >= directory.void_ns]
        return Listing(None if damaged else directory.listed_ns or None, entries)

    def page(
        self, dataset_id: int, path: str, kind: bytes, position: bytes | str
    ) -> tuple[list[Entry], bytes | None]:
        """Return some of what is of one kind in a directory, and the key to go on from, None at the end.

        From the key position on, b"" for the first page, or behind a name; in the order of `name_bytes`.
        """
        directory = self.directory(dataset_id, path)
        if directory is None:
            return [], None
        begin = prefix_of(directory.id) + kind
        if isinstance(position, str):
            position = begin + name_bytes(position) + b"\0"
        cursor = self.transaction.cursor()
        rows = islice(cursor, _PAGE_ROWS) if cursor.set_range(position or begin) else ()
        entries, damaged = unpack_entries(path, rows, end_of(begin))
        self.damaged_rows += damaged
        is_last = len(entries) + damaged < _PAGE_ROWS
        if directory.oldest_ns < directory.void_ns:
            entries = [entry for entry in entries if entry.checked_ns >= directory.void_ns]
        return entries, None if is_last else cursor.key() + b"\0"

    def names(self, dataset_id: int, path: str) -> Names:
        """Return the names in a directory and when it was listed."""
        directory = self.directory(dataset_id, path)
        if directory is None:
            return Names(None, [])
        if directory.oldest_ns >= directory.void_ns:
            prefix = prefix_of(directory.id)
            cursor = self.transaction.cursor()
            keys = cursor.iternext(values=False) if cursor.set_range(prefix) else ()
            found = list(takewhile(end_of(prefix).__gt__, keys))
            if LONG_KEY_BYTES not in map(len, found):
                names = [key[NAME_AT:].decode("utf-8", "surrogateescape") for key in found]
                return Names(directory.listed_ns or None, sorted(dict.fromkeys(names)))
        # Rows that are void, or names that only their values hold.
        listed_ns, entries = self.listing(dataset_id, path)
        return Names(listed_ns, sorted({entry.path.rpartition("/")[2] for entry in entries}))

    def absent_ns(self, dataset_id: int, path: str) -> int | None:
        """Return when the under storage last said that there is nothing of that name; None if it did not."""
        asked_ns = absent.asked_ns(self.transaction, dataset_id, path)
        if asked_ns is None or self.find(dataset_id, path, directories=True) is not None:
            return None
        return asked_ns

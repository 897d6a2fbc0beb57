"""Entries as rows: their keys and values, made and read many at a time."""

from collections.abc import Callable, Iterable

from forebay.meta.rows import DirectoryRow, Entry

def entries_of(infos: Iterable[tuple[str, int, int, str, bool]], checked_ns: int) -> list[Entry]:
    """Return entries of what a storage said: (path, size, mtime_ns, version, is_dir) of each."""

def placed(
    entries: Iterable[Entry], find: Callable[[str, int], DirectoryRow | None]
) -> tuple[dict[bytes, Entry], bool]:
    """Return entries by their keys, of several with one key the newest, and whether there is room for all.

    find(directory, checked_ns) returns the row of the directory that an entry lies in, None if there is no
    room for it; it is asked once for entries side by side. What is void there is left out.
    """

def packed(
    keys: Iterable[bytes], entries: dict[bytes, Entry], inode: int
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Return rows of entries that are new, inodes counting up from inode, and the rows of those inodes.

    The entries are found by the keys. One with figures or text that no storage has gets no row.
    """

def pack_entry(key: bytes, entry: Entry, inode: int) -> bytes:
    """Return the value of an entry that has this key.

    Raises: OverflowError, UnicodeEncodeError (figures or text that no storage has).
    """

def unpack_entry(directory: str, key: bytes, value: bytes) -> Entry | None:
    """Return the entry of a directory that has this key; None if the value is damaged, or another key's."""

def unpack_entries(
    directory: str, rows: Iterable[tuple[bytes, bytes]], behind: bytes
) -> tuple[list[Entry], int]:
    """Return the entries of a directory, and the number of damaged rows, from rows up to the key behind."""

def count_objects(rows: Iterable[tuple[bytes, bytes]], behind: bytes) -> tuple[int, int, int]:
    """Return the number of objects, their bytes, and the number of damaged rows, up to the key behind."""

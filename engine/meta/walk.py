"""Walks: all objects below a directory, listed without their directories, as object stores do it.

A walk that came to its end says of every directory below its root what a listing of each would have said:
which directories there are, and that nothing else is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from forebay.meta.read import Read
from forebay.meta.rows import DIRECTORIES, Entry, dataset_prefix, unpack_directory
from forebay.meta.write import Write

_DIRECTORIES_KEPT: Final = 65_536
_ROWS: Final = 1_000


def with_directories(
    pages: Iterable[Sequence[Entry]], root: str, started_ns: int
) -> Iterator[Sequence[Entry]]:
    """Yield pages of objects below root, with an entry for each directory that one of them lies in.

    A directory may come more than once, for only so many are kept in mind.
    """
    known: set[str] = set()
    for page in pages:
        if len(known) > _DIRECTORIES_KEPT:
            known.clear()
        new: list[Entry] = []
        for entry in page:
            directory = entry.path.rpartition("/")[0]
            while directory not in known and len(directory) >= len(root) and directory:
                known.add(directory)
                new.append(Entry(directory, 0, 0, "", True, started_ns))
                directory = directory.rpartition("/")[0]
        yield [*page, *new] if new else page


class Found(NamedTuple):
    """Directories that are known below a root, and where to go on looking for more, None at the end.

    exact are those in which nothing is known but what the walk has shown; listed, others that it has shown;
    gone, those that it has not.
    """

    exact: list[str]
    listed: list[str]
    gone: list[str]
    position: bytes | None


def find_directories(
    read: Read, dataset_id: int, root: str, started_ns: int, position: bytes | None
) -> Found:
    """Return some of a dataset's directories from position on, None for the first; a bounded number."""
    table = dataset_prefix(DIRECTORIES, dataset_id)
    found = Found([], [], [], None)
    cursor = read.transaction.cursor()
    for count, (key, value) in enumerate(cursor if cursor.set_range(position or table) else ()):
        if not key.startswith(table):
            break
        if count == _ROWS:
            return found._replace(position=key)
        row = unpack_directory(key, value)
        if row is None or not (row.path == root or is_below(row.path, root)):
            continue
        if row.path != root and not _is_shown(read, dataset_id, row.path, started_ns):
            found.gone.append(row.path)
        elif row.oldest_ns >= started_ns:
            found.exact.append(row.path)
        else:
            found.listed.append(row.path)
    return found


def note_listed(write: Write, directories: Iterable[str], started_ns: int) -> None:
    """Note directories as listed, in which nothing older than started_ns is known."""
    for path in directories:
        row = write.directory(path)
        if row is not None and row.oldest_ns >= started_ns and row.void_ns < started_ns:
            write.set_directory(row._replace(listed_ns=started_ns, void_ns=started_ns))


def is_below(path: str, root: str) -> bool:
    """Say whether a path lies below a directory, "" being above all."""
    return path.startswith(f"{root}/") if root else bool(path)


def _is_shown(read: Read, dataset_id: int, path: str, started_ns: int) -> bool:
    entry = read.find_directory(dataset_id, path)
    return entry is not None and entry.checked_ns >= started_ns

"""The directories that are known of a dataset, gone through some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from forebay.meta.read import Read
from forebay.meta.rows import DIRECTORIES, Entry, dataset_prefix, unpack_directory

_ROWS: Final = 1_000


class Found(NamedTuple):
    """Directories at and below a root, and where to go on looking for more, None at the end."""

    paths: list[str]
    position: bytes | None


def find_directories(read: Read, dataset_id: int, root: str, position: bytes | None) -> Found:
    """Return some of a dataset's directories from position on, None for the first; a bounded number."""
    table = dataset_prefix(DIRECTORIES, dataset_id)
    paths: list[str] = []
    cursor = read.transaction.cursor()
    for count, (key, value) in enumerate(cursor if cursor.set_range(position or table) else ()):
        if not key.startswith(table):
            break
        if count == _ROWS:
            return Found(paths, key)
        row = unpack_directory(key, value)
        if row is not None and (row.path == root or _is_below(row.path, root)):
            paths.append(row.path)
    return Found(paths, None)


def directories_above(read: Read, dataset_id: int, entry: Entry) -> Iterator[Entry]:
    """Yield an entry for each directory above one, the lowest first, up to one that is known."""
    directory = entry.path.rpartition("/")[0]
    while directory and read.find_directory(dataset_id, directory) is None:
        yield Entry(directory, 0, 0, "", True, entry.checked_ns)
        directory = directory.rpartition("/")[0]


def _is_below(path: str, root: str) -> bool:
    """Say whether a path lies below a directory, "" being above all."""
    return path.startswith(f"{root}/") if root else bool(path)

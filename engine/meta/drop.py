"""Dropping all that is known of a dataset, in transactions of a bounded size."""

from __future__ import annotations

from typing import Final

from forebay.meta._rows import unpack_entry
from forebay.meta.rows import (
    DIRECTORIES,
    STALE,
    dataset_prefix,
    inode_key,
    parent_key,
    prefix_of,
    unpack_directory,
)
from forebay.meta.write import Write

_ROWS: Final = 10_000


class Drop:
    """What is left of a dataset to drop."""

    def __init__(self, dataset_id: int) -> None:
        """Begin with everything."""
        self._directories: Final = dataset_prefix(DIRECTORIES, dataset_id)
        self._stale: Final = dataset_prefix(STALE, dataset_id)
        self.is_done = False

    def step(self, write: Write) -> None:
        """Do what fits into one transaction: directory by directory, each row after what lies in it."""
        write.has_changed = True
        cursor = write.transaction.cursor()
        rows_left = _ROWS
        while rows_left > 0:
            if not cursor.set_range(self._directories) or not cursor.key().startswith(self._directories):
                self.is_done = self._delete(write, self._stale, rows_left) > 0
                return
            key, value = cursor.item()
            directory = unpack_directory(key, value)
            if directory is not None:
                prefix = prefix_of(directory.id)
                rows_left = self._delete(write, prefix, rows_left)
                if rows_left == 0:
                    return
                write.transaction.delete(parent_key(prefix))
            write.transaction.delete(key)
            rows_left -= 1

    def _delete(self, write: Write, prefix: bytes, limit: int) -> int:
        """Delete up to limit rows whose keys begin so, and their inodes; return what is left of the limit."""
        cursor = write.transaction.cursor()
        while limit and cursor.set_range(prefix) and cursor.key().startswith(prefix):
            key, value = cursor.item()
            cursor.delete()
            entry = None if prefix == self._stale else unpack_entry("", key, value)
            if entry is not None:
                write.transaction.delete(inode_key(entry.inode))
            limit -= 1
        return limit

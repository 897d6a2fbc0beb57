"""The ledger: one row of counts that every writing transaction on the entries needs."""

from __future__ import annotations

import struct
from typing import Any, Final

from forebay.meta.rows import INODES, LEDGER, PARENTS, SUM_BYTES, end_of, is_sound, sealed

# Smaller ones are left to frontends, for what has no entry, such as the datasets themselves.
_INODE_FIRST: Final = 1 << 33
_DIRECTORY_FIRST: Final = 1

_ROW: Final = struct.Struct("<QQQQ")


def begin_at(transaction: Any, first_inode: int) -> None:
    """In an environment that is still empty, have inodes begin at this one."""
    transaction.put(LEDGER, sealed(LEDGER, _ROW.pack(first_inode, _DIRECTORY_FIRST, 0, 0)))


class Ledger:
    """The ledger as one writing transaction sees it; whoever changes a count calls ``save`` before commit."""

    def __init__(self, transaction: Any) -> None:
        """Read it. Where it is damaged, numbers go on behind the last ones, and nothing counts as empty."""
        self._transaction: Final = transaction
        value = transaction.get(LEDGER)
        if value is None:
            row = (_INODE_FIRST, _DIRECTORY_FIRST, 0, 0)
        elif len(value) == _ROW.size + SUM_BYTES and is_sound(LEDGER, value):
            row = _ROW.unpack_from(value)
        else:
            inode = max(_INODE_FIRST, _behind_last(transaction, INODES))
            directory = max(_DIRECTORY_FIRST, _behind_last(transaction, PARENTS))
            row = (inode, directory, 1, 1)
        self._next_inode, self._next_directory, self.stale_count, self.absent_count = row
        self._saved = row

    def take_inodes(self, count: int) -> int:
        """Return the first of so many inodes that were never given before."""
        self._next_inode += count
        return self._next_inode - count

    def take_directory(self) -> int:
        """Return an id for a directory that was never given before."""
        self._next_directory += 1
        return self._next_directory - 1

    def save(self) -> None:
        """Write it if it has changed: whatever inodes were taken become the transaction's in one piece."""
        row = (self._next_inode, self._next_directory, self.stale_count, self.absent_count)
        if row != self._saved:
            self._transaction.put(LEDGER, sealed(LEDGER, _ROW.pack(*row)))
            self._saved = row


def _behind_last(transaction: Any, table: bytes) -> int:
    """Return the number behind the last one that is a key of the table."""
    cursor = transaction.cursor()
    found = cursor.prev() if cursor.set_range(end_of(table)) else cursor.last()
    key = cursor.key() if found else b""
    return int.from_bytes(key[len(table) :], "big") + 1 if key.startswith(table) else 0

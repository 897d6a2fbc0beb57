"""Change counters: how processes that remember look-ups learn that they no longer hold.

One counter for each dataset (by its id, modulo their number). Its truth is a row in the entries'
environment, raised by the very transaction that makes something known become different or forgotten; what
is merely learnt raises nothing. A word of shared memory repeats the row, so that looking at it costs no
transaction.

    writer                                     reader that remembers
    W1 word = row + 1                          R1 one transaction: row, and the value it looks up
    W2 commit: row + 1, the change             R2 keeps the value with the row's number
                                               R3 later: uses it only while word == that number

Whoever read before W2 has a smaller number than the word has from W1 on. So a value is never used after its
change was committed, whoever dies where: a writer that dies between W1 and W2 leaves a word that nobody's
number equals, until the next writer raises both to one above it (it holds the environment's lock, so nobody
is between W1 and W2 then). The word never goes down, even when the environment is begun anew.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from typing import Any, Final

from forebay.meta._recent import ChangeCounter
from forebay.meta.rows import CHANGES, CHANGES_UNKNOWN

COUNTERS: Final = 4_096

_FILE_MODE: Final = 0o600
_SHARED_FILE_MODE: Final = 0o660
_WORD_BYTES: Final = 8
_FILE_BYTES: Final = COUNTERS * _WORD_BYTES
_KEY: Final = struct.Struct(">H")
_ROW: Final = struct.Struct("<Q")


class Changes:
    """The counters of one environment. Threads: any; the words are written by the environment's writer."""

    def __init__(
        self, path: str | os.PathLike[str], shared_group: int | None = None, *, read_only: bool = False
    ) -> None:
        """Map the file, and make it if need be; shared_group may write it as well. Raises: OSError."""
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        try:
            if not read_only:
                # Room on disk for all of it: a write to a page that has none would be a SIGBUS.
                os.posix_fallocate(descriptor, 0, _FILE_BYTES)
                if shared_group is not None and os.fstat(descriptor).st_uid == os.geteuid():
                    os.fchown(descriptor, -1, shared_group)
                    os.fchmod(descriptor, _SHARED_FILE_MODE)
            access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
            self._memory: Final = mmap.mmap(descriptor, _FILE_BYTES, access=access)
        except ValueError as error:
            raise OSError(errno.EINVAL, "too short", os.fspath(path)) from error
        finally:
            os.close(descriptor)
        self._writable: Final = not read_only
        self._counters: Final[dict[int, ChangeCounter]] = {}

    def counter(self, dataset_id: int) -> ChangeCounter:
        """Return the word of a dataset, for ``Recent``."""
        number = dataset_id % COUNTERS
        counter = self._counters.get(number)
        if counter is None:
            counter = ChangeCounter(self._memory, number, writable=self._writable)
            self._counters[number] = counter
        return counter

    def committed(self, transaction: Any, dataset_id: int) -> int:
        """Return the number that goes with what the transaction sees; CHANGES_UNKNOWN equals no word ever."""
        value = transaction.get(_key(dataset_id))
        if value is None:
            return 0
        return int(_ROW.unpack(value)[0]) if len(value) == _ROW.size else CHANGES_UNKNOWN

    def settle(self, transaction: Any, dataset_id: int) -> None:
        """At the beginning of a writing transaction, mend what a writer left that did not commit.

        An environment that knows nothing of the dataset is a new one: whoever has looked something up in an
        earlier one has to look again.
        """
        word, number = self.counter(dataset_id).load(), self.committed(transaction, dataset_id)
        if number == 0 or number != word:
            self._set(transaction, dataset_id, (word if number == CHANGES_UNKNOWN else max(number, word)) + 1)

    def announce(self, transaction: Any, dataset_id: int) -> None:
        """As the last act of a writing transaction, tell that what was known has changed."""
        self._set(transaction, dataset_id, self.counter(dataset_id).load() + 1)

    def _set(self, transaction: Any, dataset_id: int, number: int) -> None:
        self.counter(dataset_id).store(number)
        transaction.put(_key(dataset_id), _ROW.pack(number))


def _key(dataset_id: int) -> bytes:
    return CHANGES + _KEY.pack(dataset_id % COUNTERS)

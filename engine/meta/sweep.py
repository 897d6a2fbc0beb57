"""What is left of directories' earlier content once complete listings have shown what there is.

A directory's row alone makes it so: entries that were checked before its void_ns are gone from then on,
for every reader. Removing their rows is a matter of space, and of noting stale versions, and is done in
transactions of a bounded size. What lay below a directory that is gone goes as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, takewhile
from typing import Final

from forebay.meta._rows import unpack_entry
from forebay.meta.rows import DirectoryRow, end_of, prefix_of
from forebay.meta.write import Write

_ROWS: Final = 20_000


class Sweep:
    """The directories that are still to be swept, and how far the sweeping has come."""

    def __init__(self, directories: Iterable[str], before_ns: int, *, is_listed: bool) -> None:
        """Begin with directories that were listed as a whole from before_ns on, or that are gone."""
        self._before_ns: Final = before_ns
        # Where to go on in the last of them; None before its row was written.
        self._left: Final[list[tuple[str, bytes | None]]] = [(path, None) for path in directories]
        self._listed: Final = frozenset(path for path, _ in self._left if is_listed)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._left

    def step(self, write: Write) -> None:
        """Do what fits into one transaction."""
        rows_left = _ROWS
        while self._left and rows_left > 0:
            path, position = self._left.pop()
            row = write.make_directory(path, self._before_ns)
            if row is None:
                continue
            if position is None:
                if row.void_ns >= self._before_ns:
                    continue
                listed_ns = self._before_ns if path in self._listed else 0
                row = write.set_directory(row._replace(listed_ns=listed_ns, void_ns=self._before_ns))
                if row.oldest_ns >= self._before_ns:
                    rows_left -= 1
                    continue
                position = prefix_of(row.id)
            rows_left = self._remove(write, row, position, rows_left)

    def _remove(self, write: Write, directory: DirectoryRow, position: bytes, limit: int) -> int:
        """Look at up to limit rows from position on; return what is left of the limit."""
        cursor = write.transaction.cursor()
        behind = end_of(prefix_of(directory.id))
        rows = cursor if cursor.set_range(position) else iter(())
        seen = list(islice(takewhile(lambda row: row[0] < behind, rows), limit + 1))
        for key, value in seen[:limit]:
            entry = unpack_entry(directory.path, key, value)
            if entry is None or entry.checked_ns < self._before_ns:
                below = write.remove_row(key, entry)
                if below is not None:
                    self._left.insert(0, (below, None))
        if len(seen) > limit:
            self._left.append((directory.path, seen[limit][0]))
            # Whoever has looked up one of the rows that were not reached has to look again.
            write.has_changed = True
            return 0
        write.set_directory(directory._replace(oldest_ns=self._before_ns))
        return limit - len(seen)

"""What an open directory shows: page by page as it is read, and what was read stays, with its offsets.

A hundred thousand entries are usual, so they are kept in arrays, about 100 bytes each with their names, and
not as objects. They come and go many at a time: what is done for each of them is what a listing costs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from time import monotonic
from typing import Final

from forebay.cache import Entry
from forebay.fuse.attributes import Attributes

# The kernel's own bound for names in FUSE.
NAME_BYTES_MAX: Final = 1_024
# Behind the last step.
_END: Final = object()
_UNSHOWN: Final = frozenset({b"", b".", b".."})
# Somewhat more than the kernel asks for at a time.
_ROWS_AT_ONCE: Final = 256
# So many entries are there before they are asked for.
_AHEAD: Final = 1_000

# name, inode, size, mtime_ns, timeout_s as it was when it was added, is_dir
Row = tuple[bytes, int, int, int, float, int]


class Listing:
    """The entries of one directory, numbered from 0. Threads: one at a time."""

    def __init__(
        self,
        fill: Callable[[Listing], Iterator[None]] = lambda listing: iter(()),
        still_holds: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin with none; at each step of fill, some are added.

        still_holds is asked before entries are shown, for some may have been read long before.
        """
        self._begun_s: Final = monotonic()
        self._names: Final[list[bytes]] = []
        self._inodes: Final = array("Q")
        self._sizes: Final = array("Q")
        self._mtimes_ns: Final = array("q")
        self._timeouts_s: Final = array("d")
        self._are_dirs: Final = bytearray()
        self._steps = fill(self)
        self._still_holds: Final = still_holds
        self._holds = True
        self._is_whole = False
        self._error: Exception | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing was different when it was reached last."""
        return self._holds

    def __len__(self) -> int:
        """Return how many entries have been read."""
        return len(self._names)

    def add(self, name: bytes, attributes: Attributes, *, is_dir: bool) -> None:
        """Add an entry, unless it has a name that no file system shows."""
        if not _are_shown([name]):
            return
        self._names.append(name)
        self._inodes.append(attributes.inode)
        self._sizes.append(attributes.size)
        self._mtimes_ns.append(attributes.mtime_ns)
        self._timeouts_s.append(attributes.timeout_s)
        self._are_dirs.append(is_dir)

    def add_page(self, entries: Sequence[Entry], timeouts_s: Sequence[float]) -> None:
        """Add some of what lies in the directory, each with how long it holds, but what is never shown."""
        if not entries:
            return
        paths, sizes, mtimes_ns, _, are_dirs, _, inodes = zip(*entries, strict=True)
        name_at = paths[0].rfind("/") + 1
        names = [path[name_at:].encode("utf-8", "surrogateescape") for path in paths]
        if not _are_shown(names):
            shown = [_are_shown([name]) for name in names]
            self.add_page(list(compress(entries, shown)), list(compress(timeouts_s, shown)))
            return
        self._names.extend(names)
        self._inodes.extend(inodes)
        self._sizes.extend(sizes)
        self._mtimes_ns.extend(mtimes_ns)
        self._timeouts_s.extend(timeouts_s)
        self._are_dirs.extend(are_dirs)

    def reach(self, number: int) -> None:
        """Read on until an entry is there, or the end. Raises: what reading raises."""
        while number >= len(self._names) and not self._is_whole:
            self.read_on()
        self._holds = self._holds and self._still_holds()
        if number >= len(self._names) and self._error is not None:
            raise self._error

    def is_ahead_of(self, number: int) -> bool:
        """Say whether enough is there before it is asked for, if an entry is to be the next."""
        return self._is_whole or len(self._names) - number >= _AHEAD

    def read_on(self) -> None:
        """Read some more, if there is more; what fails is raised where it is reached."""
        try:
            self._is_whole = next(self._steps, _END) is _END
        except Exception as error:  # noqa: BLE001  (whoever reaches it raises it)
            self._is_whole, self._error = True, error

    def close(self) -> None:
        """Read no more."""
        self._is_whole = True
        # It has this listing, which it would keep until the collector comes by.
        self._steps = iter(())

    def rows(self, start: int) -> Iterator[Row]:
        """Yield entries from a number on, as far as they have been read."""
        for begin in range(start, len(self._names), _ROWS_AT_ONCE):
            part = slice(begin, begin + _ROWS_AT_ONCE)
            yield from zip(
                self._names[part],
                self._inodes[part],
                self._sizes[part],
                self._mtimes_ns[part],
                self._timeouts_s[part],
                self._are_dirs[part],
                strict=True,
            )

    def left_s(self, timeout_s: float) -> float:
        """Return for how long an entry still holds that held for so long when it was added."""
        return max(timeout_s - (monotonic() - self._begun_s), 0.0) if self._holds else 0.0


def _are_shown(names: list[bytes]) -> bool:
    """Say whether all are names that a file system shows."""
    joined = b"".join(names)
    return (
        _UNSHOWN.isdisjoint(names)
        and b"\0" not in joined
        and b"/" not in joined
        and (len(joined) <= NAME_BYTES_MAX or max(map(len, names)) <= NAME_BYTES_MAX)
    )

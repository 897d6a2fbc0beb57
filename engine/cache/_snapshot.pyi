"""One version of an object, to be read by ranges: what frontends with positioned reads keep open.

As with CachedFile what is read is all of one version; unlike it this has no position, costs little to make,
and may be read by several threads. Most are opened, read whole and closed: where the object is one cached
block that is done here, in a look-up and a copy, and what other reads need is made by the first of them.
"""

from collections.abc import Callable
from typing import Any, Final, final

from forebay.cache.snapshot import Ranges
from forebay.meta import Entry, Recent
from forebay.store import BlockStore

@final
class Snapshots:
    """Opens snapshots of the objects of one cache. Threads: any."""

    def __init__(self, store: BlockStore, recent: Recent) -> None:
        """Use these, of one process and those that it forks."""

    def known(
        self,
        path: str,
        make_ranges: Callable[[str, Entry], Ranges],
        note: Callable[[str, int, int], None] | None,
    ) -> Snapshot | None:
        """Return an object that was looked up lately, and still is as it was; else None.

        make_ranges: of the reads that take more. note: is told what was read. Never waits, raises nothing.
        """

    def of(
        self,
        path: str,
        entry: Entry,
        make_ranges: Callable[[str, Entry], Ranges],
        note: Callable[[str, int, int], None] | None,
    ) -> Snapshot:
        """Return as ``known`` an object that has been looked up just now."""

@final
class Snapshot:
    """One version of an object; made by ``Cache.snapshot``. Threads: any. Does not survive a fork."""

    path: Final[str]
    """The object's path in its cache."""
    size: Final[int]
    """How many bytes it has."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @property
    def version(self) -> str:
        """The version that is read."""

    @property
    def block_bytes(self) -> int:
        """How much is fetched at a time: best asked for in pieces that lie within such a one."""

    def readinto(self, buffer: Any, offset: int = 0) -> int:
        """Fill a buffer from offset on; return how many bytes, fewer only at the object's end.

        Raises: Stale, once there is another version; ValueError (negative offset); TypeError (another
        buffer); as ``Cache.readinto``.
        """

    def fill(self, buffer: Any, offset: int = 0) -> bool:
        """Fill as ``readinto``; return whether there was as much as the buffer holds. Raises: as that."""

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return a range, less at the object's end, if it lies in one block, in memory; else None.

        Never waits: for nobody, nor for a disk. Raises: Stale.
        """

    def read(self, offset: int, length: int) -> memoryview:
        """Return a range, less at the object's end; of one block of a memory tier without a copy.

        Raises: Stale; as ``Cache.read``.
        """

    def close(self) -> None:
        """Give up what was fetched ahead; may be called twice."""

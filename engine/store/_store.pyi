"""The block store: one cache directory that any number of processes of a host open at once, without a daemon.

Its invariant: what a read returns is None or exactly the bytes put last under that key, whoever was killed
in between, whatever was evicted, and whatever lies damaged on the disk. It is not a database: any block may
be gone at any time (a miss), a put may be declined, and what was put within a machine crash may be lost.

Keys are bytes, 1 to 4,096 of them; a block has 0 to 64 MiB (and at most its store's ``block_bytes`` to be
admitted for certain). All calls are safe from any thread, release the interpreter lock where they may wait,
and raise Closed after ``close``.
Source: docs/architecture.md.
"""

import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, SupportsIndex, final, overload

from typing_extensions import Buffer

from forebay.config import Tier
from forebay.store.report import CheckReport

RETENTIONS: Final[dict[str, int]]

class _Scope:
    """What ends with a ``with`` statement, which hides no exception. A type only: no such class exists."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

class BlockStore(_Scope):
    """One crash-safe store of blocks on a host, shared by any number of processes without a daemon.

    A context manager; pickles as its configuration, and opens anew where it is unpickled. It may be used on
    both sides of a fork. Views, reservations and claims keep it open until the last of them has ended.
    """

    path: Final[str]
    """The cache directory, absolute."""
    block_bytes: Final[int]
    """The largest block that every tier takes; what the cache was made with."""
    read_only: Final[bool]
    """Whether it was opened to be read only."""
    views: Final[int]
    """Views, reservations, claims and calls under way of this process: what keeps the store open."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        tiers: Sequence[Tier] | None = None,
        *,
        checksum: Literal["none", "load", "read"] = "load",
        disk_views: Literal["copy", "map"] = "copy",
        block_bytes: int | str = ...,
        max_held_bytes: int | str | None = None,
        stall_timeout_s: float = 5.0,
        rows: int = 1024,
        shared_group: int | str | None = None,
        read_only: bool = False,
        reshape: bool = False,
        maintainer: bool = True,
        promote_bytes_per_second: int | str = ...,
    ) -> None:
        """Open the cache directory; make it, join those who have it open, or recover what they left.

        tiers: where blocks lie; None: those that the cache remembers. checksum: verify never, at the first
        read after a restart, or at every read. disk_views: copy blocks of disk tiers, or map them (exposed to
        SIGBUS when a disk fails). block_bytes: a power of two from 64 KiB to 64 MiB; segments take at least
        one such block. max_held_bytes: evicted space that views of this process may keep before it gets
        private copies; 5 % of memory and at least 4 segments by default. stall_timeout_s: after so long
        without progress a fetcher is passed by. rows: processes that may write at once; more can still read.
        shared_group: let a group read and write (2770/0660); a cache stays what it was made. read_only:
        change nothing, read by copies; needs others to have opened it. reshape: the tiers given replace those
        remembered. maintainer: whether this process may run the thread that evicts and expires.
        Blocking: may wait up to 30 s while another process recovers. Threads: any.
        Raises: ConfigError (an option, a tier or the file system will not do, other tiers than the cache has;
        says what and where); StoreBusy (recovery takes too long); OSError (no access, in use by another
        kernel, reshape while others have it open).
        """

    def __enter__(self) -> Self: ...
    def __contains__(self, key: bytes, /) -> bool: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def close(self) -> None:
        """Close the store; views stay good, and the last of them to go really closes it.

        Blocking: the last process to close syncs what is not on the disk yet. May be called again.
        """

    def get(self, key: bytes, dataset: int = 0, changed: bool = False, /) -> View | None:
        """Return a view of the block, or None on a miss, which is counted for the dataset.

        A hit in a MEM tier copies nothing, takes no lock and makes no system call; one in a disk tier is read
        into private memory. A miss is counted once, by its cause. Never waits for eviction. dataset: whose
        miss it would be; a hit is its block's dataset's. changed: the object has another version than before,
        and if its block is missed, that is the cause.
        """

    def peek(self, key: bytes, /) -> View | None:
        """Return what `get` returns, but count no miss: for whoever then asks again."""

    def glance(self, key: bytes, /) -> View | None:
        """Return what `peek` returns where that needs no wait.

        None of what lies on disk, is to be verified, or is in a segment that is not mapped yet.
        """

    def get_many(self, keys: Sequence[bytes], dataset: int = 0) -> list[View | None]:
        """Return what `get` returns for each key, in order."""

    def get_file(self, key: bytes) -> View | None:
        """Return one contiguous view of a complete whole file, or None; its blocks may be there all the same.

        None also where it could not be without a copy: disk tiers unless views are mapped, openers without a
        row, a process that holds too much. All blocks are verified as `checksum` says. Blocking: may read all
        of the file to verify it.
        """

    def readinto(
        self,
        key: bytes,
        buffer: Buffer,
        offset: int = 0,
        dataset: int = 0,
        changed: bool = False,
        *,
        quiet: bool = False,
    ) -> int | None:
        """Copy the block from offset on into the buffer; return the bytes copied, or None on a miss.

        buffer is writable and C-contiguous; as many bytes are copied as both have. dataset, changed: as for
        `get`; quiet: a miss is not counted, as by `peek`. Raises: BufferError.
        """

    def put(
        self,
        key: bytes,
        data: Buffer,
        *,
        dataset: int = 0,
        ttl_s: float | None = None,
        pinned: bool = False,
        medium: str | None = None,
    ) -> bool:
        """Store a block, in place of an earlier one of that key; return whether it was admitted.

        data is C-contiguous; nobody writes to it meanwhile. Not admitted (False) leaves an earlier block as
        it was: no room, no row, a lock that is held too long. Room is not waited for. dataset: whose
        retention and segments, 0 to 2**32 - 1; ids that differ above the lower 28 bits are of one dataset,
        with one account and one quota. ttl_s: seconds of the store's clock from now on. pinned: as by `pin`,
        where the pin fits; else it is admitted unpinned. medium: "MEM", "SSD" or "HDD": its tiers are tried
        first, the others as always after them.
        Blocking: a disk tier's page cache may make it wait.
        Raises: ValueError (key or data too long, ttl_s negative); ConfigError (no such medium); BufferError;
        PermissionError (read-only).
        """

    def refuse(self, key: bytes, size_bytes: int, dataset: int = 0) -> None:
        """Note that a block is not offered, for its caller's own reasons, as if `put` had refused it.

        It is counted as not admitted, and so are later misses of it. Threads: any.
        """

    def reserve(
        self,
        key: bytes,
        size_bytes: int,
        *,
        dataset: int = 0,
        ttl_s: float | None = None,
        pinned: bool = False,
        medium: str | None = None,
    ) -> Reservation:
        """Return a context manager that gives a writable buffer, to be the block when it ends well.

        There is always a buffer; whether it was admitted, the reservation tells at its end. The rest as for
        `put`. Raises: ValueError, ConfigError (as put); MemoryError.
        """

    def reserve_file(
        self,
        key: bytes,
        size_bytes: int,
        *,
        dataset: int = 0,
        block_bytes: int | None = None,
        pinned: bool = False,
        medium: str | None = None,
    ) -> FileReservation:
        """Return a context manager that takes a whole file block by block into a segment of its own.

        key is the file's own, not that of a block. Admitted where the file is at least a segment long and at
        most a sixteenth of a tier's quota, and there is room. block_bytes: a power of two from 64 KiB to
        64 MiB; the store's by default. pinned: all its blocks, if there is room for all their pins when it
        begins; else none. medium: as for `put`. Raises: ValueError (sizes out of range); ConfigError.
        """

    def delete(self, key: bytes) -> bool:
        """Drop a block, or what is known of a whole file; return whether it was there.

        Views of it stay good. During a rebuild a block may be dropped that was not found yet (False).
        Raises: StoreBusy (a live process holds its part of the index); PermissionError (no row).
        """

    def contains(self, key: bytes) -> bool:
        """Say whether a get would hit, without reading, counting or touching anything."""

    def claim(self, key: bytes) -> Claim:
        """Become the one process of the host that fetches this key, or learn that another is.

        Where that cannot be agreed on (no row, a full table) everybody is a leader.
        """

    def pin(self, key: bytes) -> bool:
        """Keep a block from eviction; return whether it is there.

        A pin outlives restarts and replacement; it does not keep from expiry, `delete` or `free_dataset`.
        Raises: PinLimit (more than 80 % of the tier would be pinned; gives the figures); StoreBusy;
        PermissionError (no row).
        """

    def unpin(self, key: bytes) -> bool:
        """Give a pinned block back to retention; return whether it is there.

        Raises: StoreBusy; PermissionError (no row).
        """

    def expire(self, key: bytes, ttl_s: float | None) -> bool:
        """Let a block expire ttl_s seconds from now, None: never; return whether it is there.

        The store's clock runs on boot time: jumps of the wall clock do not move it.
        Raises: ValueError (negative); StoreBusy; PermissionError (no row).
        """

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Drop blocks, as `delete` does; return how many were there.

        One key after the other, so nobody waits longer than for one; the interpreter is not held. Blocking:
        about 2 us a key. Raises: as `delete`; what was dropped before stays so, and the call may be repeated.
        """

    def contains_many(self, keys: Iterable[bytes]) -> bytes:
        """Return a byte for each key: 1 where a get would hit, 0 elsewhere."""

    def pin_many(self, keys: Iterable[bytes]) -> int:
        """Pin the blocks that are there, all of them or, beyond the limit, none; return how many are.

        A key that is given twice counts once. Blocking: as `delete_many`. Raises: PinLimit (nothing was
        pinned that was not so before; gives the figures); StoreBusy (some may be pinned by then);
        PermissionError (no row).
        """

    def unpin_many(self, keys: Iterable[bytes]) -> int:
        """Give pinned blocks back to retention; return how many are there.

        Blocking, Raises: as `delete_many`.
        """

    def expire_many(self, keys: Iterable[bytes], ttl_s: float | None) -> int:
        """Let blocks expire ttl_s seconds from now, None: never; return how many are there.

        Blocking: as `delete_many`. Raises: as `expire`.
        """

    def set_retention(self, dataset: int, retention: str) -> None:
        """Choose what is evicted of a dataset, and when: "epoch", "s3fifo", "lru" or "spare".

        epoch (every dataset's at first): admit until the tiers are full, then keep. spare: admit only while a
        tier is below its low watermark, and let go before all else. Holds for all processes, until all of
        them have closed the store. Raises: ConfigError (no such retention); PermissionError.
        """

    def set_quota(self, dataset: int, quota: int | str | None) -> None:
        """Admit nothing of a dataset beyond so many bytes; None: no quota.

        quota: bytes, or text as in "10GiB". What is there already stays, reads go on, and what is refused is
        counted as not admitted. Writers that publish at one moment may exceed it, by a block each.
        Holds for all processes, until all of them have closed the store. Raises: ConfigError (no such size);
        PermissionError (no row).
        """

    def free_dataset(self, dataset: int) -> None:
        """Drop all blocks of a dataset, pinned ones too.

        Blocking: for as long as that takes, and up to a second for who moves or writes blocks of it.
        Raises: OSError (EBUSY: somebody still does; the rest is gone); PermissionError (no row).
        """

    def status(self) -> dict[str, Any]:
        """Return tiers, counters, holders and the rest as plain, JSON-able values.

        The figures are counted at the call: about 15 ms for a million blocks. Names: docs/metrics.md. Under
        ``datasets`` stand, by the dataset's number, its blocks and its counters; of more datasets than have
        an account of their own the counters are in that of number 0, and theirs are empty.
        """

    def count(self, name: str, n: int = 1, dataset: int = 0) -> None:
        """Add n to one of the counters that are kept for whoever fetches, for a dataset, host-wide.

        They are those from ``peer_down`` on in ``forebay.store.report.COUNTERS``. Threads: any.
        Raises: ValueError (another counter); Closed.
        """

    def check(self, repair: bool = False, *, data: bool = True) -> CheckReport:
        """Walk index, record tables and (data) every byte; with repair drop what is wrong.

        Blocking: reads the whole cache. Others go on meanwhile.
        """

    def maintain(self) -> bool:
        """Do one round of maintenance here; return False when another process is the maintainer.

        Raises: PermissionError (no row).
        """

    def advance_clock(self, seconds: float) -> None:
        """Move the store's clock for every process that has it open: for tests.

        Raises: PermissionError (read-only).
        """

@final
class View(_Scope, Buffer):
    """A read-only buffer over cached bytes, which stay put until it is released.

    A context manager with the buffer protocol, len, slices (memoryviews) and ``bytes()``; equal to every
    buffer of the same bytes; pickles as its bytes. Arrays and memoryviews over it keep it from being
    released, and released it is when the last reference goes. Made by `BlockStore.get` and `wrap`.
    """

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @staticmethod
    def wrap(data: Buffer) -> View:
        """Return a view over a buffer that is not the store's.

        data is C-contiguous and kept as long as the view. Raises: BufferError.
        """

    def release(self) -> None:
        """Give the bytes up; a view that is released may be released again.

        Raises: BufferError (something still uses the bytes).
        """

    def copy(self) -> bytearray:
        """Return a private, writable copy."""

    @property
    def zero_copy(self) -> bool:
        """Whether the bytes lie in a segment of the store rather than in private memory."""

    def __enter__(self) -> Self: ...
    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> memoryview: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Reservation(_Scope, Buffer):
    """Room for one block, filled in place through the buffer protocol.

    As a context manager it gives a writable memoryview, commits on a clean exit and gives up on an exception.
    A buffer that is still used at the end is a BufferError, and the block is given up. Nobody sees the block
    before. Made by `BlockStore.reserve`.
    """

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    admitted: Final[bool | None]
    """Whether the block is in the store; None until the reservation has ended."""

    def commit(self) -> bool:
        """Publish the block; return whether it was admitted.

        Raises: BufferError (the buffer is in use); ValueError (ended before).
        """

    def abandon(self) -> None:
        """Give the block up: at once for everybody else, its memory when nothing uses the buffer any more."""

    def __enter__(self) -> memoryview: ...

@final
class FileReservation(_Scope):
    """A segment for one whole file, filled block by block.

    A context manager: a clean exit publishes the whole, an exception gives it up with all its blocks. Where
    the file was not admitted it does nothing. Made by `BlockStore.reserve_file`. Threads: any, for blocks
    that differ; it is published when none writes any more, and may be given up at any time.
    """

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    admitted: Final[bool]
    """Whether there is a segment for it."""
    complete: Final[bool | None]
    """Whether the whole was published; None until the reservation has ended."""

    def write(self, number: int, key: bytes, data: Buffer) -> bool:
        """Write a block of the file, which can be read from then on; return whether it was admitted.

        number counts from 0 in any order; key is the block's own; data is all of that block.
        Raises: ValueError (no such block, not its length, ended); BufferError.
        """

    def write_pieces(self, number: int, key: bytes, pieces: Iterable[Buffer]) -> bool:
        """Write a block that comes in pieces, in order; return whether it was admitted.

        Each piece is written as it comes, and the block is there when all have. Pieces are not asked for any
        more once one was not admitted, and not at all where the block is there already. Raises: as `write`;
        what asking for a piece raises: the block is not written then, and may be written again.
        """

    def finish(self, keep: bool = True) -> bool:
        """End the file: publish the whole, or give it up; return whether it is complete.

        Raises: ValueError (kept before all blocks were written: it is given up).
        """

    def __enter__(self) -> Self: ...

@final
class Claim:
    """The right to fetch a key for the host (leader), or a place to wait for whoever has it.

    Ends with `done`, or when it is dropped. Made by `BlockStore.claim`.
    """

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    leader: Final[bool]
    """Whether this process is to fetch."""
    stalled: Final[bool]
    """Whether the fetcher made no progress for stall_timeout_s: fetch alone, and do not admit."""

    def progress(self) -> None:
        """Tell the followers that the fetch goes on."""

    def done(self) -> None:
        """End the flight, whether it brought the block or not."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for the fetch to end, at most timeout_s; return whether it is over (or its fetcher is).

        Over also means that the fetcher died or stalled; look again, or claim anew. A signal is answered
        within 100 ms.
        """

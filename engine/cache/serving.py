"""What a member of a group answers its peers with: the own store, else the under storage, and nobody else.

A request that reaches a member is never passed on, so there are no loops. A block is brought once for all
who ask for it: in this process they all read what comes of it, and of other processes' flights the end is
awaited. Peers know datasets by their names; what a manifest shows here is no matter, for a request says the
version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from forebay.cache.admission import Admission
from forebay.cache.arriving import Arriving
from forebay.cache.blocks import Block, block_of
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher, FirstTouch
from forebay.cache.paths import block_key, split_path
from forebay.cache.peers import Peers, entry_of
from forebay.cache.read import Reader
from forebay.cache.replicated import Replicated
from forebay.cache.runtime import Runtime
from forebay.cache.usage import cached_bytes_of
from forebay.cache.whole import WholeFiles
from forebay.errors import NotFound, Stale, stale
from forebay.meta import Dataset, Entry, not_attached
from forebay.remote import BlockRef, NoRemote, Remote, RemoteObject

if TYPE_CHECKING:
    from forebay.store import View

_PAGE_ENTRIES: Final = 1_000
# No block has so high a number: the last is that of whole files.
_NUMBERS: Final = (1 << 64) - 1


class Serving:
    """Answers for one process; made by ``Cache.serving``, and good until the cache is closed. Threads: any.

    block_bytes is the size of blocks, which all of a group have in common; replicated tells what of the
    cache is to lie on several members.
    Everything but ``hit`` and ``hits`` may block for as long as the under storage takes, in the calling
    thread; threads of the cache's pool make the requests, within its limits. Everything raises NotAttached
    (no such dataset), ValueError (no path), Closed; what asks the under storage raises as ``Cache.read``.
    """

    def __init__(self, runtime: Runtime, owner_side: Remote | None = None) -> None:
        """Serve what this process has open.

        owner_side is asked before the under storage for blocks, and what objects they are of: whoever had
        them before the ring changed may still hold them.
        """
        store = runtime.parts.store
        nobody, former = Peers(NoRemote(), store), Peers(owner_side or NoRemote(), store)
        self._former: Final = former
        self._runtime: Final = runtime
        self._store: Final = store
        self._lookup: Final = runtime.lookup.asking(nobody)
        # What is served from here is kept here, wherever else it may be.
        self._fetcher: Final = Fetcher(
            Admission(store, nobody), former, self._lookup, runtime.pool, runtime.demand
        )
        self._reader: Final = Reader(
            self._lookup, self._fetcher, WholeFiles(self._fetcher), runtime.parts.max_read_bytes
        )
        self._datasets: Final = runtime.metadata.catalog.datasets
        self.block_bytes: Final = store.block_bytes
        self.replicated: Final = Replicated(runtime)
        self._lock: Final = threading.Lock()
        self._arriving: Final[dict[bytes, Arriving]] = {}

    def hit(self, dataset: str, path: str, version: str, number: int) -> View | None:
        """Return a view of a block that is cached here, None for all else. Counts no miss."""
        return next(self.hits([(dataset, path, version, number)]))

    def hits(self, blocks: Sequence[tuple[str, str, str, int]]) -> Iterator[View | None]:
        """Yield what ``hit`` returns for each block: dataset, path, version and number.

        Which datasets there are is looked up once.
        """
        datasets, peek = self._datasets(), self._store.peek
        for block in blocks:
            key = self._key(datasets, *block)
            yield None if key is None else peek(key)

    def bring(
        self, dataset: str, path: str, version: str, number: int, on_piece: Callable[[memoryview], None]
    ) -> None:
        """Give a whole block to on_piece, in order and in pieces as they come, and cache it.

        Pieces stay as they are for as long as they are referred to. A block that is asked for several times
        at once is fetched once; who asks later has at once what has come by then. on_piece is called in the
        calling thread; what it raises ends this call, and the block is brought for the others all the same.
        Raises: Stale (the object has another version); ValueError (no such block); as ``Cache.read``.
        """
        attached = self._attached(dataset, path)
        entry = self._lookup.known(attached, path)
        if number < 0:
            raise ValueError(f"{dataset}/{path}: there is no block {number}")
        if entry is None:
            entry = self._known_before(attached, path, version)
        if entry is None or entry.version != version:
            touched = self._touch_version(attached, path, version, number)
            self._check_number(touched.entry, number)
            entry = touched.entry
            block = block_of(attached, entry, number, self.block_bytes)
            if touched.has(block.offset, block.end):
                on_piece(touched.bytes_of(block.offset, block.end))
                return
        self._check_number(entry, number)
        block = block_of(attached, entry, number, self.block_bytes)
        if block.length:
            self._pass_on(attached, block, on_piece)

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, View | memoryview]:
        """Return what an object is, with its bytes from offset on, at most length and up to its end.

        Of an unknown one both come by one request to the under storage, once for all who ask. Raises: as
        ``Cache.read``; ValueError (negative figures; more than max_read_bytes).
        """
        if offset < 0 or length < 0:
            raise ValueError(f"offset and length are not negative: offset={offset}, length={length}")
        attached = self._attached(dataset, path)
        touched, _ = self._reader.touch(attached, path, offset, max(length, 1))
        for _ in range(2):
            entry = touched.entry
            end = min(entry.size, offset + length)
            if offset >= end or touched.has(offset, end):
                return self._told(entry), touched.bytes_of(offset, max(offset, end))
            try:
                return self._told(entry), self._reader.read_touched(attached, touched, offset, end)
            except Stale:
                touched = FirstTouch(self._lookup.ask(attached, path))
        raise stale(f"{dataset}/{path}", touched.entry.version, "one that came since")

    def stat(self, dataset: str, path: str) -> RemoteObject:
        """Describe an object or a directory, as freshly as the dataset's max_age wants it."""
        return self._told(self._lookup.stat(self._attached(dataset, path), path))

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]]:
        """Yield what lies in a directory, page by page, as freshly as the dataset's max_age wants it.

        All are as old as the listing. Raises at once, and nothing while it is iterated.
        """
        listed_ns, entries = self._lookup.listed(self._attached(dataset, directory), directory)
        age_ns = self._age_ns(listed_ns)
        return (
            [RemoteObject(*entry[:5], age_ns) for entry in entries[start : start + _PAGE_ENTRIES]]
            for start in range(0, len(entries), _PAGE_ENTRIES)
        )

    def holds(self, refs: Sequence[BlockRef]) -> bytes:
        """Return a byte for each block: 1 where it is cached here, 0 elsewhere. Blocks of no dataset: 0."""
        datasets = self._datasets()
        keys = [self._key(datasets, *ref) for ref in refs]
        found = iter(self._store.contains_many([key for key in keys if key is not None]))
        return bytes(0 if key is None else next(found) for key in keys)

    def admit(self, ref: BlockRef, object_bytes: int, mtime_ns: int, data: memoryview) -> bool:
        """Cache a block that a peer gives of its own accord; return whether it was admitted.

        The caller has verified the data, and nobody changes it meanwhile. Raises: ValueError (it is not as
        long as that block of such an object).
        """
        attached = self._attached(ref.dataset, ref.path)
        entry = Entry(ref.path, object_bytes, mtime_ns, ref.version, False, self._lookup.now_ns())
        self._check_number(entry, ref.number)
        block = block_of(attached, entry, ref.number, self.block_bytes)
        if len(data) != block.length:
            name = f"{ref.dataset}/{ref.path}"
            raise ValueError(f"{name}: block {ref.number} has {block.length} bytes, not {len(data)}")
        if self._store.read_only or not self._fetcher.offer(attached, block, data):
            return False
        if self._lookup.known(attached, ref.path) is None:
            max_age_s = attached.max_age(ref.path)
            if max_age_s is None:
                # What never changes is known from now on.
                self._lookup.remember(attached, entry)
            elif entry.checked_ns > max_age_s * 1e9:
                # Else only the source says how things are: it is known as what has to be asked for again.
                self._lookup.remember(attached, entry._replace(checked_ns=0))
        return True

    def cached_bytes(self, dataset: str, path: str) -> tuple[int, int]:
        """Return how many bytes at and below a path are cached, and how many are known; asks nobody."""
        attached = self._attached(dataset, path)
        cached = total = 0
        for entry in self._runtime.tree.known_objects(attached, path):
            cached += cached_bytes_of(self._store, attached, entry.path, entry.version, entry.size)
            total += entry.size
        return cached, total

    def _attached(self, dataset: str, path: str) -> Attached:
        """Return a dataset with all that its source has. Raises: NotAttached; ValueError (no path)."""
        if dataset not in self._datasets():
            # A version of a dataset is none: requests say which version of an object they mean.
            raise not_attached(dataset, self._datasets())
        split_path(f"{dataset}/{path}")
        return self._runtime.datasets.live(dataset)

    def _known_before(self, attached: Attached, path: str, version: str) -> Entry | None:
        """Return what a former owner knows of an object, if it is of that version there as well."""
        asked_ns = self._lookup.now_ns()
        try:
            found = self._former.stat(attached, path)
        except NotFound:
            return None
        if found is None or found.is_dir or found.version != version:
            return None
        entry = entry_of(found, asked_ns)
        self._lookup.remember(attached, entry)
        return entry

    def _touch_version(self, attached: Attached, path: str, version: str, number: int) -> FirstTouch:
        """Find out by the block itself what an object is of which nothing is known in that version.

        Raises: Stale (it has another version).
        """
        touched = self._fetcher.first_touch(attached, path, number * self.block_bytes, 1)
        if touched.entry.version != version:
            touched = FirstTouch(self._lookup.ask(attached, path))
        if touched.entry.version != version:
            raise stale(f"{attached.label}/{path}", version, touched.entry.version)
        return touched

    def _pass_on(self, attached: Attached, block: Block, on_piece: Callable[[memoryview], None]) -> None:
        arriving = self._arriving_block(attached, block)
        come_bytes = 0
        try:
            while come_bytes < block.length:
                piece = arriving.wait_beyond(come_bytes)
                come_bytes += len(piece)
                on_piece(piece)
        except (Stale, NotFound):
            self._lookup.learn(attached, block.entry.path)
            raise

    def _arriving_block(self, attached: Attached, block: Block) -> Arriving:
        """Return a block on its way, set off by this call if by no other."""
        with self._lock:
            arriving = self._arriving.get(block.key)
            if arriving is not None:
                return arriving
            arriving = self._arriving[block.key] = Arriving(self._fetcher, attached, block)
        arriving.begin(self._end_arriving)
        return arriving

    def _end_arriving(self, arriving: Arriving) -> None:
        with self._lock:
            self._arriving.pop(arriving.block.key, None)

    def _check_number(self, entry: Entry, number: int) -> None:
        if not 0 <= number < max(-(-entry.size // self.block_bytes), 1):
            raise ValueError(f"{entry.path}: has {entry.size} bytes, and no block {number}")

    def _key(
        self, datasets: Mapping[str, Dataset], dataset: str, path: str, version: str, number: int
    ) -> bytes | None:
        """Return the key of a block here, None where the dataset is not attached or no block can be meant."""
        record = datasets.get(dataset)
        # With a NUL a path would run into the version, and under a number that is none nothing is stored.
        if record is None or "\0" in path or not 0 <= number < _NUMBERS:
            return None
        return block_key(record.id, path, version, number, self.block_bytes)

    def _told(self, entry: Entry) -> RemoteObject:
        return RemoteObject(*entry[:5], self._age_ns(entry.checked_ns))

    def _age_ns(self, checked_ns: int) -> int:
        return max(self._lookup.now_ns() - checked_ns, 0)

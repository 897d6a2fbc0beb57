"""Blocks, from the own store, from a peer or from the under storage, in that order and once a host.

The life of a miss:

1. ``store.get`` finds nothing.
2. ``store.claim`` makes one process of the host the leader. It looks again: another may just have ended.
3. The leader asks the peers (see peer_fetch), then the under storage, for the version that the key stands
   for. Blocks that lie side by side, all led by it, are one request.
4. Block by block as they come it offers the bytes to the store, and gives them to its own reader, admitted or
   not. Those of a file that is to lie in one piece go there at once, in small pieces.
5. Followers wait in steps of 100 ms, holding no permit, and look again. Who still finds nothing after two
   leaders (the first may have died), or after one that makes no progress, fetches alone and offers the store
   nothing.

Whoever follows leads nothing meanwhile, so no two processes wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from forebay.cache.admission import Admission
from forebay.cache.blocks import PART_BYTES, Block, Keep, Run, Sink, block_of, runs_of
from forebay.cache.datasets import Attached
from forebay.cache.demand import Demand
from forebay.cache.lookup import Lookup, as_entry
from forebay.cache.paths import block_key
from forebay.cache.peer_fetch import PeerFetch
from forebay.cache.peers import Peers
from forebay.cache.pool import FetchPool, Kind
from forebay.errors import under_storage_error
from forebay.meta import Entry
from forebay.ufs import RangeBody

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from forebay.store import BlockStore, Claim, View

_T = TypeVar("_T")
_Led = list[tuple[Block, "Claim | None"]]

_NOTHING: Final = memoryview(b"")
_WAIT_STEP_S: Final = 0.1
_FLIGHTS_AWAITED_MAX: Final = 2
_BYTE_COUNTERS: Final = {Kind.READAHEAD: "readahead_bytes", Kind.LOAD: "load_bytes"}


@dataclass(frozen=True, slots=True)
class FirstTouch:
    """What one request told of an unknown object: its entry and, if they came, bytes from offset on.

    is_changed: another version of it was known before, which is why its blocks may not be there.
    """

    entry: Entry
    offset: int = 0
    data: memoryview = _NOTHING
    is_changed: bool = False

    def has(self, offset: int, end: int) -> bool:
        """Say whether these bytes came."""
        return self.offset <= offset and end <= self.offset + len(self.data)

    def bytes_of(self, offset: int, end: int) -> memoryview:
        """Return bytes that came."""
        return self.data[offset - self.offset : end - self.offset]


class Fetcher:
    """Gets blocks for one process. Threads: any."""

    def __init__(
        self,
        admission: Admission,
        peers: Peers,
        lookup: Lookup,
        pool: FetchPool,
        demand: Demand,
    ) -> None:
        """Use these, and the store that is admitted to, with its size of blocks."""
        self.store: Final = admission.store
        self.admission: Final = admission
        self.pool: Final = pool
        self.block_bytes: Final = self.store.block_bytes
        self._peers: Final = peers
        self._lookup: Final = lookup
        self._demand: Final = demand
        self.peer_fetch: Final = PeerFetch(
            admission, peers, pool, self._mark, self._count_ahead, self._hand_over
        )

    def block(self, attached: Attached, entry: Entry, number: int) -> Block:
        """Describe a block; the caller guarantees that it begins within the object."""
        return block_of(attached, entry, number, self.block_bytes)

    def view(self, attached: Attached, block: Block, kind: Kind = Kind.DEMAND) -> View:
        """Return a view of the whole block, from wherever it can be had.

        May be called by a task of the pool that was given without a permit. Raises: as
        UnderStorage.read_range.
        """
        view = self.store.get(block.key, block.dataset_id)
        if view is not None:
            return view
        sink = Keep(block.entry.size)
        (run,) = runs_of(attached, [block], sink)
        self.bring([run], kind)
        if run.error is not None:
            raise run.error
        return sink.views[block.number]

    def bring(self, runs: Sequence[Run], kind: Kind = Kind.DEMAND) -> None:
        """Bring the runs' blocks to their sinks, side by side; what went wrong is in each run's error.

        For several runs the caller is no task of the pool. Blocking: until all have ended.
        """
        waiting = list(runs)
        if self._peers.any:
            self.peer_fetch.bring(waiting, kind)
            waiting = [run for run in waiting if run.blocks and run.error is None]
        while waiting:
            tasks = [(run.size_bytes, partial(self._advance, run, kind), run.buffer_bytes) for run in waiting]
            self.pool.run_all(kind, tasks)
            waiting = [run for run in waiting if run.error is None and run.awaited is not None]
            for run in waiting:
                self._await(run)
            waiting = [run for run in waiting if run.blocks]

    def fetch(self, attached: Attached, missing: Iterable[Block], sink: Sink) -> None:
        """Bring missing blocks of one object, in order, to where a reader waits for them.

        Raises: as UnderStorage.read_range, for the first in order that could not be had.
        """
        runs = runs_of(attached, missing, sink)
        self.bring(runs)
        for run in runs:
            if run.error is not None:
                raise run.error

    def prefetch(self, run: Run, kind: Kind) -> None:
        """Bring a run's blocks as a task of the pool, leaving to others what others fetch.

        Raises: as UnderStorage.read_range.
        """
        if self._peers.any:
            self.peer_fetch.bring_permitted(run, kind)
        while run.blocks and run.error is None:
            self._advance(run, kind)
            if run.awaited is not None:
                run.awaited = None
                run.blocks.popleft()
        if run.error is not None:
            raise run.error

    def prepare(self, attached: Attached) -> None:
        """Make the storage's clients before a flight is led: to those who wait that would be a standstill."""
        attached.storage.prepare()

    def first_touch(
        self, attached: Attached, path: str, offset: int, length: int, kind: Kind = Kind.DEMAND
    ) -> FirstTouch:
        """Find out what an unknown object is by reading some of it: one request instead of two.

        That is the blocks of the range, but not more than one part; and of an object that goes on where more
        is wanted only the first block: the rest is faster side by side. Raises: as UnderStorage.read_range.
        """
        number = offset // self.block_bytes
        behind = max(offset + min(length, PART_BYTES), offset + 1)
        count = max(min(-(-behind // self.block_bytes) - number, PART_BYTES // self.block_bytes), 1)

        def look() -> FirstTouch | None:
            entry = self._lookup.known(attached, path)
            return None if entry is None else FirstTouch(entry)

        # Its version is not known, so this key is only for finding each other; nothing is stored under it.
        key = block_key(attached.record.id, path, "", number, self.block_bytes)
        asked_bytes = None if kind is Kind.LOAD else length
        fetch = partial(self._fetch_unknown, attached, path, number, count, kind, asked_bytes)
        self._prepare_for(attached, path, offset)
        return self._fly(key, look, lambda claim: self.pool.run_one(partial(fetch, claim)))

    def _prepare_for(self, attached: Attached, path: str, offset: int) -> None:
        """Prepare for what the storage is likely to be asked for: where peers answer it may never be."""
        if not self._peers.answer_for(attached, path, offset):
            self.prepare(attached)

    def _fly(self, key: bytes, look: Callable[[], _T | None], fetch: Callable[[Claim | None], _T]) -> _T:
        """Return what look finds after others' fetches, or what this process fetches (None: alone)."""
        for _ in range(_FLIGHTS_AWAITED_MAX):
            claim = self.store.claim(key)
            if claim.leader:
                try:
                    found = look()
                    return fetch(claim) if found is None else found
                finally:
                    claim.done()
            while not claim.wait(_WAIT_STEP_S):
                pass
            if (found := look()) is not None:
                return found
            if claim.stalled:
                break
        return fetch(None)

    def _advance(self, run: Run, kind: Kind) -> None:
        """Fetch of a run what this process leads, up to the first block that another fetches."""
        path = run.blocks[0].entry.path if run.blocks else ""
        try:
            if run.blocks:
                self._prepare_for(run.attached, path, run.blocks[0].offset)
            while run.blocks and run.awaited is None:
                led = self._lead(run)
                try:
                    if led:
                        self._fetch(run, led, kind)
                finally:
                    for _, claim in led:
                        if claim is not None:
                            claim.done()
        except Exception as error:  # noqa: BLE001  (whoever brings the run raises it)
            run.error = run.attached.explained(path, error)

    def _lead(self, run: Run) -> _Led:
        """Take from the run adjacent blocks that nobody has and nobody fetches."""
        led: _Led = []
        while run.blocks:
            if led and led[-1][0].end != run.blocks[0].offset:
                return led
            claim: Claim | None = self.store.claim(run.blocks[0].key)
            assert claim is not None
            if not claim.leader:
                if not run.passes_by:
                    if not led:
                        run.awaited = claim
                    return led
                claim = None
            run.passes_by = run.passes_by and run.has_stalled
            run.flights_awaited = 0
            block = run.blocks.popleft()
            if not run.sink.from_store(self.store, block):
                led.append((block, claim))
                continue
            if claim is not None:
                claim.done()
            if led:
                return led
        return led

    def _await(self, run: Run) -> None:
        """Wait for the flight that the run has come upon, and see what it brought."""
        claim = run.awaited
        assert claim is not None
        while not claim.wait(_WAIT_STEP_S):
            pass
        run.awaited = None
        if run.sink.from_store(self.store, run.blocks[0]):
            run.blocks.popleft()
            run.flights_awaited = 0
            return
        run.flights_awaited += 1
        # One who stands still is likely to lead the next blocks too: none of his is waited for again.
        run.has_stalled = run.has_stalled or claim.stalled
        run.passes_by = run.has_stalled or run.flights_awaited >= _FLIGHTS_AWAITED_MAX

    def _fetch(self, run: Run, led: _Led, kind: Kind) -> None:
        """Fetch adjacent blocks of a known version, offer them to the store, give them to the reader."""
        if not self._peers.any:
            self._fetch_from_source(run, led, kind)
            return
        for part in _adjacent(self.peer_fetch.take(run, led, kind)):
            self._fetch_from_source(run, part, kind)

    def _fetch_from_source(self, run: Run, led: _Led, kind: Kind) -> None:
        first, last = led[0][0], led[-1][0]
        record, entry, length = run.attached.record, first.entry, last.end - first.offset
        progress = self._progress([claim for _, claim in led if claim is not None], kind)
        with (
            _Asking(self.store, self._demand, run.attached, kind),
            run.attached.storage.read_range(entry.path, first.offset, length, entry.version) as body,
        ):
            _check_length(body, f"{record.uri}/{entry.path}", length)
            for block, claim in led:
                if not self._receive(run, body, block, claim, progress):
                    run.blocks.clear()
                    return
                self._count_bytes(run.attached, block.length, kind)

    def _receive(
        self, run: Run, body: RangeBody, block: Block, claim: Claim | None, progress: Callable[[], None]
    ) -> bool:
        """Read the body's next block and pass it on; False: the sink wants no more."""
        if run.sink.takes_pieces:
            pieces = body.pieces(block.length, progress)
            if not run.sink.take_pieces(block, pieces):
                return False
            for _ in pieces:
                # What was in already is not taken again; the next block lies behind it.
                continue
            if claim is not None:
                claim.done()
            return True
        room = run.sink.room(block.offset, block.length)
        if room is None:
            data = body.take(block.length, progress)
        else:
            body.readinto(room, progress)
            data = room
        self._hand_over(run, block, data, claim, is_placed=room is not None)
        return True

    def _hand_over(
        self, run: Run, block: Block, data: memoryview, claim: Claim | None, *, is_placed: bool = False
    ) -> None:
        """Give the block to the store, unless the fetch was one alone, and to the reader in any case."""
        admitted = (
            claim is not None
            and not (run.sink.takes_pieces or self.store.read_only)
            and self.offer(run.attached, block, data, run.sink.asked_bytes)
        )
        if not is_placed:
            run.sink.take(block, data, admitted)
        if claim is not None:
            claim.done()

    def offer(
        self, attached: Attached, block: Block, data: memoryview, asked_bytes: int | None = None
    ) -> bool:
        """Put a block into the store; return whether it was admitted."""
        return self.admission.put(attached, block, data, asked_bytes=asked_bytes)

    def _fetch_unknown(
        self,
        attached: Attached,
        path: str,
        number: int,
        count: int,
        kind: Kind,
        asked_bytes: int | None,
        claim: Claim | None,
    ) -> FirstTouch:
        """Fetch blocks of whatever version there is, and remember which it was."""
        offset, length = number * self.block_bytes, count * self.block_bytes
        if self._peers.any:
            touched = self._touch_peer(attached, path, offset, length, kind, asked_bytes, claim)
            if touched is not None:
                return touched
        asked_ns = self._lookup.now_ns()
        data = memoryview(b"")
        with (
            self.pool.permit(kind, length),
            _Asking(self.store, self._demand, attached, kind),
            attached.storage.read_range(path, offset, length) as body,
        ):
            entry = as_entry(body.info, asked_ns)
            _check_length(body, f"{attached.record.uri}/{path}", max(min(length, entry.size - offset), 0))
            numbers = range(number, number + -(-body.length // self.block_bytes))
            blocks = [block_of(attached, entry, each, self.block_bytes) for each in numbers]
            wants_more = asked_bytes is not None and asked_bytes > PART_BYTES
            if wants_more and entry.size > offset + body.length:
                del blocks[1:]
            # Without reading the body if all is cached already; what is not is counted as missed.
            if None in self.store.get_many([block.key for block in blocks], attached.record.id):
                progress = self._progress([claim] if claim is not None else [], kind)
                data = body.take(blocks[-1].end - offset, progress)
                self._count_bytes(attached, len(data), kind)
                if claim is not None:
                    self._offer_all(attached, blocks, data, asked_bytes)
        # Last: whoever sees the entry finds the blocks as well.
        self._lookup.remember(attached, entry)
        return FirstTouch(entry, offset, data)

    def _touch_peer(
        self,
        attached: Attached,
        path: str,
        offset: int,
        length: int,
        kind: Kind,
        asked_bytes: int | None,
        claim: Claim | None,
    ) -> FirstTouch | None:
        """Have a peer say what an unknown object is, with its first blocks; None: it is no peer's to say."""
        with self.pool.permit(kind, length):
            self._mark(kind)
            touched = self._lookup.touch_peer(attached, path, offset, length)
            if touched is None:
                return None
            entry, data = touched
            numbers = range(offset // self.block_bytes, -(-(offset + len(data)) // self.block_bytes))
            blocks = [block_of(attached, entry, each, self.block_bytes) for each in numbers]
            while blocks and blocks[-1].end > offset + len(data):
                # Part of a block is of use to nobody.
                blocks.pop()
            data = data[: blocks[-1].end - offset] if blocks else data[:0]
            self.store.count("peer_bytes", len(data), attached.record.id)
            if data and None in self.store.get_many([block.key for block in blocks], attached.record.id):
                self._count_kind(attached, len(data), kind)
                if claim is not None:
                    self._offer_all(attached, blocks, data, asked_bytes)
        self._lookup.remember(attached, entry)
        return FirstTouch(entry, offset, data)

    def _offer_all(
        self, attached: Attached, blocks: Sequence[Block], data: memoryview, asked_bytes: int | None
    ) -> None:
        """Offer adjacent blocks, which data begins with, to the store."""
        if self.store.read_only or not blocks:
            return
        start, size = blocks[0].offset, blocks[0].entry.size
        asked_bytes = None if asked_bytes is None else min(asked_bytes, size)
        for block in blocks:
            self.offer(attached, block, data[block.offset - start : block.end - start], asked_bytes)

    def _mark(self, kind: Kind) -> None:
        if kind is Kind.DEMAND:
            self._demand.mark()

    def _progress(self, claims: Sequence[Claim], kind: Kind) -> Callable[[], None]:
        """Return what is called whenever bytes have come for these flights."""

        def progress() -> None:
            self._mark(kind)
            for claim in claims:
                claim.progress()

        return progress

    def _count_bytes(self, attached: Attached, count_bytes: int, kind: Kind) -> None:
        self.store.count("source_bytes", count_bytes, attached.record.id)
        self._count_kind(attached, count_bytes, kind)

    def _count_ahead(self, run: Run, count_bytes: int, kind: Kind) -> None:
        self._count_kind(run.attached, count_bytes, kind)

    def _count_kind(self, attached: Attached, count_bytes: int, kind: Kind) -> None:
        """Count what came for no reader that waits, from wherever."""
        if kind in _BYTE_COUNTERS:
            self.store.count(_BYTE_COUNTERS[kind], count_bytes, attached.record.id)


class _Asking:
    """Counts a request to the under storage, and tells the host where a reader waits for it.

    A class, and no generator: it is made for each of very many small objects.
    """

    __slots__ = ("_attached", "_demand", "_store")

    def __init__(self, store: BlockStore, demand: Demand, attached: Attached, kind: Kind) -> None:
        self._store: Final = store
        self._demand: Final = demand if kind is Kind.DEMAND else None
        self._attached: Final = attached

    def __enter__(self) -> None:
        self._store.count("source_requests", 1, self._attached.record.id)
        if self._demand is not None:
            self._demand.mark()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            self._store.count("source_errors", 1, self._attached.record.id)
        if self._demand is not None:
            self._demand.mark()
        if throttled := self._attached.newly_throttled():
            self._store.count("source_throttled", throttled, self._attached.record.id)


def _check_length(body: RangeBody, uri: str, length: int) -> None:
    """Hold a body to the length that it must have. Raises: UnderStorageError."""
    if body.length != length:
        cause = f"has {body.length} bytes from {body.offset} on, not the {length} it should"
        raise under_storage_error(uri, cause)


def _adjacent(led: _Led) -> Iterator[_Led]:
    """Part blocks in order into those that lie side by side."""
    part: _Led = []
    for each in led:
        if part and part[-1][0].end != each[0].offset:
            yield part
            part = []
        part.append(each)
    if part:
        yield part

"""Blocks that peers answer for, asked for in batches: one call of the remote for many blocks of many objects.

A batch takes the flights of all its blocks and waits for none meanwhile: what another process fetches is left
out, and so is what peers do not have. The ordinary way brings both afterwards. Where this host keeps no copy
a flight would bring nobody anything, and none is taken.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from forebay.cache.admission import Admission
from forebay.cache.blocks import Block, Run
from forebay.cache.datasets import Attached
from forebay.cache.peers import Peers, replicas_of
from forebay.cache.pool import FetchPool, Kind
from forebay.config import MIB
from forebay.errors import NotFound, Stale
from forebay.remote import PLACEMENT_BYTES, BlockRequest

if TYPE_CHECKING:
    from forebay.store import Claim

_log: Final = logging.getLogger(__name__)

# A batch is one message to each peer, and its blocks have places in the host's table of flights.
_BATCH_BYTES_MAX: Final = 64 * MIB
_BATCH_BLOCKS_MAX: Final = 128
# Of the process's memory for buffers, so that batches go side by side.
_BATCH_MEMORY_SHARE: Final = 4
_ALIVE_STEP_S: Final = 0.05


class HandOver(Protocol):
    """Gives a block that came to the store and to its reader."""

    def __call__(
        self, run: Run, block: Block, data: memoryview, claim: Claim | None, *, is_placed: bool
    ) -> None:
        """Do so, and end the flight; is_placed: it lies where the reader wants it."""
        ...


@dataclass(slots=True)
class _Wanted:
    """One block of a batch, and what became of it; a block that came is told of in no particular thread."""

    run: Run
    block: Block
    claim: Claim | None = None
    has_come: bool = False


@dataclass(slots=True)
class _Batch:
    wanted: list[_Wanted] = field(default_factory=list)
    size_bytes: int = 0


class PeerFetch:
    """Asks the remote for blocks, for one process. Threads: any."""

    def __init__(
        self,
        admission: Admission,
        peers: Peers,
        pool: FetchPool,
        mark: Callable[[Kind], None],
        count_bytes: Callable[[Run, int, Kind], None],
        hand_over: HandOver,
    ) -> None:
        """Use these; mark tells the host that a reader waits, count_bytes what came for whom."""
        self._store: Final = admission.store
        self._admission: Final = admission
        self._peers: Final = peers
        self._pool: Final = pool
        self._mark: Final = mark
        self._count_bytes: Final = count_bytes
        self._hand_over: Final = hand_over
        self._batch_bytes_max: Final = min(_BATCH_BYTES_MAX, pool.limits.memory_bytes // _BATCH_MEMORY_SHARE)

    def bring(self, runs: Sequence[Run], kind: Kind) -> None:
        """Take out of the runs what peers have, all of them together, under permits of the pool."""
        batches = list(self._batches(runs))
        if batches:
            self._pool.run_all(
                kind, [(each.size_bytes, partial(self._bring, each, kind)) for each in batches]
            )
            _settle(runs, batches)

    def bring_permitted(self, run: Run, kind: Kind) -> None:
        """Take out of one run what peers have; the caller holds a permit for all of it."""
        batches = list(self._batches([run]))
        for batch in batches:
            self._bring(batch, kind)
        _settle([run], batches)

    def take(
        self, run: Run, led: Sequence[tuple[Block, Claim | None]], kind: Kind
    ) -> list[tuple[Block, Claim | None]]:
        """Ask for blocks whose flights the caller leads, unless that was done; return what did not come."""
        wanted = [
            _Wanted(run, block, claim)
            for block, claim in led
            if block.number not in run.asked and self._is_elsewhere(run, block)
        ]
        # The permit of one that passes pieces on is for less than a block, so one has to do.
        at_a_time = 1 if run.sink.takes_pieces and not run.sink.keeps_pieces else len(wanted)
        for start in range(0, len(wanted), max(at_a_time, 1)):
            self._ask(wanted[start : start + at_a_time], kind)
        come = {each.block.number for each in wanted if each.has_come}
        return [each for each in led if each[0].number not in come]

    def part(self, attached: Attached, block: Block, offset: int, end: int) -> memoryview | None:
        """Return bytes of a block that is not kept here without the rest of it; None: bring it as any block.

        So for half of a block at most: reads of little would bring much, again and again.
        """
        path, length = block.entry.path, end - offset
        if (
            not self._peers.any
            or 2 * length > block.length
            or self._admission.is_kept(attached, path, offset)
        ):
            return None
        if attached.max_age(path) == 0:
            # The peer would ask the source each time whether it is still so.
            return None
        with self._pool.permit(Kind.DEMAND, length):
            self._mark(Kind.DEMAND)
            try:
                touched = self._peers.touch(attached, path, offset, length)
            except NotFound:
                # Of a version that is known the source says so itself.
                return None
        if touched is None or touched[0].version != block.entry.version or len(touched[1]) != length:
            return None
        self._store.count("peer_bytes", length, block.dataset_id)
        return touched[1]

    def _batches(self, runs: Sequence[Run]) -> Iterator[_Batch]:
        """Part what peers answer for of the runs, and were not asked for yet, into batches."""
        batch = _Batch()
        for run in runs:
            for block in self._elsewhere(run):
                if batch.wanted and (
                    batch.size_bytes + block.length > self._batch_bytes_max
                    or len(batch.wanted) == _BATCH_BLOCKS_MAX
                ):
                    yield batch
                    batch = _Batch()
                batch.wanted.append(_Wanted(run, block))
                batch.size_bytes += block.length
        if batch.wanted:
            yield batch

    def _elsewhere(self, run: Run) -> Iterator[Block]:
        piece, is_elsewhere = -1, False
        for block in run.blocks:
            if block.offset // PLACEMENT_BYTES != piece:
                piece, is_elsewhere = block.offset // PLACEMENT_BYTES, self._is_elsewhere(run, block)
            if is_elsewhere and block.number not in run.asked:
                yield block

    def _is_elsewhere(self, run: Run, block: Block) -> bool:
        return self._peers.answer_for(run.attached, block.entry.path, block.offset)

    def _bring(self, batch: _Batch, kind: Kind) -> None:
        """Lead what nobody has and nobody fetches, ask for it, and let go of what did not come."""
        led: list[_Wanted] = []
        try:
            for each in batch.wanted:
                # One by one, so that those led already are let go of whatever happens.
                led += [each] if self._leads(each) else []
            if led:
                self._ask(led, kind)
        finally:
            for each in led:
                if each.claim is not None:
                    each.claim.done()

    def _leads(self, wanted: _Wanted) -> bool:
        run, block = wanted.run, wanted.block
        if not self._admission.is_kept(run.attached, block.entry.path, block.offset):
            return True
        claim = self._store.claim(block.key)
        if not claim.leader:
            return False
        if run.sink.from_store(self._store, block):
            wanted.has_come = True
            claim.done()
            return False
        wanted.claim = claim
        return True

    def _ask(self, wanted: Sequence[_Wanted], kind: Kind) -> None:
        """Ask for blocks that nobody else fetches, and hand over what comes."""
        rooms = [each.run.sink.room(each.block.offset, each.block.length) for each in wanted]
        buffers = [
            memoryview(bytearray(each.block.length)) if room is None else room
            for each, room in zip(wanted, rooms, strict=True)
        ]
        alive = _Alive(wanted, partial(self._mark, kind))

        def came(index: int) -> None:
            each = wanted[index]
            if each.has_come:
                return
            each.has_come = True
            self._take(each, buffers[index], kind, is_placed=rooms[index] is not None)
            alive()

        for each in wanted:
            self._store.count("peer_requests", 1, each.block.dataset_id)
            each.run.asked.add(each.block.number)
        self._mark(kind)
        try:
            self._peers.remote.fetch([_request(each) for each in wanted], buffers, came, alive)
        except (NotFound, Stale, PermissionError):
            # The source is asked for what did not come, and says so itself.
            return
        except OSError:
            # Not promised, and no reason for a read to fail.
            _log.warning("peers: a remote failed", exc_info=True)
        for each in wanted:
            if not each.has_come:
                self._store.count("peer_down", 1, each.block.dataset_id)

    def _take(self, wanted: _Wanted, data: memoryview, kind: Kind, *, is_placed: bool) -> None:
        run, block = wanted.run, wanted.block
        self._store.count("peer_bytes", block.length, block.dataset_id)
        self._count_bytes(run, block.length, kind)
        try:
            self._hand_over(run, block, data, wanted.claim, is_placed=is_placed)
        except Exception as error:  # noqa: BLE001  (whoever brings the run raises it, and no peer hears of it)
            run.error = error


class _Alive:
    """Tells those who wait for the flights that peers are at work, now and then. Threads: any."""

    __slots__ = ("_mark", "_told_s", "_wanted")

    def __init__(self, wanted: Sequence[_Wanted], mark: Callable[[], None]) -> None:
        self._wanted: Final = wanted
        self._mark: Final = mark
        self._told_s = 0.0

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < _ALIVE_STEP_S:
            return
        self._told_s = now_s
        self._mark()
        for each in self._wanted:
            if each.claim is not None and not each.has_come:
                each.claim.progress()


def _request(wanted: _Wanted) -> BlockRequest:
    block, attached = wanted.block, wanted.run.attached
    entry, replicas = block.entry, replicas_of(attached, block.entry.path)
    return BlockRequest(
        attached.record.name, entry.path, entry.version, block.number, block.offset, block.length, replicas
    )


def _settle(runs: Sequence[Run], batches: Sequence[_Batch]) -> None:
    """Take out of the runs what has come."""
    come: dict[int, set[int]] = {}
    for batch in batches:
        for each in batch.wanted:
            if each.has_come:
                come.setdefault(id(each.run), set()).add(each.block.number)
    for run in runs:
        if numbers := come.get(id(run)):
            run.blocks = deque(block for block in run.blocks if block.number not in numbers)

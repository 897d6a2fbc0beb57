"""The thread of a member that sees to copies: whatever is cached here and has too few of them is pushed.

Of those who hold a block, the best in rank pushes it to the others of the first R that are up. So each copy
is pushed by one member, whoever that is after a loss, and nobody has to be told. A member that is down still
counts among the R until it leaves the ring, so that a restart moves nothing. Readers wait for none of this:
it reads what is cached, in a thread of its own, at a bounded rate.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

import grpc

from forebay.peer.answer import Hit
from forebay.peer.failures import Failures
from forebay.peer.replicas.pushing import ASKED_MAX, Copy, Pace, PeerStub, ReplicaLimits, held_by, push
from forebay.peer.ring import Ring
from forebay.remote import BlockRef

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
PASS_EVERY_S: Final = 60.0
RETRY_AFTER_S: Final = 5.0
# For new blocks alone a pass begins when the last one is over for so many times as long as it took.
_REST_FACTOR: Final = 9.0


class Cached(Protocol):
    """What of the cache is to have copies, see forebay.cache.replicated. Threads: any."""

    def wanted(self) -> Mapping[tuple[str, str], int]: ...

    def admitted(self) -> int: ...

    def held(self) -> Iterator[Any]: ...


class Reach(NamedTuple):
    """The ring as this member goes by it, its own id, and the stubs of the others that are up, by id."""

    ring: Ring
    own_id: str
    stubs: Mapping[str, PeerStub]


@dataclass(slots=True)
class Figures:
    """What was done for copies since the process began; those of a pass begin anew with each.

    blocks_checked, blocks_missing: of the pass under way or, if there is none, the last one; a block counts
    as missing for each copy that it lacks.
    """

    passes: int = 0
    is_under_way: bool = False
    blocks_checked: int = 0
    blocks_missing: int = 0
    blocks_pushed: int = 0
    bytes_pushed: int = 0
    blocks_refused: int = 0
    errors: int = 0
    last_pass_s: float = 0.0


class Replicator:
    """Keeps up the copies of what one member holds, until it is stopped."""

    def __init__(
        self,
        cached: Cached,
        hit: Callable[[str, str, str, int], Hit | None],
        reach: Callable[[], Reach | None],
        block_bytes: int,
        limits: ReplicaLimits,
        *,
        look_every_s: float = LOOK_EVERY_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Push what cached tells of, as hit finds it, to those that reach returns, None: to nobody yet."""
        self._cached: Final = cached
        self._hit: Final = hit
        self._reach: Final = reach
        self._block_bytes: Final = block_bytes
        self._look_every_s: Final = look_every_s
        self._now_s: Final = now_s
        self._stopping: Final = threading.Event()
        self._pace: Final = Pace(limits.rate_bytes_s, self._stopping)
        self._thread: Final = threading.Thread(target=self._run, name="forebay-replicas", daemon=True)
        self._figures: Final = Figures()
        self._failures: Final = Failures(_log, "copies could not be looked through; they are in a moment")
        self._full: set[str] = set()
        self._marks: tuple[object, ...] | None = None
        self._admitted = -1
        self._is_complete = True
        self._ended_s = 0.0

    def start(self) -> None:
        """Begin to look for what is to be done."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the call that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def status(self) -> dict[str, Any]:
        """Return the figures."""
        return asdict(self._figures)

    def look(self) -> bool:
        """Go through everything if there may be something to do; return whether it did. Raises: Closed."""
        reach = self._reach()
        wanted = self._cached.wanted()
        if reach is None or not wanted:
            self._marks = None
            return False
        marks = (wanted, reach.ring.view, frozenset(reach.stubs))
        admitted = self._cached.admitted()
        rested_s = self._now_s() - self._ended_s
        if marks != self._marks or rested_s >= PASS_EVERY_S:
            # Who had no room may have some now.
            self._full.clear()
        elif not self._is_complete:
            if rested_s < RETRY_AFTER_S:
                return False
        elif admitted == self._admitted or rested_s < _REST_FACTOR * self._figures.last_pass_s:
            return False
        self._marks, self._admitted = marks, admitted
        self._pass(reach)
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._look_every_s):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  (else nothing here would get copies any more)
                self._figures.errors += 1
                self._failures.tell(error)

    def _pass(self, reach: Reach) -> None:
        figures, begun_s = self._figures, self._now_s()
        figures.is_under_way = True
        figures.blocks_checked = figures.blocks_missing = 0
        self._is_complete = False
        is_complete = True
        try:
            blocks = self._blocks()
            while some := list(islice(blocks, ASKED_MAX)):
                if self._stopping.is_set():
                    return
                is_complete &= _Round(self, reach, some).run()
                figures.blocks_checked += len(some)
            self._is_complete = is_complete
            figures.passes += 1
        finally:
            figures.is_under_way = False
            self._ended_s = self._now_s()
            figures.last_pass_s = self._ended_s - begun_s

    def _blocks(self) -> Iterator[tuple[Copy, int]]:
        """Yield what is to have copies, with how many of them."""
        for held in self._cached.held():
            for number in held.numbers:
                ref = BlockRef(held.dataset, held.path, held.version, number)
                yield Copy(ref, held.size, held.mtime_ns), held.replicas

    # ---- what a round needs ----

    def owners(self, ring: Ring, ref: BlockRef, count: int) -> tuple[str, ...]:
        """Return the ids of those who are to hold a block, down or not."""
        found = ring.owners(ref.dataset, ref.path, ref.number * self._block_bytes, count)
        return tuple(member.id for member in found)

    def push(self, member_id: str, stub: PeerStub, copies: list[Copy]) -> None:
        """Push what a member lacks, as far as it has room. Raises: grpc.RpcError; Closed."""
        figures = self._figures
        figures.blocks_missing += len(copies)
        if member_id in self._full:
            return
        for pushed in push(stub, copies, self._hit, self._pace):
            figures.blocks_pushed += pushed.blocks
            figures.bytes_pushed += pushed.size_bytes
            figures.blocks_refused += pushed.refused
            if pushed.refused:
                self._full.add(member_id)
                return

    def failed(self, member_id: str, error: Exception) -> None:
        """Count a call that a member did not answer; the next pass makes it again."""
        self._figures.errors += 1
        _log.info("copies could not be pushed to member %s: %s", member_id, error)


class _Round:
    """Some blocks of a pass: who has them is asked, and what is missing pushed."""

    def __init__(self, replicator: Replicator, reach: Reach, blocks: list[tuple[Copy, int]]) -> None:
        self._replicator: Final = replicator
        self._reach: Final = reach
        self._blocks: Final = [
            (copy, replicator.owners(reach.ring, copy.ref, replicas)) for copy, replicas in blocks
        ]
        self._is_complete = True

    def run(self) -> bool:
        """Do so; return whether everybody answered."""
        asked: dict[str, list[BlockRef]] = defaultdict(list)
        for copy, owners in self._blocks:
            for owner in owners:
                if owner in self._reach.stubs:
                    asked[owner].append(copy.ref)
        held = {
            owner: found for owner, refs in asked.items() if (found := self._held_by(owner, refs)) is not None
        }
        missing: dict[str, list[Copy]] = defaultdict(list)
        for copy, owners in self._blocks:
            if self._is_ours(copy.ref, owners, held):
                for owner in owners:
                    if owner in held and copy.ref not in held[owner]:
                        missing[owner].append(copy)
        for owner, copies in missing.items():
            try:
                self._replicator.push(owner, self._reach.stubs[owner], copies)
            except (grpc.RpcError, ValueError) as error:
                self._failed(owner, error)
        return self._is_complete

    def _held_by(self, owner: str, refs: list[BlockRef]) -> set[BlockRef] | None:
        try:
            found = held_by(self._reach.stubs[owner], refs)
        except (grpc.RpcError, ValueError) as error:
            self._failed(owner, error)
            return None
        return {ref for ref, is_there in zip(refs, found, strict=True) if is_there}

    def _is_ours(self, ref: BlockRef, owners: tuple[str, ...], held: Mapping[str, set[BlockRef]]) -> bool:
        """Say whether nobody before this member in rank has the block, of those that are up.

        Who is up and did not say takes care of it itself, or is asked again.
        """
        own_id = self._reach.own_id
        before = owners[: owners.index(own_id)] if own_id in owners else owners
        return all(owner in held and ref not in held[owner] for owner in before if owner in self._reach.stubs)

    def _failed(self, owner: str, error: Exception) -> None:
        self._is_complete = False
        self._replicator.failed(owner, error)

"""What a member that leaves does for its keys: what it served most lately goes to the next owners."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final, Protocol

import grpc

from forebay.peer.answer import Hit
from forebay.peer.replicas.pushing import Copy, Pace, Pushed, ReplicaLimits, held_by, push
from forebay.peer.replicas.replicator import Reach
from forebay.peer.replicas.served import ServedBlocks
from forebay.remote import BlockRef

_log = logging.getLogger(__name__)

# The hottest go first to all of their owners, so there are not many at a time.
_BLOCKS: Final = 256


class Cached(Protocol):
    """What the cache knows of blocks that were served, see forebay.cache.replicated."""

    def of(self, dataset: str, path: str) -> int: ...

    def object_of(self, dataset: str, path: str, version: str) -> tuple[int, int] | None: ...


class HandOver:
    """Hands over once, within the limits of time and bytes."""

    def __init__(
        self,
        cached: Cached,
        hit: Callable[[str, str, str, int], Hit | None],
        reach: Reach,
        block_bytes: int,
        limits: ReplicaLimits,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Push blocks, as hit finds them, to the owners by the ring of reach, which this member has left."""
        self._cached: Final = cached
        self._hit: Final = hit
        self._reach: Final = reach
        self._block_bytes: Final = block_bytes
        self._now_s: Final = now_s
        self._left_bytes = limits.hand_over_bytes
        self._end_s: Final = now_s() + limits.hand_over_s
        self._pace: Final = Pace(limits.rate_bytes_s, threading.Event())
        self._gone: Final[set[str]] = set()

    def run(self, served: ServedBlocks) -> Pushed:
        """Push what the next owners lack, the hottest first; return what they took. Raises: Closed."""
        total = Pushed()
        hottest = served.hottest()
        for start in range(0, len(hottest), _BLOCKS):
            for owner, copies in self._by_owner(hottest[start : start + _BLOCKS]).items():
                for pushed in self._push(owner, copies):
                    total = Pushed(*map(sum, zip(total, pushed, strict=True)))
            if self._is_over():
                break
        return total

    def _is_over(self) -> bool:
        return self._left_bytes <= 0 or self._left_s() <= 0

    def _left_s(self) -> float:
        return self._end_s - self._now_s()

    def _by_owner(self, refs: list[BlockRef]) -> dict[str, list[Copy]]:
        found: dict[str, list[Copy]] = defaultdict(list)
        for ref in refs:
            known = self._cached.object_of(ref.dataset, ref.path, ref.version)
            if known is None:
                continue
            count = self._cached.of(ref.dataset, ref.path)
            offset, ring = ref.number * self._block_bytes, self._reach.ring
            for owner in ring.owners(ref.dataset, ref.path, offset, count, ring.down):
                if owner.id in self._reach.stubs and owner.id not in self._gone:
                    found[owner.id].append(Copy(ref, *known))
        return found

    def _push(self, owner: str, copies: list[Copy]) -> list[Pushed]:
        """Push what an owner lacks of these; it is left alone once it does not answer."""
        stub, done = self._reach.stubs[owner], list[Pushed]()
        if self._is_over():
            return done
        try:
            held = held_by(stub, [copy.ref for copy in copies], self._left_s())
            missing = [copy for copy, is_there in zip(copies, held, strict=True) if not is_there]
            for pushed in push(stub, self._within_limits(missing), self._hit, self._pace, self._left_s()):
                done.append(pushed)
                if self._is_over():
                    break
        except (grpc.RpcError, ValueError) as error:
            self._gone.add(owner)
            _log.info("hot blocks could not be handed over to member %s: %s", owner, error)
        return done

    def _within_limits(self, copies: list[Copy]) -> list[Copy]:
        """Return as many as there are bytes left for, and count them as gone."""
        kept = []
        for copy in copies:
            if self._left_bytes <= 0:
                break
            begin = copy.ref.number * self._block_bytes
            self._left_bytes -= min(self._block_bytes, copy.object_bytes - begin)
            kept.append(copy)
        return kept

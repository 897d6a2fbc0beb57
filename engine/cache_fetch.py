"""Blocks, from the own store, from a peer or from the under storage, in that order and once a host.

The life of a miss:

1. ``store.get`` finds nothing.
2. ``store.claim`` makes one process of the host the leader. It looks again: another may just have ended.
3. The leader asks the remote, then the under storage, for the version that the key stands for.
4. It offers the bytes to the store, and gives them to its own reader, admitted or not.
5. Followers wait in steps of 100 ms and look again. Who still finds nothing after two leaders (the first
   may have died), or after one that makes no progress, fetches alone and offers the store nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from forebay.cache_datasets import Attached
from forebay.cache_lookup import Lookup, as_entry
from forebay.cache_paths import block_key
from forebay.errors import under_storage_error
from forebay.meta import Entry
from forebay.remote import BlockRequest, Remote
from forebay.ufs import RangeBody

if TYPE_CHECKING:
    from forebay.store import BlockStore, Claim, View

_T = TypeVar("_T")

_WAIT_STEP_S: Final = 0.1
_FLIGHTS_AWAITED_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Block:
    """One block of one version of an object, and its key."""

    entry: Entry
    offset: int
    length: int
    key: bytes


@dataclass(frozen=True, slots=True)
class FirstTouch:
    """What one request told of an unknown object: its entry and, if it has one there, the asked block."""

    entry: Entry
    view: View | None = None


class Fetcher:
    """Gets blocks for one process. Threads: any."""

    def __init__(self, store: BlockStore, remote: Remote, lookup: Lookup, block_bytes: int) -> None:
        """Use this store, remote and lookup; block_bytes is a power of two."""
        self._store: Final = store
        self._remote: Final = remote
        self._lookup: Final = lookup
        self.block_bytes: Final = block_bytes

    def block(self, attached: Attached, entry: Entry, number: int) -> Block:
        """Describe a block; the caller guarantees that it begins within the object."""
        offset = number * self.block_bytes
        key = block_key(attached.record.id, entry.path, entry.version, number, self.block_bytes)
        return Block(entry, offset, min(self.block_bytes, entry.size - offset), key)

    def view(self, attached: Attached, block: Block) -> View:
        """Return a view of the whole block, from wherever it can be had.

        Raises: as UnderStorage.read_range.
        """
        view = self._store.get(block.key)
        return view if view is not None else self._miss(attached, block)

    def hit(self, block: Block) -> View | None:
        """Return a view of the block if the store holds it, without counting a miss if not."""
        return self._store.get(block.key) if self._store.contains(block.key) else None

    def copy_hit(self, block: Block, start: int, target: memoryview) -> bool:
        """Copy len(target) bytes from start on, if the store holds the block; else return False."""
        copied = self._store.readinto(block.key, target, start)
        return copied == len(target)

    def copy_miss(self, attached: Attached, block: Block, start: int, target: memoryview) -> None:
        """Copy as ``copy_hit`` what the store did not hold. Raises: as UnderStorage.read_range."""
        with self._miss(attached, block) as view:
            target[:] = view[start : start + len(target)]

    def first_touch(self, attached: Attached, path: str, number: int) -> FirstTouch:
        """Find out what an unknown object is by reading one block of it: one request instead of two.

        Raises: as UnderStorage.read_range.
        """

        def look() -> FirstTouch | None:
            entry = self._lookup.known(attached, path)
            return None if entry is None else FirstTouch(entry)

        # Its version is not known, so this key is only for finding each other; nothing is stored under it.
        key = block_key(attached.record.id, path, "", number, self.block_bytes)
        return self._fly(key, look, lambda claim: self._fetch_unknown(attached, path, number, claim))

    def _miss(self, attached: Attached, block: Block) -> View:
        return self._fly(
            block.key, lambda: self.hit(block), lambda claim: self._fetch(attached, block, claim)
        )

    def _fly(self, key: bytes, look: Callable[[], _T | None], fetch: Callable[[Claim | None], _T]) -> _T:
        """Return what look finds after others' fetches, or what this process fetches (None: alone)."""
        for _ in range(_FLIGHTS_AWAITED_MAX):
            claim = self._store.claim(key)
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

    def _fetch(self, attached: Attached, block: Block, claim: Claim | None) -> View:
        """Fetch a block of a known version and offer it to the store."""
        record, entry = attached.record, block.entry
        buffer = memoryview(bytearray(block.length))
        request = BlockRequest(record.name, entry.path, entry.version, block.offset, block.length, block.key)
        if not self._remote.fetch(request, buffer):
            with attached.storage.read_range(entry.path, block.offset, block.length, entry.version) as body:
                if body.length != block.length:
                    cause = (
                        f"has {body.length} bytes from {block.offset} on, not the {block.length} it should"
                    )
                    raise under_storage_error(f"{record.uri}/{entry.path}", cause)
                _fill(buffer, body, claim)
        return self._offer(attached, block, buffer, claim)

    def _fetch_unknown(self, attached: Attached, path: str, number: int, claim: Claim | None) -> FirstTouch:
        """Fetch a block of whatever version there is, and remember which it was."""
        asked_ns = self._lookup.now_ns()
        with attached.storage.read_range(path, number * self.block_bytes, self.block_bytes) as body:
            entry = as_entry(body.info, asked_ns)
            view = (
                self._take(attached, self.block(attached, entry, number), body, claim)
                if body.length
                else None
            )
        # Last: whoever sees the entry finds the block as well.
        self._lookup.remember(attached, entry)
        return FirstTouch(entry, view)

    def _take(self, attached: Attached, block: Block, body: RangeBody, claim: Claim | None) -> View:
        """Return a view of the block that the body brings, without reading it if it is cached already."""
        view = self._store.get(block.key)
        if view is not None:
            return view
        buffer = memoryview(bytearray(body.length))
        _fill(buffer, body, claim)
        return self._offer(attached, block, buffer, claim)

    def _offer(self, attached: Attached, block: Block, buffer: memoryview, claim: Claim | None) -> View:
        """Give the block to the store, unless the fetch was one alone, and to the reader in any case."""
        if claim is not None and not self._store.read_only:
            self._store.put(block.key, buffer, dataset=attached.record.id)
        return private_view(buffer)


def _fill(buffer: memoryview, body: RangeBody, claim: Claim | None) -> None:
    if claim is None:
        body.readinto(buffer)
    else:
        body.readinto(buffer, claim.progress)


def private_view(data: memoryview) -> View:
    """Return a view over bytes that are not the store's: every read gives the same kind of thing."""
    from forebay.store import View

    return View.wrap(data)

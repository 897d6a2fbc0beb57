"""The one way of blocks into the store: on the terms that the policies of their paths set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from forebay.cache.attach import RETENTIONS
from forebay.cache.blocks import Block
from forebay.cache.datasets import Attached
from forebay.cache.peers import Peers
from forebay.cache.policies.policy import Policy

if TYPE_CHECKING:
    from forebay.store import BlockStore, FileReservation

# Ids of datasets end below these bits. 0 is the dataset's own retention.
_RETENTION_SHIFT: Final = 28
# Where copies lie of what peers answer for: by the store's retention of that name they are the first to go.
SPARE: Final = "spare"
_SPACES: Final = (*RETENTIONS, SPARE)


def space_of(dataset_id: int, retention: str | None) -> int:
    """Return the id under which the store keeps what was given a retention of its own."""
    code = 0 if retention is None else _SPACES.index(retention) + 1
    return dataset_id | code << _RETENTION_SHIFT


def spaces_of(dataset_id: int) -> list[int]:
    """Return all ids under which the store may keep blocks of a dataset."""
    return [space_of(dataset_id, retention) for retention in (None, *_SPACES)]


class Admission:
    """Offers blocks to the store, for one process. Threads: any."""

    def __init__(self, store: BlockStore, peers: Peers) -> None:
        """Offer to this store what these peers do not keep alone."""
        self.store: Final = store
        self._peers: Final = peers

    def refuses(self, attached: Attached, path: str) -> bool:
        """Say whether nothing of this path is ever admitted."""
        return bool(attached.rules.of(path).skip)

    def is_kept(self, attached: Attached, path: str, offset: int) -> bool:
        """Say whether what lies there is admitted here at all, and not left to peers alone."""
        return not self._peers.keep_alone(attached, path, offset)

    def kept(self, attached: Attached, blocks: Iterator[Block]) -> Iterator[Block]:
        """Yield those of the blocks that are admitted here at all."""
        if not self._peers.any:
            return blocks
        return (block for block in blocks if self.is_kept(attached, block.entry.path, block.offset))

    def may_be_whole(self, attached: Attached, path: str, size_bytes: int) -> bool:
        """Say whether a file may lie here in one piece: not if peers answer for some of it."""
        return self._peers.local_copy_of_file(attached, path, size_bytes) == "always"

    def turn_away(self, attached: Attached, key: bytes, size_bytes: int) -> None:
        """Count a block as not admitted, which is then why it is missed."""
        self.store.refuse(key, size_bytes, attached.record.id)

    def put(
        self, attached: Attached, block: Block, data: memoryview, *, asked_bytes: int | None = None
    ) -> bool:
        """Offer a block; return whether it was admitted.

        asked_bytes: how much the read that it is for asks for, None for a load.
        """
        path = block.entry.path
        copy = self._peers.local_copy(attached, path, block.offset) if self._peers.any else "always"
        policy = attached.rules.of(path)
        if copy == "never" or policy.skip or _is_too_much(policy, asked_bytes):
            self.turn_away(attached, block.key, len(data))
            return False
        terms = _terms(attached, policy)
        if copy == "if_room":
            terms |= {"dataset": space_of(attached.record.id, SPARE), "pinned": False}
        return self.store.put(block.key, data, **terms, ttl_s=policy.ttl_s or None)

    def reserve_file(
        self, attached: Attached, path: str, key: bytes, size_bytes: int, *, asked_bytes: int | None = None
    ) -> FileReservation | None:
        """Reserve a place for a whole file; None: by its policy, or by its peers, there is none for it."""
        policy = attached.rules.of(path)
        # A file goes as a whole, so one whose blocks expire lies by its blocks.
        if policy.skip or policy.ttl_s or _is_too_much(policy, asked_bytes):
            return None
        if not self.may_be_whole(attached, path, size_bytes):
            return None
        return self.store.reserve_file(key, size_bytes, **_terms(attached, policy))


def _is_too_much(policy: Policy, asked_bytes: int | None) -> bool:
    limit = policy.read_bytes_max
    return limit is not None and asked_bytes is not None and asked_bytes > limit


def _terms(attached: Attached, policy: Policy) -> dict[str, Any]:
    terms: dict[str, Any] = {"dataset": space_of(attached.record.id, policy.retention)}
    if policy.pin:
        terms["pinned"] = True
    if policy.medium is not None:
        terms["medium"] = policy.medium
    return terms

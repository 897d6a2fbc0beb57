"""The one way of blocks into the store: on the terms that the policies of their paths set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from forebay.cache.attach import RETENTIONS
from forebay.cache.datasets import Attached
from forebay.cache.policies.policy import Policy

if TYPE_CHECKING:
    from forebay.store import BlockStore, FileReservation

# Ids of datasets end below these bits. 0 is the dataset's own retention.
_RETENTION_SHIFT: Final = 28


def space_of(dataset_id: int, retention: str | None) -> int:
    """Return the id under which the store keeps what a policy gave a retention of its own."""
    code = 0 if retention is None else RETENTIONS.index(retention) + 1
    return dataset_id | code << _RETENTION_SHIFT


def spaces_of(dataset_id: int) -> list[int]:
    """Return all ids under which the store may keep blocks of a dataset."""
    return [space_of(dataset_id, retention) for retention in (None, *RETENTIONS)]


class Admission:
    """Offers blocks to the store, for one process. Threads: any."""

    def __init__(self, store: BlockStore) -> None:
        """Offer to this store."""
        self._store: Final = store

    def refuses(self, attached: Attached, path: str) -> bool:
        """Say whether nothing of this path is ever admitted."""
        return bool(attached.rules.of(path).skip)

    def turn_away(self, attached: Attached, key: bytes, size_bytes: int) -> None:
        """Count a block as not admitted, which is then why it is missed."""
        self._store.refuse(key, size_bytes, attached.record.id)

    def put(
        self, attached: Attached, path: str, key: bytes, data: memoryview, *, asked_bytes: int | None = None
    ) -> bool:
        """Offer a block; return whether it was admitted.

        asked_bytes: how much the read that it is for asks for, None for a load.
        """
        policy = attached.rules.of(path)
        if policy.skip or _is_too_much(policy, asked_bytes):
            self.turn_away(attached, key, len(data))
            return False
        return self._store.put(key, data, **_terms(attached, policy), ttl_s=policy.ttl_s or None)

    def reserve_file(
        self, attached: Attached, path: str, key: bytes, size_bytes: int, *, asked_bytes: int | None = None
    ) -> FileReservation | None:
        """Reserve a place for a whole file; None: by its policy there is none for it."""
        policy = attached.rules.of(path)
        # A file goes as a whole, so one whose blocks expire lies by its blocks.
        if policy.skip or policy.ttl_s or _is_too_much(policy, asked_bytes):
            return None
        return self._store.reserve_file(key, size_bytes, **_terms(attached, policy))


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

"""The remote of a member that brings a block: who may have it cached already, before the storage is asked.

After a change of the ring a member owns what another one has: it is asked, for what it has cached alone, and
so data moves as it is read. Of copies that others hold besides it is the same at all times. Nothing is ever
brought for this by those who are asked, so there are no loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from forebay.peer.batch import Batch
from forebay.peer.member import Member
from forebay.peer.ranks import Step
from forebay.remote import BlockRequest, Holder, LocalCopy, RemoteObject, Share

if TYPE_CHECKING:
    from forebay.peer.group import Group

# How long after the last change others are asked. To ask in vain costs a hundredth of what the storage does.
FORMER_FOR_S: Final = 3600.0
_ASKED_MAX: Final = 2
# Nothing is brought for the answer, so it comes at once or not at all; and somebody waits for the storage.
_TIMEOUT_S: Final = 0.5


class OwnerSide:
    """A Remote for blocks and what they are of, for the member that this host is. Threads: any."""

    local_copy: LocalCopy = "always"

    def __init__(self, group: Group) -> None:
        """Ask by the means of this group."""
        self._group: Final = group

    def is_elsewhere(self, dataset: str, path: str, offset: int, replicas: int = 1) -> bool:
        """Say whether others may have it cached. Never blocks."""
        return bool(self._holders(dataset, path, offset, replicas))

    def owns(self, dataset: str, path: str, offset: int) -> bool:
        """Say whether this host is the first to answer for it."""
        return self._group.owns(dataset, path, offset)

    def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> Sequence[Holder]:
        """Return the members that answer for it."""
        return self._group.holders(dataset, path, offset, replicas)

    def share(self, members: Sequence[str]) -> Share:
        """Return what says where this host is the first to answer, of these members."""
        return self._group.share(members)

    def fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        """Fill the buffers with what others have cached, as ``Remote.fetch`` says."""
        steps = [
            [
                Step(member, True)
                for member in self._holders(each.dataset, each.path, each.offset, each.replicas)
            ]
            for each in requests
        ]
        Batch(self._group.peers, requests, buffers, steps, came, alive, timeout_s=_TIMEOUT_S).run()

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, memoryview] | None:
        """Return None: nobody reads through this."""

    def stat(self, dataset: str, path: str) -> RemoteObject | None:
        """Describe an object as a former owner knows it; None: unanswered."""
        return self._group.ask_members(
            self._holders(dataset, path, 0),
            lambda link, deadline: link.stat(dataset, path, deadline=deadline),
            timeout_s=_TIMEOUT_S,
        )

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]] | None:
        """Return None."""

    def close(self) -> None:
        """Do nothing: the group is closed by who made it."""

    def _holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> Sequence[Member]:
        group = self._group
        ring, own_id = group.ring, group.own_id
        if ring is None or own_id is None:
            return ()
        skip = group.skipped(ring)
        found = ring.owners(dataset, path, offset, max(replicas, group.copies), skip)
        if not any(member.id == own_id for member in found):
            # Somebody could not reach those who own it; to ask them from here would double the wait.
            return ()
        if group.is_changed_within(FORMER_FOR_S):
            found += ring.former_owners(own_id, dataset, path, offset)
        asked = dict.fromkeys(member for member in found if member.id != own_id and member.id not in skip)
        return tuple(asked)[:_ASKED_MAX]

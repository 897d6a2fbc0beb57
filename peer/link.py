"""The ways to peers, as those who read through them see them.

What implements them moves frames (``forebay.peer.data``). Whom to ask, and when to stop, is decided above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from forebay.peer.data.deadline import Deadline
from forebay.peer.member import Member, View
from forebay.remote import BlockRequest, RemoteObject


class Link(Protocol):
    """One peer, asked by one process over connections of its own. Threads: any.

    Every call waits no longer than its deadline says; alive() tells of each sign of life. cancelled() is
    asked every few milliseconds while nothing comes, and once it says True the call raises Cancelled. Raises:
    PeerDown (ask somebody else); PeerRefused; NotFound, Stale, PermissionError (what the peer says of the
    source). None is the answer of a peer that cannot say.
    """

    def read(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
        *,
        only_cached: bool = False,
        deadline: Deadline,
        cancelled: Callable[[], bool],
    ) -> None:
        """Fill the buffers with what the peer has of the blocks, or brings; only_cached: it brings none.

        One message. came(index) is called for each block that is there and verified; those that the peer
        answers and does not have are left out. What it says of the source is raised after all have been
        answered. A call that has ended touches no buffer any more.
        """
        ...

    def touch(
        self, dataset: str, path: str, offset: int, length: int, *, deadline: Deadline
    ) -> tuple[RemoteObject, memoryview] | None:
        """Return what an object is and its bytes from offset on."""
        ...

    def stat(self, dataset: str, path: str, *, deadline: Deadline) -> RemoteObject | None:
        """Describe an object or a directory."""
        ...

    def list(
        self, dataset: str, directory: str, *, deadline: Deadline
    ) -> Iterator[list[RemoteObject]] | None:
        """Yield what lies in a directory, page by page; raises at once what the first page does."""
        ...


class Links(Protocol):
    """The ways to all peers, of one process. Threads: any."""

    def link(self, member: Member) -> Link:
        """Return the way to a member, made when it is first asked for; no I/O."""
        ...

    def view(self, member: Member, *, deadline: Deadline) -> View:
        """Return the view of the group that a member has. Raises: PeerDown; PeerRefused."""
        ...

    def greet(self, address: str, *, deadline: Deadline) -> View:
        """Shake hands with whatever member answers at an address, and return its view.

        Raises: PeerDown; PeerRefused (says what does not match).
        """
        ...

    def keep(self, member_ids: frozenset[str]) -> None:
        """Give up the ways to all but these members, where nothing is under way."""
        ...

    def close(self) -> None:
        """Close all; may be called twice."""
        ...

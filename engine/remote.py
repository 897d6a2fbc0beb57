"""The seam to peers: who answers for a piece of an object, and what can be had from there.

A cache asks its Remote between its own store and the under storage. On a single host that is NoRemote, so
that a single host is no special case. Groups of peers implement the same interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, Protocol

# What one peer answers for is an aligned piece of a file, of so many bytes.
PLACEMENT_BYTES: Final = 64 << 20

LocalCopy = Literal["never", "always", "if_room"]
# Called with dataset, path and offset: whether what lies there is of a share.
Share = Callable[[str, str, int], bool]


class BlockRequest(NamedTuple):
    """One block of one version of an object: its number, and the length bytes from offset on that it has.

    Peers know datasets by name; the keys of their stores are their own. replicas: on how many of them it is
    to lie, as far as the asker knows.
    """

    dataset: str
    path: str
    version: str
    number: int
    offset: int
    length: int
    replicas: int = 1


class BlockRef(NamedTuple):
    """One block of one version of an object, by its number."""

    dataset: str
    path: str
    version: str
    number: int


class Holder(NamedTuple):
    """Who answers for a piece: HOST:PORT of its server, and that of its gateway, "" without one."""

    address: str
    gateway: str


class RemoteObject(NamedTuple):
    """What a peer knows of an object or a directory, and for how long it has known it: age_ns."""

    path: str
    size: int
    mtime_ns: int
    version: str
    is_dir: bool
    age_ns: int


class Remote(Protocol):
    """Peers that may hold blocks. Threads: any.

    It pickles as its configuration and survives fork: connections are of one process. Nothing is raised for
    what a peer does; what a peer says of the under storage is believed only where it says so below.
    """

    @property
    def local_copy(self) -> LocalCopy:
        """Whether this host keeps what peers answer for, where its dataset does not say."""
        ...

    def is_elsewhere(self, dataset: str, path: str, offset: int, replicas: int = 1) -> bool:
        """Say whether peers are to be asked for what lies there before the under storage. Never blocks.

        replicas: on how many of them it is to lie.
        """
        ...

    def owns(self, dataset: str, path: str, offset: int) -> bool:
        """Say whether this host is the first to answer for what lies there. Never blocks."""
        ...

    def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> Sequence[Holder]:
        """Return the members that answer for what lies there, the first first; none: this host alone.

        replicas: on how many of them it is to lie. Never blocks.
        """
        ...

    def share(self, members: Sequence[str]) -> Share:
        """Return what says where this host is the first to answer, had the group these members alone."""
        ...

    def fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        """Fill each buffer, which is as long as its request says, with the block.

        came(index) is called once for each block that is there and verified, in any thread, one call at a
        time and none after the return; from then on its buffer is the caller's. What never came is to be had
        from the under storage; its buffer means nothing, and is left alone after the return. alive() is
        called whenever a peer gives a sign of life. Blocking: until all have come or the time for it is over.
        Raises: NotFound, Stale, PermissionError (a peer says so of the source; the caller asks it itself);
        what came raises.
        """
        ...

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, memoryview] | None:
        """Return what an object is and its bytes from offset on, at most length; None: unanswered.

        The object is unknown, and offset that of a block; or it is known, and little of a block is wanted.
        Fewer bytes may come, none too. Raises: NotFound, which is believed; Stale, PermissionError, which are
        asked of the source again.
        """
        ...

    def stat(self, dataset: str, path: str) -> RemoteObject | None:
        """Describe an object or a directory; None: unanswered. Raises: as ``touch``."""
        ...

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]] | None:
        """Yield what lies in a directory, page by page; None: unanswered.

        Raises: as ``touch``; OSError while it is iterated, where the rest does not come.
        """
        ...

    def close(self) -> None:
        """Close connections; may be called twice."""
        ...


class NoRemote:
    """No peers: this host answers for everything."""

    local_copy: LocalCopy = "always"

    def is_elsewhere(self, dataset: str, path: str, offset: int, replicas: int = 1) -> bool:
        """Return False."""
        return False

    def owns(self, dataset: str, path: str, offset: int) -> bool:
        """Return True."""
        return True

    def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> Sequence[Holder]:
        """Return none."""
        return ()

    def share(self, members: Sequence[str]) -> Share:
        """Return what always says True."""
        return lambda dataset, path, offset: True

    def fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        """Do nothing: nothing comes."""

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, memoryview] | None:
        """Return None."""

    def stat(self, dataset: str, path: str) -> RemoteObject | None:
        """Return None."""

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]] | None:
        """Return None."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

"""The seam to peers: who owns a block, and can it be had from there.

A cache asks its Remote between its own store and the under storage. On a single host that is NoRemote, so
that a single host is no special case. Groups of peers implement the same interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """One block of one version of an object: length bytes from offset on, known to the store as key."""

    dataset: str
    path: str
    version: str
    offset: int
    length: int
    key: bytes


class Remote(Protocol):
    """Peers that may hold a block. Threads: any."""

    def fetch(self, request: BlockRequest, buffer: memoryview) -> bool:
        """Fill the buffer, request.length bytes, with the block.

        The caller has missed it in its own store and goes on to the under storage after False, which means
        that this host owns the block itself, or that no peer has it or answers in time; the buffer's
        content means nothing then. Never raises for what a peer does.
        """
        ...

    def close(self) -> None:
        """Close connections; may be called twice."""
        ...


class NoRemote:
    """No peers: this host owns everything."""

    def fetch(self, request: BlockRequest, buffer: memoryview) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

"""Who may do what at the gateway: the seam to tokens."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol


class Act(StrEnum):
    """What an operation does, as permissions tell it apart; ANY says nothing of what is there."""

    READ = "read"
    LIST = "list"
    WRITE = "write"
    MANAGE = "manage"
    ANY = "any"


class Guard(Protocol):
    """Holds requests to what their tokens are for. Threads: the gateway's own."""

    def hold(self, act: Act, token: str | None, address: str, paths: Iterable[str]) -> None:
        """Return if this may be done to the paths, which are normalized.

        address: the IP address of who asks. Raises: Unauthenticated; PermissionError.
        """
        ...

"""What may become of asking a peer, beside an answer."""

# ruff: noqa: N818  (public names say what happened)

from __future__ import annotations

import errno


class PeerDown(OSError):
    """The peer cannot be reached, fell silent, broke off, or answered what cannot be trusted."""


class PeerRefused(OSError):
    """The peer does not let this process ask it: another group or protocol, or no good token."""


class Cancelled(Exception):
    """Whoever asked no longer wants the answer."""


def down(address: str, cause: object) -> PeerDown:
    """Make a PeerDown that names the peer and what was seen."""
    return PeerDown(errno.EHOSTDOWN, str(cause), address)


def refused(address: str, cause: str) -> PeerRefused:
    """Make a PeerRefused that names the peer and gives its words."""
    return PeerRefused(errno.EACCES, cause, address)

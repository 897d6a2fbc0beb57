"""Who asks: an address and, where tokens are verified, what the token says. Never the token itself."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from forebay.peer.security.claims import Claims


@dataclass(frozen=True, slots=True)
class Caller:
    """One connection or call. claims is None where no tokens are verified: whoever can connect may ask."""

    address: str
    claims: Claims | None = None

    def __str__(self) -> str:
        """Name the caller for a log."""
        return f"{self.address} (token {self.claims.id})" if self.claims else self.address


def address_of(peer: str) -> str:
    """Return the IP address in what gRPC calls a peer (``ipv4:10.0.0.1:5000``), else the text itself."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return rest.rpartition(":")[0].strip("[]")

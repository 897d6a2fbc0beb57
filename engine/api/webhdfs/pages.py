"""Requests that a page in somebody's browser makes: they come from this machine, but not from who sits at it.

A browser sends a page's requests to any address, this machine's own too. Two things tell them: the header
Origin, which no client of WebHDFS sends, and, where the page's own name was made to stand for this machine
(DNS rebinding), a Host that is a name of somebody else's. Without tokens nothing else would hold them off.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import Scope


def hold_pages_off(scope: Scope, own: str) -> None:
    """Return if no page has made a request. own: as of ``Gateway``. Raises: PermissionError."""
    host = b""
    for name, value in scope["headers"]:
        if name == b"origin":
            raise PermissionError(f"Origin {_shown(value)}: pages of a browser are not served")
        if name == b"host":
            host = value
    server = scope["server"]
    if server is not None and not _may_be_asked_as(server[0], host, own):
        raise PermissionError(
            f"Host {_shown(host)}: at this address the gateway answers to localhost, to"
            f" {socket.gethostname()} and to numeric addresses"
        )


@lru_cache(64)
def _may_be_asked_as(address: str, authority: bytes, own: str) -> bool:
    """Say whether a connection to an address may be for a Host."""
    if not authority or not _is_loopback(address):
        return True
    name = _host_of(authority.decode("latin-1"))
    return name is not None and (name == _host_of(own) or _is_this_machine(name))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _host_of(authority: str) -> str | None:
    """Return the name or the address of HOST:PORT in small letters, None of what is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".") or None
    except ValueError:
        return None


def _is_this_machine(name: str) -> bool:
    """Say whether a name is this machine's, or nobody's: an address is not anybody else's name."""
    if name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))

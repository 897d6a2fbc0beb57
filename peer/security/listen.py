"""Where a member may listen: beyond this machine only with TLS and where callers are identified."""

from __future__ import annotations

import re
import socket
from typing import Final, NamedTuple

from forebay.errors import ConfigError
from forebay.peer.security.claims import ip_of

PORT_MAX: Final = 65_535

_ADDRESS: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """An IP address and a port, as they are bound to."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as gRPC takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split_address(text: str) -> tuple[str, int]:
    """Split ``host:port``, with brackets around an IPv6 address. Raises: ConfigError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > PORT_MAX:
        raise ConfigError(f"address {text!r}: write HOST:PORT, for example 10.0.0.1:7070 or [::1]:7070")
    host = match["ipv6"] or match["host"] or ""
    if not host:
        raise ConfigError(f"address {text!r}: names no host; write 0.0.0.0 or [::] to mean all of this one")
    return host, int(match["port"])


def is_loopback(host: str) -> bool:
    """Say whether an IP address reaches this machine only; of what is none, no."""
    found = ip_of(host)
    return found is not None and found.is_loopback


def resolve_listen(
    text: str, *, has_tls: bool, identifies_callers: bool, insecure: bool = False
) -> list[Address]:
    """Return the addresses to bind to for ``host:port``.

    A name is resolved first and what it stands for is judged and bound to: a name that says localhost is
    not taken at its word, and cannot mean something else when the socket is made. Beyond loopback there
    have to be TLS, and tokens or mutual TLS (identifies_callers), unless insecure is said.
    Raises: ConfigError.
    """
    host, port = split_address(text)
    # Of a name only what this machine has: localhost is often ::1 as well where there is no IPv6. An address
    # is meant as it stands.
    flags = socket.AI_NUMERICHOST if ip_of(host) else socket.AI_ADDRCONFIG
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"address {text}: {host} cannot be resolved: {error}") from None
    addresses = list(dict.fromkeys(Address(str(item[4][0]), port) for item in found))
    outside = [address.host for address in addresses if not is_loopback(address.host)]
    if outside and not insecure:
        if not has_tls:
            raise ConfigError(
                f"address {text}: {', '.join(outside)} can be reached from other hosts, and there is no TLS: "
                "give tls_cert_file and tls_key_file, or allow it with --insecure"
            )
        if not identifies_callers:
            raise ConfigError(
                f"address {text}: {', '.join(outside)} can be reached from other hosts, and anybody may ask: "
                "give token_keys_file, or tls_ca_file with tls_mutual, or allow it with --insecure"
            )
    return addresses

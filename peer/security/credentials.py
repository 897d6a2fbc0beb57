"""What a host shows to members: its token, read where a reference points, over channels that hide it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from forebay.errors import ConfigError
from forebay.peer.security.listen import is_loopback, split_address
from forebay.peer.security.tls import ClientTls, TlsFiles
from forebay.peer.security.tokens import TOKEN_BYTES_MAX, looks_like_token
from forebay.peer.security.watched import LOOK_INTERVAL_S, Watched, read_file

if TYPE_CHECKING:
    # Imported where it is used: a worker that only reads by the data port starts without it.
    import grpc

METADATA_KEY: Final = "authorization"

_SCHEME: Final = "Bearer "
_ENVIRONMENT: Final = "env:"
_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]+")


class TokenSource:
    """Where a token is to be had: a file, or ``env:NAME`` for an environment variable. Threads: any.

    Holds the reference and pickles as that. A file is read again when it changes, so that a token is
    replaced under running processes.
    """

    def __init__(self, reference: str, interval_s: float = LOOK_INTERVAL_S) -> None:
        """Read it for the first time. Raises: ConfigError (nothing there, or it cannot be a token)."""
        if looks_like_token(reference):
            raise ConfigError("a token is given by reference: the name of a file that holds it, or env:NAME")
        self.reference = reference
        self._interval_s = interval_s
        self._file: Watched[str] | None = None
        if not reference.startswith(_ENVIRONMENT):
            self._file = Watched([reference], lambda: _token_in(reference), interval_s)
        self.token()

    def __repr__(self) -> str:
        """Show the reference."""
        return f"TokenSource({self.reference!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the reference: the other process reads the token itself."""
        return TokenSource, (self.reference, self._interval_s)

    def token(self) -> str:
        """Return the token as it is now, for the first frame of a connection. Raises: ConfigError."""
        if self._file is not None:
            return self._file.current()
        name = self.reference.removeprefix(_ENVIRONMENT)
        return _plain(os.environ.get(name, ""), f"environment variable {name}")


class Credentials:
    """All that a host needs to ask members: TLS, and a token. Pickles by reference. Threads: any."""

    def __init__(
        self, tls: TlsFiles | None = None, token: str | None = None, *, insecure: bool = False
    ) -> None:
        """Read what is named; token is a reference as of TokenSource. Raises: ConfigError."""
        self._tls = None if tls is None else ClientTls(tls)
        self._token = None if token is None else TokenSource(token)
        self._insecure = insecure

    @property
    def tls(self) -> ClientTls | None:
        """TLS, where the group has it: ssl_context is what connections to data ports are wrapped in."""
        return self._tls

    def token_for(self, address: str) -> str | None:
        """Return the token to show to the member at ``host:port``, None if there is none.

        Raises: ConfigError (it would go over a network in the clear).
        """
        if self._token is None:
            return None
        self._check_secrecy(address)
        return self._token.token()

    def open_channel(self, address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
        """Open a channel whose calls carry the token. Raises: ConfigError."""
        import grpc

        from forebay.peer.security.client_calls import AddsMetadata

        if self._tls is not None:
            return grpc.secure_channel(address, self._channel_credentials(), options)
        channel = grpc.insecure_channel(address, options)
        if self._token is None:
            return channel
        self._check_secrecy(address)
        return grpc.intercept_channel(channel, AddsMetadata(self.metadata))

    def open_aio_channel(self, address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        """Open a channel of asyncio whose calls carry the token. Raises: ConfigError."""
        import grpc

        from forebay.peer.security.client_calls import aio_interceptors

        if self._tls is not None:
            return grpc.aio.secure_channel(address, self._channel_credentials(), options)
        if self._token is None:
            return grpc.aio.insecure_channel(address, options)
        self._check_secrecy(address)
        return grpc.aio.insecure_channel(address, options, interceptors=aio_interceptors(self.metadata))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call with the token as it is now."""
        return () if self._token is None else ((METADATA_KEY, _SCHEME + self._token.token()),)

    def _check_secrecy(self, address: str) -> None:
        if self._tls is not None or self._insecure:
            return
        host, _ = split_address(address)
        if not (is_loopback(host) or host == "localhost"):
            raise ConfigError(
                f"peer {address}: the token would go to another host in the clear: give tls_ca_file, "
                "or allow it with insecure"
            )

    def _channel_credentials(self) -> grpc.ChannelCredentials:
        import grpc

        from forebay.peer.security.client_calls import ShowsMetadata

        assert self._tls is not None
        credentials = self._tls.grpc_credentials()
        if self._token is None:
            return credentials
        shown = grpc.metadata_call_credentials(ShowsMetadata(self.metadata))
        return grpc.composite_channel_credentials(credentials, shown)


def token_of(metadata: Sequence[tuple[str, str | bytes]] | None) -> str | None:
    """Return the token from a call's metadata, None where there is not exactly one."""
    found = [value for key, value in metadata or () if key == METADATA_KEY]
    if len(found) != 1 or not isinstance(found[0], str) or not found[0].startswith(_SCHEME):
        return None
    return found[0].removeprefix(_SCHEME)


def _token_in(file: str) -> str:
    return _plain(read_file(file, "token", TOKEN_BYTES_MAX).decode("ascii", "replace"), f"token {file}")


def _plain(text: str, where: str) -> str:
    """Return a token that cannot break out of a header. Raises: ConfigError, without the text."""
    token = text.strip()
    if not token:
        raise ConfigError(f"{where}: holds no token")
    if not looks_like_token(token) or not _PLAIN.fullmatch(token) or len(token) > TOKEN_BYTES_MAX:
        raise ConfigError(f"{where}: is no token; make one with `forebay token make`")
    return token

"""The security of one host as it is configured: names of files and switches, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.errors import ConfigError
from forebay.peer.security.credentials import Credentials
from forebay.peer.security.listen import Address, resolve_listen
from forebay.peer.security.permissions import Permissions
from forebay.peer.security.tls import ServerTls, TlsFiles
from forebay.peer.security.tokens import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """The settings of that name; all by reference, so that this may be shown and pickled.

    token_file may also be ``env:NAME``. token_keys_file holds public keys; with it, members take no call
    without a token. Raises, when made: ConfigError (what does not belong together).
    """

    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_ca_file: str | None = None
    tls_mutual: bool = False
    token_file: str | None = None
    token_keys_file: str | None = None
    token_revoked_file: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Hold what belongs together."""
        self.tls_files()
        if self.token_revoked_file is not None and self.token_keys_file is None:
            raise ConfigError("token_revoked_file: there are no tokens to revoke without token_keys_file")

    def tls_files(self) -> TlsFiles | None:
        """Return the files of TLS, None where there is none at all: then nothing is encrypted."""
        given = (self.tls_cert_file, self.tls_key_file, self.tls_ca_file)
        if given == (None, None, None) and not self.tls_mutual:
            return None
        return TlsFiles(*given, self.tls_mutual)

    def credentials(self) -> Credentials:
        """Return what this host shows to members. Raises: ConfigError."""
        return Credentials(self.tls_files(), self.token_file, insecure=self.insecure)

    def server_tls(self) -> ServerTls | None:
        """Return TLS for listening, None for plain text. Raises: ConfigError."""
        files = self.tls_files()
        return None if files is None else ServerTls(files)

    def permissions(self) -> Permissions:
        """Return what callers are held to. Raises: ConfigError."""
        if self.token_keys_file is None:
            return Permissions()
        return Permissions(Verifier([self.token_keys_file], self.token_revoked_file))

    def resolve_listen(self, address: str) -> list[Address]:
        """Return what to bind to for ``host:port``. Raises: ConfigError (not without TLS, for example)."""
        return resolve_listen(
            address,
            has_tls=self.tls_cert_file is not None,
            identifies_callers=self.token_keys_file is not None or self.tls_mutual,
            insecure=self.insecure,
        )

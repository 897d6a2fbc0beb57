"""TLS of a group: certificates from files, for gRPC and for the data port alike, taken over when they change.

What is wrong with the files is said when they are read, not by a handshake that fails later. At least TLS
1.2: here for the data port, by gRPC of itself. Not here: who is let in by what (permissions).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from forebay.errors import ConfigError
from forebay.peer.security.watched import LOOK_INTERVAL_S, Watched, read_file

if TYPE_CHECKING:
    # Imported where it is used: a worker that only reads by the data port starts without it.
    import grpc

_NO_KEY: Final = (ValueError, TypeError, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Names of PEM files, never what is in them; goes into pickles.

    cert holds the certificate and those between it and the authority, key its private key; ca the
    authorities that the others' certificates have to come from, and this one's too. Without ca the
    system's authorities are trusted. mutual: a server asks clients for certificates, and takes no other.
    """

    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    mutual: bool = False

    def __post_init__(self) -> None:
        """Hold what belongs together. Raises: ConfigError."""
        if (self.cert is None) != (self.key is None):
            missing = "tls_key_file" if self.key is None else "tls_cert_file"
            raise ConfigError(f"TLS: a certificate and its key belong together; {missing} is missing")
        if self.mutual and self.ca is None:
            raise ConfigError("TLS: tls_mutual needs tls_ca_file, whose certificates are taken")

    @property
    def names(self) -> list[str]:
        """The files that there are."""
        return [name for name in (self.cert, self.key, self.ca) if name is not None]


class _Material:
    """What the files hold at one moment, checked, and the context made of it for one side."""

    def __init__(self, files: TlsFiles, *, is_server: bool) -> None:
        self.cert = self.key = self.ca = None
        if files.ca is not None:
            self.ca = read_file(files.ca, "TLS authority")
            authorities = _certificates(self.ca, f"TLS authority {files.ca}")
            # A bundle may have old ones in it, but not only.
            latest = max(authorities, key=lambda authority: authority.not_valid_after_utc)
            _check_times([latest], f"TLS authority {files.ca}")
        if files.cert is not None and files.key is not None:
            self.cert = read_file(files.cert, "TLS certificate")
            self.key = read_file(files.key, "TLS key")
            chain = _certificates(self.cert, f"TLS certificate {files.cert}")
            _check_times(chain, f"TLS certificate {files.cert}")
            _check_key(chain[0], self.key, files.key, files.cert)
            if files.ca is not None:
                _check_issuer(chain, authorities, files.cert, files.ca)
        self.context = _server_context(files) if is_server else _client_context(files)


class ServerTls:
    """The credentials of a member, as a server. Threads: any.

    New connections get what the files hold; those that there are go on. A change that is no good is
    logged, and what was good before stays.
    """

    def __init__(self, files: TlsFiles, interval_s: float = LOOK_INTERVAL_S) -> None:
        """Read the files. Raises: ConfigError (says which is missing or wrong, and how)."""
        if files.cert is None:
            raise ConfigError("TLS: a server needs tls_cert_file and tls_key_file")
        self.files = files
        self._watched = Watched(files.names, lambda: _Material(files, is_server=True), interval_s)
        self._context = _server_context(files)
        self._context.sni_callback = self._take_current

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context of the data port; one for the whole life of the server."""
        return self._context

    def _take_current(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        # OpenSSL asks here at each handshake, also where the client names no server.
        connection.context = self._watched.current().context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials for ``add_secure_port``, which look at the files at each handshake."""
        import grpc

        given = self._watched.current()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            current = self._watched.current()
            if current is given:
                return None
            given = current
            return _configuration(current, self.files)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given, self.files), fetch, require_client_authentication=self.files.mutual
        )


class ClientTls:
    """The credentials of a host that asks members. Pickles as the names of the files. Threads: any."""

    def __init__(self, files: TlsFiles, interval_s: float = LOOK_INTERVAL_S) -> None:
        """Read the files. Raises: ConfigError."""
        self.files = files
        self._interval_s = interval_s
        self._watched = Watched(files.names, lambda: _Material(files, is_server=False), interval_s)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the names only: the other process reads the files itself."""
        return ClientTls, (self.files, self._interval_s)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context for the next connection to a data port: ask anew for each."""
        return self._watched.current().context

    def grpc_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials of what the files hold now: a channel keeps those that it was made with."""
        import grpc

        current = self._watched.current()
        return grpc.ssl_channel_credentials(
            root_certificates=current.ca, private_key=current.key, certificate_chain=current.cert
        )


def _configuration(material: _Material, files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    import grpc

    roots = material.ca if files.mutual else None
    return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], root_certificates=roots)


def _server_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if files.mutual else ssl.CERT_NONE
    # A resumed connection would not be held to the authority that is trusted by then.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return _fill(context, files)


def _client_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if files.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return _fill(context, files)


def _fill(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if files.ca is not None:
            context.load_verify_locations(files.ca)
        if files.cert is not None:
            # With a callback for the passphrase OpenSSL never asks for one at the terminal.
            context.load_cert_chain(files.cert, files.key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"TLS: {', '.join(files.names)}: OpenSSL takes them not: {error}") from None
    return context


def _certificates(content: bytes, where: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigError(f"{where}: holds no certificate in PEM form") from None


def _check_times(chain: list[x509.Certificate], where: str) -> None:
    now = datetime.now(UTC)
    for certificate in chain:
        if now > certificate.not_valid_after_utc:
            raise ConfigError(f"{where}: expired at {certificate.not_valid_after_utc}")
        if now < certificate.not_valid_before_utc:
            raise ConfigError(
                f"{where}: not valid before {certificate.not_valid_before_utc}; "
                "is the clock of this host right?"
            )


def _check_key(certificate: x509.Certificate, content: bytes, key_file: str, cert_file: str) -> None:
    try:
        key = load_pem_private_key(content, None)
    except _NO_KEY:
        # The library's words may hold a part of what it was given.
        raise ConfigError(
            f"TLS key {key_file}: no private key in PEM form, or one with a passphrase"
        ) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ConfigError(f"TLS key {key_file}: is not the key of the certificate {cert_file}")


def _check_issuer(
    chain: list[x509.Certificate], authorities: list[x509.Certificate], cert_file: str, ca_file: str
) -> None:
    """Go up from the certificate to one of the authorities, over those that came with it."""
    between, certificate = chain[1:], chain[0]
    for _ in range(len(chain)):
        if any(certificate == authority or _is_issued(certificate, authority) for authority in authorities):
            return
        issuer = next((other for other in between if _is_issued(certificate, other)), None)
        if issuer is None:
            break
        certificate = issuer
    raise ConfigError(
        f"TLS certificate {cert_file}: comes from {certificate.issuer.rfc4514_string()!r}, "
        f"which is no authority in {ca_file}"
    )


def _is_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True

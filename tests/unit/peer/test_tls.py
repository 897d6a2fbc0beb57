"""TLS from files: what is wrong with them is said at once, and what is replaced is taken over."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from forebay.errors import ConfigError
from forebay.peer.security.options import SecurityOptions
from forebay.peer.security.tls import ClientTls, ServerTls, TlsFiles
from tests._certificates import DAY, Authority

TIMEOUT_S = 30


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_of(authority: Authority, name: str = "h1", **how: object) -> TlsFiles:
    return TlsFiles(*authority.issue(name, **how), str(authority.file))  # type: ignore[arg-type]


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> tuple[str, str]:
    """Make a connection and say a byte both ways; return the version and the name of who serves.

    Raises: what the client's side raises.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(TIMEOUT_S)

    def serve() -> None:
        with theirs:
            try:
                with server.wrap_socket(theirs, server_side=True) as connection:
                    connection.sendall(connection.recv(1))
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=host) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            subject = dict(item[0] for item in connection.getpeercert()["subject"])  # type: ignore[index,misc]
            return str(connection.version()), str(subject["commonName"])
    finally:
        thread.join()


def test_a_connection(authority: Authority) -> None:
    server, client = ServerTls(server_of(authority)), ClientTls(TlsFiles(ca=str(authority.file)))
    assert shake_hands(server.ssl_context, client.ssl_context) == ("TLSv1.3", "h1")
    assert server.ssl_context.minimum_version == client.ssl_context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(authority: Authority, version: ssl.TLSVersion) -> None:
    client = ssl.create_default_context(cafile=str(authority.file))
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = version
    with pytest.raises(ssl.SSLError):
        shake_hands(ServerTls(server_of(authority)).ssl_context, client)


def test_other_authority_and_other_name(authority: Authority, tmp_path: Path) -> None:
    server = ServerTls(server_of(authority)).ssl_context
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake_hands(server, ClientTls(TlsFiles(ca=str(stranger.file))).ssl_context)
    with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
        shake_hands(server, ClientTls(TlsFiles(ca=str(authority.file))).ssl_context, "elsewhere")


def test_mutual_tls(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("h1")
    server = ServerTls(TlsFiles(cert, key, str(authority.file), mutual=True)).ssl_context
    assert shake_hands(server, ClientTls(server_of(authority, "c1")).ssl_context)[1] == "h1"
    with pytest.raises(OSError, match=r"(?i)certificate required|closed|reset|EOF|broken"):
        shake_hands(server, ClientTls(TlsFiles(ca=str(authority.file))).ssl_context)
    stranger = Authority(tmp_path, "stranger")
    client = ssl.create_default_context(cafile=str(authority.file))
    client.load_cert_chain(*stranger.issue("c2"))
    with pytest.raises(OSError, match=r"(?i)unknown ca|closed|reset|EOF|broken"):
        shake_hands(server, client)


def test_an_authority_between(authority: Authority, tmp_path: Path) -> None:
    between = Authority(tmp_path, "between", authority)
    server = ServerTls(TlsFiles(*between.issue("h1"), str(authority.file))).ssl_context
    assert shake_hands(server, ClientTls(TlsFiles(ca=str(authority.file))).ssl_context)[1] == "h1"


def test_a_certificate_that_expired_since(authority: Authority) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*authority.issue("h1", begins=-2 * DAY, ends=-DAY))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(server, ClientTls(TlsFiles(ca=str(authority.file))).ssl_context)


def test_plain_text_to_a_port_with_tls(authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64)
        theirs.settimeout(TIMEOUT_S)
        with pytest.raises(ssl.SSLError):
            ServerTls(server_of(authority)).ssl_context.wrap_socket(theirs, server_side=True)


@pytest.mark.parametrize(
    ("begins", "ends", "words"), [(-2 * DAY, -DAY, "expired at"), (DAY, 2 * DAY, "not valid before")]
)
def test_times(authority: Authority, begins: timedelta, ends: timedelta, words: str) -> None:
    files = server_of(authority, begins=begins, ends=ends)
    for make in (ServerTls, ClientTls):
        with pytest.raises(ConfigError, match=f"h1.crt: {words}"):
            make(files)


def test_an_authority_that_expired(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old", ends=-DAY), Authority(tmp_path, "new")
    with pytest.raises(ConfigError, match=r"TLS authority .*old\.pem: expired at"):
        ClientTls(TlsFiles(ca=str(old.file)))
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(old.pem + new.pem)
    ClientTls(TlsFiles(ca=str(bundle)))


def test_files_that_are_wrong(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("h1")
    other_cert, other_key = authority.issue("h2")
    ca, junk = str(authority.file), str(tmp_path / "junk")
    Path(junk).write_text("PLANTED")
    stranger = Authority(tmp_path, "stranger")
    absent = str(tmp_path / "absent")
    for files, words in (
        (TlsFiles(cert, other_key, ca), f"{other_key}: is not the key of the certificate {cert}"),
        (TlsFiles(cert, key, str(stranger.file)), "comes from 'CN=ca', which is no authority in"),
        (TlsFiles(absent, key, ca), f"{absent}: cannot be read: No such file"),
        (TlsFiles(cert, absent, ca), f"{absent}: cannot be read: No such file"),
        (TlsFiles(cert, key, absent), f"{absent}: cannot be read: No such file"),
        (TlsFiles(cert, key, str(tmp_path)), "cannot be read: Is a directory"),
        (TlsFiles(junk, key, ca), "junk: holds no certificate"),
        (TlsFiles(cert, junk, ca), "junk: no private key"),
        (TlsFiles(cert, key, junk), "junk: holds no certificate"),
        (TlsFiles(cert, cert, ca), "no private key"),
    ):
        for make in (ServerTls, ClientTls):
            with pytest.raises(ConfigError) as caught:
                make(files)
            assert words in str(caught.value)
            assert "PLANTED" not in str(caught.value)
    assert other_cert


def test_what_belongs_together(authority: Authority) -> None:
    cert, key = authority.issue("h1")
    with pytest.raises(ConfigError, match="tls_key_file is missing"):
        SecurityOptions(tls_cert_file=cert)
    with pytest.raises(ConfigError, match="tls_cert_file is missing"):
        SecurityOptions(tls_key_file=key)
    with pytest.raises(ConfigError, match="tls_mutual needs tls_ca_file"):
        SecurityOptions(tls_cert_file=cert, tls_key_file=key, tls_mutual=True)
    with pytest.raises(ConfigError, match="no tokens to revoke"):
        SecurityOptions(token_revoked_file=cert)
    with pytest.raises(ConfigError, match="a server needs tls_cert_file"):
        ServerTls(TlsFiles(ca=str(authority.file)))
    assert SecurityOptions().server_tls() is None


def test_replaced_files_are_taken_over(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    for source, target in zip(authority.issue("h1"), (cert, key), strict=True):
        shutil.copy(source, target)
    server = ServerTls(TlsFiles(cert, key, str(authority.file)), interval_s=0)
    client = ClientTls(TlsFiles(ca=str(authority.file)), interval_s=0)
    assert shake_hands(server.ssl_context, client.ssl_context)[1] == "h1"
    new_cert, new_key = authority.issue("h2")
    os.replace(new_cert, cert)
    # Half of it is there: what was good is used, and the log says so once.
    for _ in range(3):
        assert shake_hands(server.ssl_context, client.ssl_context)[1] == "h1"
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    os.replace(new_key, key)
    assert shake_hands(server.ssl_context, client.ssl_context)[1] == "h2"


def test_a_replaced_authority_is_taken_over(authority: Authority, tmp_path: Path) -> None:
    """Whom a server of mutual TLS lets in follows the file as well."""
    other = Authority(tmp_path, "other")
    both, trusted = tmp_path / "both.pem", tmp_path / "trusted.pem"
    both.write_bytes(authority.pem + other.pem)
    shutil.copy(authority.file, trusted)
    server = ServerTls(TlsFiles(*authority.issue("h1"), str(trusted), mutual=True), interval_s=0)
    client = ClientTls(TlsFiles(*other.issue("c1"), str(both)))
    with pytest.raises(OSError, match=r"(?i)unknown ca|closed|reset|EOF|broken"):
        shake_hands(server.ssl_context, client.ssl_context)
    shutil.copy(both, trusted)
    assert shake_hands(server.ssl_context, client.ssl_context)[1] == "h1"


def test_pickles_hold_names_only(authority: Authority) -> None:
    files = server_of(authority)
    pickled = pickle.dumps(ClientTls(files))
    assert b"PRIVATE KEY" not in pickled
    assert pickle.loads(pickled).files == files

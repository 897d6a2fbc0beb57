"""A group under mutual TLS with tokens: who shows what belongs to it reads, and nobody else gets a byte."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.security.claims import ALL, Claims, Verb
from forebay.peer.security.keys import make_key_pair, read_private_key
from forebay.peer.security.options import SecurityOptions
from forebay.peer.security.tokens import sign
from tests._certificates import Authority
from tests.cluster._members import Serve
from tests.cluster._site import OBJECTS, Site, read_all, running
from tests.integration._sites import counters

DAY_S = 24 * 3600
TIMEOUT_S = 30
SIZE = sum(map(len, OBJECTS.values()))


@dataclass
class Secured:
    """The group, and what a client of it shows."""

    site: Site
    good: SecurityOptions
    folder: Path

    def token(self, name: str, verbs: set[Verb], *, begins_s: int = -60, ends_s: int = DAY_S) -> str:
        """Return the file of a new token."""
        return make_token(self.folder, name, verbs, begins_s, ends_s)

    def source_bytes(self, security: SecurityOptions) -> int:
        """Read everything as a client that shows this; return how much came from the under storage itself."""
        with self.site.client(security=security, peer_timeout_s=1.0).open() as cache:
            read_all(cache)
            return counters(cache)["source_bytes"]


def make_token(folder: Path, name: str, verbs: set[Verb], begins_s: int, ends_s: int) -> str:
    now = int(time.time())
    claims = Claims(name, (ALL,), frozenset(verbs), (), now + begins_s, now + ends_s)
    file = folder / f"{name}.token"
    file.write_text(sign(claims, read_private_key(str(folder / "key"))))
    file.chmod(0o600)
    return str(file)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    certificate, key = authority.issue("member")
    make_key_pair(str(folder / "key"), str(folder / "key.pub"))
    member = SecurityOptions(
        tls_cert_file=certificate,
        tls_key_file=key,
        tls_ca_file=str(authority.file),
        tls_mutual=True,
        token_file=make_token(folder, "member", set(Verb), -60, DAY_S),
        token_keys_file=str(folder / "key.pub"),
    )
    environ = {
        f"FOREBAY_{name.upper()}": str(getattr(member, name)).lower() if name == "tls_mutual" else value
        for name in (
            "tls_cert_file",
            "tls_key_file",
            "tls_ca_file",
            "tls_mutual",
            "token_file",
            "token_keys_file",
        )
        if (value := getattr(member, name))
    }
    certificate, key = authority.issue("client")
    good = replace(
        member,
        tls_cert_file=certificate,
        tls_key_file=key,
        token_file=make_token(folder, "reader", {Verb.READ, Verb.LIST}, -60, DAY_S),
        token_keys_file=None,
    )
    with running(folder, 2, Serve(environ=environ, security=member)) as site:
        yield Secured(site, good, folder)


def test_a_client_with_its_certificate_and_token_reads(secured: Secured) -> None:
    with secured.site.client(security=secured.good).open() as cache:
        read_all(cache)
        secured.site.requests()
        read_all(cache)
        assert secured.site.requests() == 0
        assert counters(cache)["source_bytes"] == 0


def test_who_lacks_one_of_them_gets_nothing_from_members(secured: Secured, tmp_path: Path) -> None:
    good = secured.good
    other = Authority(tmp_path)
    certificate, key = other.issue("client")
    both = tmp_path / "both.pem"
    both.write_bytes(other.pem + Path(good.tls_ca_file or "").read_bytes())
    lacking = [
        SecurityOptions(),
        replace(good, token_file=None),
        replace(
            good, token_file=secured.token("expired", {Verb.READ, Verb.LIST}, begins_s=-600, ends_s=-300)
        ),
        replace(good, token_file=secured.token("loader", {Verb.LOAD})),
        replace(good, tls_cert_file=certificate, tls_key_file=key, tls_ca_file=str(both)),
        replace(good, tls_cert_file=None, tls_key_file=None, tls_mutual=False),
        replace(good, tls_cert_file=certificate, tls_key_file=key, tls_ca_file=str(other.file)),
    ]
    for security in lacking:
        # The under storage still gives all of it.
        assert secured.source_bytes(security) == SIZE, security


def test_plain_text_to_a_port_of_tls_is_an_error(secured: Secured) -> None:
    member = secured.site.members.all[0]
    with grpc.insecure_channel(member.address) as channel, pytest.raises(grpc.RpcError):
        pb_grpc.PeerStub(channel).GetView(pb.ViewRequest(), timeout=TIMEOUT_S)
    with socket.create_connection(("127.0.0.1", member.data_port), timeout=TIMEOUT_S) as connection:
        connection.sendall(bytes(200))
        answer = b""
        try:
            while part := connection.recv(4096):
                answer += part
        except ConnectionResetError:
            pass
    # An alert of TLS at most.
    assert answer[:1] in (b"", b"\x15")
    assert len(answer) < 64


def test_no_secret_is_in_what_members_log(secured: Secured) -> None:
    token = Path(secured.good.token_file or "").read_text()
    assert not any(token in member.log() for member in secured.site.members.all)

"""Every call of the protocol against a real server of gRPC: without a token, with bad and with good ones."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.security.claims import Claims, Verb
from forebay.peer.security.credentials import Credentials
from forebay.peer.security.keys import make_key_pair, read_private_key
from forebay.peer.security.options import SecurityOptions
from forebay.peer.security.permissions import Permissions
from forebay.peer.security.table import CALLS, Where
from forebay.peer.security.tls import ServerTls, TlsFiles
from forebay.peer.security.tokens import Verifier, sign
from tests._certificates import Authority
from tests._peer_server import TIMEOUT_S, PeerServer, ask

NOW = 1_800_000_000
OURS = [name for name in CALLS if name.startswith("/forebay")]
GUARDED = [name for name, rule in CALLS.items() if rule.where is not Where.PUBLIC]
# Let in by its verb, and ended by the first request that the token is not for.
STREAM_OF_PATHS = "/forebay.v1.Admin/Load"
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED

# A request for imagenet/train, where a call names a path.
REQUESTS: dict[str, Any] = {
    "Hello": pb.HelloRequest(role="client"),
    "Stat": pb.StatRequest(dataset="imagenet", path=b"train/a"),
    "List": pb.ListRequest(dataset="imagenet", directory=b"train"),
    "Locate": pb.LocateRequest(dataset="imagenet", path=b"train"),
    "Load": pb.LoadRequest(target=b"imagenet/train"),
    "Apply": pb.ApplyRequest(path=b"imagenet/train", verb="pin"),
}


def request_of(method: str) -> bytes:
    message = REQUESTS.get(method.rpartition("/")[2])
    return b"" if message is None else bytes(message.SerializeToString())


class Place:
    """A server with keys, and what makes tokens for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = float(NOW)
        self.told: set[str] = set()
        for name in ("key", "other"):
            make_key_pair(str(folder / name), str(folder / f"{name}.pub"))
        verifier = Verifier([str(folder / "key.pub")], now=lambda: self.now_s)
        self.server = PeerServer(Permissions(verifier))
        self.channel = grpc.insecure_channel(self.server.address)

    def token(self, key: str = "key", **other: Any) -> str:
        claims: dict[str, Any] = {"id": "t1", "datasets": ["*"], "verbs": ["peer"], "networks": []}
        claims |= {"not_before": NOW, "expires": NOW + 3600} | other
        return sign(Claims.of(**claims), read_private_key(str(self.folder / key)))

    def code(self, method: str, token: str | None) -> grpc.StatusCode:
        """Make the call, and return how it ended."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        try:
            ask(self.channel, method, request_of(method), metadata=metadata)
        except grpc.RpcError as error:
            self.told.add(error.details())
            return error.code()
        return grpc.StatusCode.OK

    def close(self) -> None:
        self.channel.close()
        self.server.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    yield place
    place.close()


@pytest.mark.parametrize("method", GUARDED)
def test_who_is_let_in(place: Place, method: str) -> None:
    token, before = place.token(), len(place.server.answers.let_in)
    head, claims, signature = token.split(".")
    other_claims = place.token(id="t2").split(".")[1]
    for bad in (
        None,
        "",
        "x",
        place.token(key="other"),
        place.token(expires=NOW - 1, not_before=NOW - 9),
        place.token(not_before=NOW + 3000),
        f"{head}.{other_claims}.{signature}",
        f"{head}.{claims}.{signature[:-3]}AAA",
    ):
        assert place.code(method, bad) is UNAUTHENTICATED, bad
    assert place.code(method, place.token(networks=["10.0.0.0/8"])) is DENIED
    assert len(place.server.answers.let_in) == before
    # All that a caller learns.
    assert place.told == {"not authenticated", "permission denied"}
    assert place.code(method, token) is grpc.StatusCode.OK
    if method in OURS:
        assert place.server.answers.let_in[before:] == [(method.rpartition("/")[2], "127.0.0.1 (token t1)")]


@pytest.mark.parametrize("method", [name for name in OURS if CALLS[name].where is not Where.ANY])
def test_scopes(place: Place, method: str) -> None:
    rule, before = CALLS[method], len(place.server.answers.let_in)
    for verb in Verb:
        is_good = verb in rule.verbs or verb is Verb.PEER
        assert place.code(method, place.token(verbs=[verb])) is (grpc.StatusCode.OK if is_good else DENIED)
    calls = len(place.server.answers.let_in)
    verbs = sorted(set(rule.verbs) - {Verb.PEER, Verb.ADMIN}) or [Verb.READ]
    for datasets in (["other"], ["imagenet/val"], ["imagenet/trai"], ["imagenet@v1"]):
        assert place.code(method, place.token(verbs=verbs, datasets=datasets)) is DENIED
    if method != STREAM_OF_PATHS:
        assert len(place.server.answers.let_in) == calls > before
    if rule.where is Where.PATH:
        assert place.code(method, place.token(verbs=verbs, datasets=["imagenet/train"])) is grpc.StatusCode.OK


def test_only_peers_are_members(place: Place) -> None:
    hello = pb.HelloRequest(role="member", member_id="m").SerializeToString()
    for verb, good in (("read", False), ("peer", True)):
        metadata = (("authorization", f"Bearer {place.token(verbs=[verb])}"),)
        try:
            ask(place.channel, "/forebay.v1.Peer/Hello", hello, metadata=metadata)
            is_let_in = True
        except grpc.RpcError as error:
            is_let_in = error.code() is not DENIED
        assert is_let_in is good


def test_probes_need_no_token(place: Place) -> None:
    assert ask(place.channel, "/grpc.health.v1.Health/Check", b"") == [b"\x08\x01"]


def test_calls_that_there_are_not(place: Place) -> None:
    for method in ("/forebay.v1.Peer/Format", "/x", "/forebay.v2.Peer/Stat"):
        with pytest.raises(grpc.RpcError) as caught:
            ask(place.channel, method, b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_two_tokens_are_none(place: Place) -> None:
    both = tuple(("authorization", f"Bearer {place.token(id=name)}") for name in ("a", "b"))
    with pytest.raises(grpc.RpcError) as caught:
        ask(place.channel, "/forebay.v1.Peer/GetView", b"", metadata=both)
    assert caught.value.code() is UNAUTHENTICATED


@pytest.fixture
def own_place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def test_no_secret_in_logs(own_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place = own_place
    tokens = [place.token(), place.token(key="other"), place.token(expires=NOW - 1, not_before=1)]
    with caplog.at_level(logging.DEBUG):
        for token in (*tokens, f"{tokens[0]}x"):
            place.code("/forebay.v1.Peer/GetView", token)
            for part in token.split(".")[1:]:
                assert part not in caplog.text
    assert "another key" in caplog.text
    assert "from 127.0.0.1: token t1: expired" in caplog.text


@pytest.fixture
def token_file(place: Place, tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text(place.token())
    return str(file)


def call_all_kinds(channel: grpc.Channel) -> None:
    """Make a call of each kind by what protoc makes."""
    peer, admin = pb_grpc.PeerStub(channel), pb_grpc.AdminStub(channel)
    peer.GetView(pb.ViewRequest(), timeout=TIMEOUT_S)
    list(peer.List(pb.ListRequest(dataset="d"), timeout=TIMEOUT_S))
    list(peer.Blocks(iter([pb.Frames()]), timeout=TIMEOUT_S))
    admin.PushSettings(iter([pb.Setting()]), timeout=TIMEOUT_S)


async def call_all_kinds_aio(channel: grpc.aio.Channel) -> None:
    """Make a call of each kind by what protoc makes, from asyncio."""
    peer, admin = pb_grpc.PeerStub(channel), pb_grpc.AdminStub(channel)
    await peer.GetView(pb.ViewRequest(), timeout=TIMEOUT_S)
    assert [page async for page in peer.List(pb.ListRequest(dataset="d"), timeout=TIMEOUT_S)]
    assert [frames async for frames in peer.Blocks(iter([pb.Frames()]), timeout=TIMEOUT_S)]
    await admin.PushSettings(iter([pb.Setting()]), timeout=TIMEOUT_S)


def test_channels_carry_the_token(place: Place, token_file: str) -> None:
    credentials = Credentials(token=token_file)
    with credentials.open_channel(place.server.address) as channel:
        call_all_kinds(channel)

    async def again() -> None:
        async with credentials.open_aio_channel(place.server.address) as channel:
            await call_all_kinds_aio(channel)

    asyncio.run(again())


class Tls:
    """A server with TLS and tokens, and a client's files for it."""

    def __init__(self, folder: Path, place: Place, *, mutual: bool = False) -> None:
        self.authority = Authority(folder)
        self.ca = str(self.authority.file)
        self.cert, self.key = self.authority.issue("h1", ("localhost", "127.0.0.1"))
        verifier = None if mutual else Verifier([str(place.folder / "key.pub")], now=lambda: NOW)
        files = TlsFiles(self.cert, self.key, self.ca, mutual)
        self.server = PeerServer(Permissions(verifier), ServerTls(files, interval_s=0))


def test_tls_channels_carry_the_token(place: Place, token_file: str, tmp_path: Path) -> None:
    tls = Tls(tmp_path, place)
    credentials = SecurityOptions(tls_ca_file=tls.ca, token_file=token_file).credentials()
    try:
        with credentials.open_channel(tls.server.address) as channel:
            call_all_kinds(channel)

        async def again() -> None:
            async with credentials.open_aio_channel(tls.server.address) as channel:
                await call_all_kinds_aio(channel)

        asyncio.run(again())
        with SecurityOptions(tls_ca_file=tls.ca).credentials().open_channel(tls.server.address) as channel:
            assert status_of(channel) is UNAUTHENTICATED
    finally:
        tls.server.close()


def status_of(channel: grpc.Channel) -> grpc.StatusCode:
    """Return how a call ends that anybody with a token may make."""
    try:
        ask(channel, "/forebay.v1.Peer/GetView", b"")
    except grpc.RpcError as error:
        code = error.code()
        assert isinstance(code, grpc.StatusCode)
        return code
    return grpc.StatusCode.OK


def test_connections_that_tls_refuses(place: Place, tmp_path: Path) -> None:
    tls = Tls(tmp_path, place)
    stranger = Authority(tmp_path, "stranger")
    wrong_name = (("grpc.ssl_target_name_override", "elsewhere"),)
    try:
        for options, more in (
            (SecurityOptions(), ()),
            (SecurityOptions(tls_ca_file=str(stranger.file)), ()),
            (SecurityOptions(tls_ca_file=tls.ca), wrong_name),
        ):
            with options.credentials().open_channel(tls.server.address, more) as channel:
                assert status_of(channel) is grpc.StatusCode.UNAVAILABLE
        with SecurityOptions(tls_ca_file=tls.ca).credentials().open_channel(place.server.address) as channel:
            assert status_of(channel) is grpc.StatusCode.UNAVAILABLE
    finally:
        tls.server.close()


def test_mutual_tls_is_an_identity(place: Place, tmp_path: Path) -> None:
    tls = Tls(tmp_path, place, mutual=True)
    cert, key = tls.authority.issue("c1")
    own = SecurityOptions(tls_ca_file=tls.ca, tls_cert_file=cert, tls_key_file=key).credentials()
    try:
        with own.open_channel(tls.server.address) as channel:
            assert status_of(channel) is grpc.StatusCode.OK
        with SecurityOptions(tls_ca_file=tls.ca).credentials().open_channel(tls.server.address) as channel:
            assert status_of(channel) is grpc.StatusCode.UNAVAILABLE
    finally:
        tls.server.close()


def test_certificates_are_replaced_under_a_running_server(place: Place, tmp_path: Path) -> None:
    tls = Tls(tmp_path, place)
    new = Authority(tmp_path, "new")
    trusted = [shutil.copy(of.file, f"{of.file}.copy") for of in (tls.authority, new)]
    clients = [SecurityOptions(tls_ca_file=file).credentials() for file in trusted]

    def codes() -> list[grpc.StatusCode]:
        found = []
        for credentials in clients:
            options = [("grpc.use_local_subchannel_pool", 1)]
            with credentials.open_channel(tls.server.address, options) as channel:
                found.append(status_of(channel))
        return found

    try:
        assert codes() == [UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE]
        for source, target in zip(
            (*new.issue("h2"), str(new.file)), (tls.cert, tls.key, tls.ca), strict=True
        ):
            os.replace(source, target)
        assert codes() == [grpc.StatusCode.UNAVAILABLE, UNAUTHENTICATED]
    finally:
        tls.server.close()

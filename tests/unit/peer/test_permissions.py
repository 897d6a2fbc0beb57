"""The table of permissions: every call and frame has a row, and a row lets nobody in but whom it says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as st

from forebay.peer.frames import QUESTIONS
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.security import table
from forebay.peer.security.caller import Caller, address_of
from forebay.peer.security.claims import Claims, Verb
from forebay.peer.security.permissions import Permissions
from forebay.peer.security.refusal import Refused
from forebay.peer.security.table import CALLS, FRAMES, Rule, Where
from forebay.peer.security.tokens import Verifier
from tests.unit.peer.test_tokens import NOW, Files

FILES = (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)


def calls_of(*files: Any) -> dict[str, Any]:
    """Return all calls of the services in the descriptors, by their names, with their requests' types."""
    return {
        f"/{service.full_name}/{method.name}": method.input_type
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }


def test_each_kind_of_frame_that_asks_has_a_row() -> None:
    assert FRAMES.keys() == {kind.name for kind in QUESTIONS}


def caller_with(verifier: Verifier, files: Files, **claims: object) -> Caller:
    return Caller("10.0.0.1", verifier.authenticate(files.token(**claims), "10.0.0.1"))


def test_every_call_has_a_row_and_every_row_a_call() -> None:
    assert CALLS.keys() == calls_of(*FILES).keys()


def test_only_probes_need_no_token() -> None:
    public = {name for name, rule in CALLS.items() if rule.where is Where.PUBLIC}
    assert public == calls_of(health_pb2.DESCRIPTOR).keys()
    assert all(rule.where is not Where.PUBLIC for rule in FRAMES.values())


def test_where_paths_are_taken_from() -> None:
    """A call whose request names a dataset or path has a row that holds it to them, or to the whole group."""
    names = {"dataset", "path", "target", "directory"}
    for name, request in calls_of(pb.DESCRIPTOR).items():
        rule = CALLS[name]
        if names & {field.name for field in request.fields}:
            assert rule.where is Where.PATH, name
        assert (rule.targets is not None) == (rule.where is Where.PATH), name
        assert rule.verbs or rule.where is Where.ANY, name


def text_of(dataset: str, path: bytes) -> bytes:
    return dataset.encode() + b"/" + path if path else dataset.encode()


REQUESTS: dict[str, Callable[[str, bytes], Any]] = {
    "/forebay.v1.Peer/Stat": lambda of, at: pb.StatRequest(dataset=of, path=at),
    "/forebay.v1.Peer/List": lambda of, at: pb.ListRequest(dataset=of, directory=at),
    "/forebay.v1.Peer/Locate": lambda of, at: pb.LocateRequest(dataset=of, path=at),
    "/forebay.v1.Admin/Load": lambda of, at: pb.LoadRequest(target=text_of(of, at)),
    "/forebay.v1.Admin/Apply": lambda of, at: pb.ApplyRequest(path=text_of(of, at)),
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def verifier(files: Files) -> Verifier:
    return files.verifier()


@pytest.fixture
def permissions(verifier: Verifier) -> Permissions:
    return Permissions(verifier)


def is_let_in(permissions: Permissions, what: str, caller: Caller, dataset: str, path: bytes) -> bool:
    try:
        if what in FRAMES:
            permissions.check(what, caller, dataset, path)
        else:
            permissions.check_request(what, caller, REQUESTS[what](dataset, path))
    except Refused:
        return False
    return True


OF_PATHS = [name for name, rule in (CALLS | FRAMES).items() if rule.where is Where.PATH]


@pytest.mark.parametrize("what", OF_PATHS)
def test_prefixes(permissions: Permissions, verifier: Verifier, files: Files, what: str) -> None:
    verbs = sorted(table.RULES[what].verbs)
    caller = caller_with(verifier, files, verbs=verbs, datasets=["imagenet/train", "b@v1"])
    for dataset, path in (
        ("imagenet", b"train"),
        ("imagenet", b"train/"),
        ("imagenet", b"train/a/b"),
        ("imagenet@v7", b"train/a"),
        ("b@v1", b""),
        ("b@v1", b"x"),
    ):
        assert is_let_in(permissions, what, caller, dataset, path), (dataset, path)
    for dataset, path in (
        ("imagenet", b""),
        ("imagenet", b"trainx"),
        ("imagenet", b"tra"),
        ("imagenet", b"val/train"),
        ("imagenet", b"train/../val"),
        ("imagenet", b"train/./a"),
        ("imagenet", b"train//a"),
        ("imagenet", b"/train"),
        ("imagenet", b"train/a\0b"),
        ("imagenet", b"train/.."),
        ("imagenet", b"train/" + b"x" * 70_000),
        ("imagenet2", b"train"),
        ("b", b""),
        ("b@v2", b"x"),
        ("", b"imagenet/train"),
        ("*", b"train"),
        ("imagenet/train", b""),
        ("imagenet/train", b"x"),
    ):
        is_one_text = what in ("/forebay.v1.Admin/Load", "/forebay.v1.Admin/Apply")
        if is_one_text and dataset in ("", "imagenet/train"):
            # There dataset and path are one text: these are the same as what is let in.
            continue
        assert not is_let_in(permissions, what, caller, dataset, path), (dataset, path)


@given(st.text("./a\0", max_size=8))
def test_plain_paths(path: str) -> None:
    parts = path.removesuffix("/").split("/")
    is_plain = path == "" or ("\0" not in path and all(part not in ("", ".", "..") for part in parts))
    assert is_let_in(Permissions(), "READ", Caller("127.0.0.1"), "imagenet", path.encode()) == is_plain


@pytest.mark.parametrize("what", OF_PATHS)
def test_verbs(permissions: Permissions, verifier: Verifier, files: Files, what: str) -> None:
    for verb in Verb:
        caller = caller_with(verifier, files, verbs=[verb], datasets=["*"])
        expected = verb in table.RULES[what].verbs or verb is Verb.PEER
        assert is_let_in(permissions, what, caller, "imagenet", b"train/a") == expected, verb


@pytest.mark.parametrize("what", [name for name, rule in CALLS.items() if rule.where is Where.GROUP])
def test_what_concerns_the_group(
    permissions: Permissions, verifier: Verifier, files: Files, what: str
) -> None:
    for verb in Verb:
        caller = caller_with(verifier, files, verbs=[verb], datasets=["*"])
        if verb in CALLS[what].verbs or verb is Verb.PEER:
            permissions.check_request(what, caller)
        else:
            with pytest.raises(Refused):
                permissions.check_request(what, caller)
    with pytest.raises(Refused, match="permission denied"):
        permissions.check_request(what, caller_with(verifier, files, verbs=["read", "manage"]))


@pytest.mark.parametrize("what", ["HELLO", "/forebay.v1.Peer/Hello"])
def test_only_peers_say_that_they_are_members(
    permissions: Permissions, verifier: Verifier, files: Files, what: str
) -> None:
    client = caller_with(verifier, files)
    permissions.check_request(what, client, pb.HelloRequest(role="client"))
    for hello in (
        pb.HelloRequest(role="member"),
        pb.HelloRequest(),
        pb.HelloRequest(role="client", member_id="x"),
    ):
        with pytest.raises(Refused):
            permissions.check_request(what, client, hello)
        permissions.check_request(what, caller_with(verifier, files, verbs=["peer"], datasets=["*"]), hello)


def test_files_named_in_a_load(permissions: Permissions, verifier: Verifier, files: Files) -> None:
    caller = caller_with(verifier, files, verbs=["load"])
    what = "/forebay.v1.Admin/Load"
    permissions.check_request(what, caller, pb.LoadRequest(target=b"imagenet/train", files=[b"a", b"b/c"]))
    for bad in (b"../val/a", b"/etc/passwd", b"a/../../val", b"a\0"):
        request = pb.LoadRequest(target=b"imagenet/train", files=[b"a", bad])
        with pytest.raises(Refused):
            permissions.check_request(what, caller, request)
        with pytest.raises(Refused):
            Permissions().check_request(what, Caller("127.0.0.1"), request)


@pytest.mark.parametrize("what", ["", "/forebay.v1.Peer/Format", "read", "READ ", "/forebay.v1.Peer/Stat/"])
def test_what_has_no_row_is_refused(
    permissions: Permissions, verifier: Verifier, files: Files, what: str
) -> None:
    everything = caller_with(verifier, files, verbs=list(Verb), datasets=["*"])
    for of, caller in ((permissions, everything), (Permissions(), Caller("127.0.0.1"))):
        with pytest.raises(Refused):
            of.check(what, caller, "imagenet", b"a")
        with pytest.raises(Refused):
            of.check_request(what, caller, pb.StatRequest(dataset="imagenet"))


def test_a_row_without_targets_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.RULES, "/x/Y", Rule(Where.PATH, frozenset({Verb.READ})))
    with pytest.raises(Refused):
        Permissions().check_request("/x/Y", Caller("127.0.0.1"), pb.StatRequest(dataset="imagenet"))


def test_a_caller_without_claims_where_tokens_are_verified(permissions: Permissions) -> None:
    with pytest.raises(Refused, match="not authenticated"):
        permissions.check("READ", Caller("127.0.0.1"), "imagenet", b"train/a")
    assert permissions.authenticate("/grpc.health.v1.Health/Check", None, "10.9.9.9").claims is None


def test_connections_do_not_outlive_their_token(
    permissions: Permissions, verifier: Verifier, files: Files
) -> None:
    caller = caller_with(verifier, files)
    permissions.check("READ", caller, "imagenet", b"train/a")
    files.now_s = NOW + 3600
    with pytest.raises(Refused, match="not authenticated"):
        permissions.check("READ", caller, "imagenet", b"train/a")
    files.now_s = NOW
    files.revoked.write_text("t1")
    with pytest.raises(Refused, match="not authenticated"):
        permissions.check("READ", caller, "imagenet", b"train/a")


def test_datasets_that_a_caller_sees(permissions: Permissions, verifier: Verifier, files: Files) -> None:
    caller = caller_with(verifier, files, datasets=["a/b", "c@v1"])
    assert [name for name in ("a", "a@v", "b", "c", "d") if permissions.sees(caller, name)] == [
        "a",
        "a@v",
        "c",
    ]
    assert permissions.sees(caller_with(verifier, files, datasets=["*"]), "z")
    assert permissions.sees(Caller("127.0.0.1"), "z")


def test_the_log_has_the_reason_and_does_not_flood(
    permissions: Permissions, caplog: pytest.LogCaptureFixture
) -> None:
    token = "fb1.PLANTED.PLANTED"
    with caplog.at_level(logging.DEBUG):
        for _ in range(500):
            with pytest.raises(Refused):
                permissions.authenticate("READ", token, "10.0.0.1")
    assert "refused 'READ' from 10.0.0.1: not in the form of a token" in caplog.text
    assert "PLANTED" not in caplog.text
    assert permissions.refused_count == 500
    assert len(caplog.records) <= 21 * 10, "so many seconds it does not take"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:[fd00::1]:5000", "fd00::1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("unix:/run/forebay", "unix:/run/forebay"),
        ("", ""),
    ],
)
def test_addresses_as_grpc_writes_them(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_claims_in_a_caller_show_no_token(verifier: Verifier, files: Files) -> None:
    caller = caller_with(verifier, files)
    assert isinstance(caller.claims, Claims)
    assert str(caller) == "10.0.0.1 (token t1)"
    assert "fb1." not in repr(caller)

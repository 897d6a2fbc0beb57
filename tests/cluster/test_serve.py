"""The program that serves: what it says and refuses at its start, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from forebay.peer.handshake import Terms
from forebay.peer.member import MemberState
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from tests.cluster._members import BLOCK, GROUP, ServedMember
from tests.cluster._site import Site, running

SERVICES = {"forebay.v1.Peer", "forebay.v1.Admin"}
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("group"), 1) as site:
        yield site


@pytest.fixture
def member(site: Site) -> ServedMember:
    return site.members.all[0]


@pytest.fixture
def channel(member: ServedMember) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(member.address) as channel:
        yield channel


def refused(folder: Path, *options: str) -> str:
    """Run it, which must end by itself; return what it says then."""
    command = [sys.executable, "-m", "forebay", "serve", "--cache-dir", str(folder), "--group", GROUP]
    command += ["--tier", f"{folder}-tier:16M:SSD", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode not in (0, -signal.SIGTERM)
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_it_is_ready_by_health_of_each_service(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "alive", *SERVICES):
        reply = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_all_services(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (reply,) = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S)
    names = {service.name for service in reply.list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (pb.HelloRequest(group="other"), ["group", "other", repr(GROUP)]),
        (pb.HelloRequest(block_bytes=2 * BLOCK), ["block size", str(2 * BLOCK), str(BLOCK)]),
        (pb.HelloRequest(protocol=99), ["protocol", "1 at the member", "99 at who asks"]),
    ],
    ids=["group", "block", "protocol"],
)
def test_a_mismatch_is_refused_with_both_values(
    channel: grpc.Channel, changed: pb.HelloRequest, words: list[str]
) -> None:
    request = Terms(GROUP, BLOCK).request("client")
    request.MergeFrom(changed)
    with pytest.raises(grpc.RpcError) as caught:
        pb_grpc.PeerStub(channel).Hello(request, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert all(word in caught.value.details() for word in words)


def test_a_port_in_use_is_named(member: ServedMember, tmp_path: Path) -> None:
    said = refused(tmp_path / "other", "--listen", member.address)
    assert member.address in said
    assert "in use" in said


def test_a_data_port_in_use_is_named(member: ServedMember, tmp_path: Path) -> None:
    port = str(member.data_port)
    said = refused(tmp_path / "other", "--listen", "127.0.0.1:0", "--data-port", port)
    assert port in said
    assert "in use" in said


def test_a_cache_directory_has_one_daemon(member: ServedMember) -> None:
    command = [sys.executable, "-m", "forebay", "serve", "--cache-dir", str(member.folder), "--group", GROUP]
    command += ["--tier", f"{member.tier.path}:{member.tier.quota}:MEM", "--listen", "127.0.0.1:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode not in (0, -signal.SIGTERM)
    assert str(member.folder) in ended.stderr
    assert "another process serves it already" in ended.stderr


def test_it_listens_beyond_this_machine_with_tls_alone(tmp_path: Path) -> None:
    said = refused(tmp_path / "other", "--listen", "0.0.0.0:0")
    assert "0.0.0.0" in said
    assert "TLS" in said
    assert "--insecure" in said


def test_sigterm_ends_it_and_others_know_at_once(tmp_path: Path) -> None:
    with running(tmp_path, 2) as site:
        stays, leaves = site.members.all
        leaves.signal(signal.SIGTERM)
        view = stays.view()
        assert view is not None
        # No silence had to be noticed: it has said so.
        assert {member.state for member in view.members if member.id == leaves.id} <= {MemberState.LEAVING}
        assert leaves.process.returncode == 0, leaves.log()
        assert "Traceback" not in leaves.log()

"""Members as `forebay serve` runs them, processes of their own over one S3 server, and clients of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import forebay
from forebay.peer.data.client import PeerLink
from forebay.peer.data.deadline import Deadline
from forebay.peer.group import Group
from forebay.peer.links import PeerLinks
from forebay.peer.member import Member, MemberState, View
from forebay.peer.service.blocks_client import StreamLink
from perf.system.bucket import BUCKET, DATASET

GROUP = "perf"
CLIENT_QUOTA_BYTES = 64 << 20
READY_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 30.0
POLL_S = 0.05


@dataclass
class Served:
    """A cache directory and the process that serves it."""

    process: subprocess.Popen[str]
    id: str
    address: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that ends the process is waited for."""
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait(EXIT_TIMEOUT_S)

    def close(self) -> None:
        """End it: not by a farewell, for what it would hand over nobody reads any more."""
        self.process.kill()
        self.process.wait(EXIT_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def members(folder: Path, count: int, endpoint_url: str, quota_bytes: int) -> Iterator[list[Served]]:
    """Run a group of so many new members over the bucket; each sees all the others."""
    place = Path(tempfile.mkdtemp(prefix="members-", dir=folder))
    started: list[Served] = []
    try:
        for number in range(count):
            started.append(_start(place / f"m{number}", started, endpoint_url, quota_bytes))
        _wait_until_seen(started)
        yield started
    finally:
        for each in started:
            each.close()


def _wait_until_seen(served: list[Served]) -> None:
    """Wait until each has a view in which all of these are up. Raises: TimeoutError."""
    wanted = {each.id: MemberState.UP for each in served}
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    for each in served:
        while {member.id: member.state for member in view_at(each.address).members} != wanted:
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{each.address} does not see all members")
            time.sleep(POLL_S)


def view_at(address: str) -> View:
    """Return the view of the group that the member at an address has."""
    links = PeerLinks(Group(GROUP, [address]))
    return links.greet(address, deadline=Deadline(5.0))


@contextmanager
def link_to(served: Served) -> Iterator[PeerLink]:
    """Give this process's way to the data port of a member."""
    links = PeerLinks(Group(GROUP, [served.address]))
    try:
        link = links.link(member_of(served))
        if not isinstance(link, PeerLink):
            raise TypeError(f"{served.address} is not asked by its data port")
        yield link
    finally:
        links.close()


@contextmanager
def stream_to(served: Served) -> Iterator[StreamLink]:
    """Give this process's way to a member over gRPC, as to one that has no data port."""
    links = PeerLinks(Group(GROUP, [served.address]))
    try:
        link = links.link(replace(member_of(served), data_port=0))
        if not isinstance(link, StreamLink):
            raise TypeError(f"{served.address} is not asked over gRPC")
        yield link
    finally:
        links.close()


def member_of(served: Served) -> Member:
    """Return what a member says of itself."""
    return next(member for member in view_at(served.address).members if member.id == served.id)


def client(folder: Path, addresses: list[str], endpoint_url: str) -> forebay.Cache:
    """Open a new cache that reads through the group and keeps nothing of what it reads."""
    place = Path(tempfile.mkdtemp(prefix="client-", dir=folder))
    tiers = [forebay.Tier(str(place / "tier"), CLIENT_QUOTA_BYTES, "MEM")]
    cache = forebay.open(place / "cache", tiers=tiers, group=GROUP, peers=addresses)
    _attach(cache, endpoint_url)
    return cache


def _attach(cache: forebay.Cache, endpoint_url: str) -> None:
    cache.attach(DATASET, f"s3://{BUCKET}", endpoint_url=endpoint_url, max_age=None, local_copy="never")


def _start(place: Path, others: list[Served], endpoint_url: str, quota_bytes: int) -> Served:
    """Start a member and wait until it serves."""
    tier = forebay.Tier(str(place / "tier"), quota_bytes, "MEM")
    with forebay.open(place / "cache", tiers=[tier]) as cache:
        _attach(cache, endpoint_url)
    command = [sys.executable, "-m", "forebay", "serve", "--json", "--group", GROUP]
    command += ["--cache-dir", str(place / "cache"), "--listen", "127.0.0.1:0"]
    command += ["--peers", ",".join(other.address for other in others)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a member ended with status {process.wait(EXIT_TIMEOUT_S)} before it served")
    said = json.loads(line)
    return Served(process, said["member"], said["address"])

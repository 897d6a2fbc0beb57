"""Copies at a group of real members: pushed, read after a loss, made again, and handed over at the end."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import MIB, Tier
from forebay.peer.group import Group
from forebay.peer.ring import Ring
from forebay.remote import BlockRef
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server
from tests.cluster._members import BLOCK, DATASET, GROUP, ServedMember, view_at
from tests.integration._sites import log_in, proxy_of, write_files

PATIENCE_S = 120
OBJECTS = {
    f"o{number:02}": hashlib.sha256(bytes([number])).digest() * (number % 4 * 2_500 + 500)
    for number in range(16)
}
# `forebay serve`, but who is gone leaves the ring after three seconds.
SERVE = """
import functools, sys
from forebay.cli import main
from forebay.peer import server
from forebay.peer.membership import Rules
server.ServeOptions = functools.partial(server.ServeOptions, rules=Rules(grace_s=3.0))
sys.exit(main())
"""


class Member(ServedMember):
    """A member as it is served, in a group that is quick to give one up."""

    def start(self) -> None:
        command = [sys.executable, "-c", SERVE, "serve", "--json", "--group", GROUP]
        command += ["--cache-dir", str(self.folder), "--listen", "127.0.0.1:0"]
        command += ["--tier", f"{self.tier.path}:{self.tier.quota}:MEM", "--peers", ",".join(self.peers)]
        environ = os.environ | {"FOREBAY_BLOCK_BYTES": str(BLOCK)}
        self.process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


class Site:
    """Three members over an S3 server whose requests are counted, and a client that keeps nothing."""

    def __init__(self, folder: Path, memory: Path, proxy: Proxy) -> None:
        self.proxy = proxy
        self.members: list[Member] = []
        for number in range(3):
            peers = [each.address for each in self.members]
            member = Member(folder / f"m{number}", memory / f"m{number}", proxy.url, peers)
            self.members.append(member)
            member.wait_until_ready()
        wait_until(lambda: all(len(self.ring(each)) == 3 for each in self.members))
        self.group = Group(GROUP, [each.address for each in self.members], block_bytes=BLOCK)
        tier = Tier(str(memory / "client"), 16 * MIB, "MEM")
        self.cache = Cache(folder / "client", [tier], block_bytes=BLOCK, remote=self.group)
        self.cache.attach(DATASET, "s3://bucket", endpoint_url=proxy.url, max_age=None, local_copy="never")

    def ring(self, member: ServedMember) -> Ring:
        view = view_at(member.address)
        assert view is not None
        return Ring(view)

    def read_all(self) -> None:
        for name, data in OBJECTS.items():
            with self.cache.read(f"{DATASET}/{name}") as view:
                assert bytes(view) == data

    def requests(self) -> int:
        return sum(self.proxy.stats(reset=True)["requests_by_method"].values())

    def refs(self) -> Sequence[BlockRef]:
        found = []
        for name, data in OBJECTS.items():
            version = self.cache.stat(f"{DATASET}/{name}").version
            found += [BlockRef(DATASET, name, version, n) for n in range(-(-len(data) // BLOCK))]
        return found

    def copies(self, members: Sequence[ServedMember]) -> list[int]:
        """Return how many of the members have each block."""
        refs = self.refs()
        held = []
        for each in members:
            with each.open() as cache:
                held.append(cache.serving().holds(refs))
        return [sum(column) for column in zip(*held, strict=True)]

    def has_copies(self, count: int, members: Sequence[ServedMember]) -> Callable[[], bool]:
        return lambda: min(self.copies(members)) >= count

    def close(self) -> None:
        self.cache.close()
        self.group.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    write_files(tmp_path / "buckets/bucket", OBJECTS)
    memory = Path(tempfile.mkdtemp(prefix="forebay-test-", dir="/dev/shm"))
    site: Site | None = None
    try:
        with S3Server(tmp_path / "buckets") as server:
            log_in(server, monkeypatch)
            with proxy_of(server) as proxy:
                try:
                    site = Site(tmp_path, memory, proxy)
                    yield site
                finally:
                    if site is not None:
                        site.close()
                        for each in site.members:
                            each.close()
    finally:
        shutil.rmtree(memory)


def test_copies_are_made_and_read_after_a_loss_and_made_again(site: Site) -> None:
    site.read_all()
    assert sum(site.copies(site.members)) == len(site.refs())
    with site.members[0].open() as cache:
        cache.replicas(DATASET, 2)
    wait_until(site.has_copies(2, site.members))
    assert set(site.copies(site.members)) == {2}
    # As others on its host see it, each member has pushed what it owns.
    wait_until(lambda: sum(pushed_blocks(each) for each in site.members) == len(site.refs()))

    site.requests()
    victim, *rest = site.members
    victim.signal(signal.SIGKILL)
    site.read_all()
    assert site.requests() == 0

    wait_until(site.has_copies(2, rest))
    site.read_all()
    assert site.requests() == 0


def pushed_blocks(member: Member) -> int:
    command = [sys.executable, "-m", "forebay", "status", "--prometheus", "--cache-dir", str(member.folder)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(float(next(re.finditer(r"^forebay_copies_pushed_blocks_total (\S+)$", text, re.M))[1]))


def test_what_was_served_lately_is_handed_over_by_a_member_that_ends(site: Site) -> None:
    site.read_all()
    owner = site.ring(site.members[0]).owners(DATASET, "o00", 0)[0]
    leaving = next(each for each in site.members if each.id == owner.id)
    rest = [each for each in site.members if each is not leaving]
    assert min(site.copies(rest)) == 0
    leaving.signal(signal.SIGTERM)
    assert min(site.copies(rest)) == 1
    site.requests()
    site.read_all()
    assert site.requests() == 0

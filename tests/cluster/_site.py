"""A group of real members over an S3 server whose requests are counted, and clients that read through it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.config import MIB, Tier
from forebay.peer.cache import GroupCache
from forebay.peer.group import Group
from forebay.peer.ring import Ring
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server
from tests.cluster._members import BLOCK, PLAIN, Members, Serve, ServedMember, members
from tests.integration._sites import log_in, proxy_of, write_files

MEMBERS = 3
PATIENCE_S = 120
# How long a client waits for a silent member where none is to be taken for gone.
SILENCE_S = 60.0
# Of one read: more than any silence that is waited for, on a machine that stands still at times, and less
# than the 120 s after which a call ends that nothing else bounds.
BOUNDED_S = 60.0


OBJECTS = {
    f"o{number:02}": hashlib.sha256(bytes([number])).digest() * (number % 5 * 3000 + 500)
    for number in range(40)
}


@dataclass
class Client:
    """How to open a cache that reads through a group and keeps nothing; goes to other processes."""

    folder: Path
    tier: Path
    seeds: list[str]
    endpoint_url: str
    limits: dict[str, Any] = field(default_factory=dict)

    def open(self, group: Group | None = None) -> Cache:
        cache = self.open_bare(group)
        cache.attach("d", "s3://bucket", endpoint_url=self.endpoint_url, max_age=None, local_copy="never")
        return cache

    def open_bare(self, group: Group | None = None) -> GroupCache:
        """Open it with nothing attached but what members have."""
        tier = Tier(str(self.tier), 16 * MIB, "MEM")
        return GroupCache(self.folder, [tier], block_bytes=BLOCK, remote=group or self.group())

    def group(self) -> Group:
        return Group("g", self.seeds, block_bytes=BLOCK, **self.limits)


@dataclass
class Site:
    """A group over an S3 server whose requests are counted."""

    members: Members
    proxy: Proxy
    folder: Path
    memory: Path
    numbers: Iterator[int] = field(default_factory=count)

    def client(self, **limits: Any) -> Client:
        """Return another client; it waits long for a silent member, if limits do not say otherwise."""
        limits.setdefault("peer_timeout_s", SILENCE_S)
        name = f"client{next(self.numbers)}"
        return Client(self.folder / name, self.memory / name, self.members.seeds, self.proxy.url, limits)

    def requests(self) -> int:
        """Return how many requests the server has had since the last call."""
        return sum(self.proxy.stats(reset=True)["requests_by_method"].values())

    def cost_of_reading(self, **limits: Any) -> int:
        """Return how many requests it costs the storage when a new client, which is patient, reads all."""
        with self.client(**limits).open() as cache:
            self.requests()
            read_all(cache)
            return self.requests()

    def wait_until_free(self, cache: Cache) -> None:
        """Wait until reading all there is sends the storage no request.

        A read whose member was silent for too long went to the storage, and those behind that one in rank
        may have no more than was asked of them.
        """

        def is_free() -> bool:
            self.requests()
            read_all(cache)
            return self.requests() == 0

        wait_until(is_free)

    def owner_of(self, name: str) -> ServedMember:
        view = self.members.all[0].view()
        assert view is not None
        owner = Ring(view).owners("d", name, 0)[0]
        return next(each for each in self.members.all if each.id == owner.id)


@contextmanager
def running(
    folder: Path, member_count: int = MEMBERS, how: Serve = PLAIN, source_host: str = "127.0.0.1"
) -> Iterator[Site]:
    """Run a group for the length of a with statement; the S3 server is reached at source_host."""
    write_files(folder / "buckets/bucket", OBJECTS)
    memory = Path(tempfile.mkdtemp(prefix="forebay-test-", dir="/dev/shm"))
    try:
        with S3Server(folder / "buckets") as server, pytest.MonkeyPatch.context() as monkeypatch:
            log_in(server, monkeypatch)
            with (
                proxy_of(server, source_host) as proxy,
                members(folder / "members", memory, proxy.url, member_count, how) as group,
            ):
                yield Site(group, proxy, folder, memory)
    finally:
        shutil.rmtree(memory)


def read_all(cache: Cache, names: Sequence[str] = tuple(OBJECTS)) -> float:
    """Read objects, hold each to its bytes, and return the seconds that the slowest took."""
    slowest_s = 0.0
    for name in names:
        begun_s = time.monotonic()
        with cache.read(f"d/{name}") as view:
            slowest_s = max(slowest_s, time.monotonic() - begun_s)
            assert bytes(view) == OBJECTS[name]
    return slowest_s


def run(processes: Sequence[Any]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def wait_until(is_so: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    """Wait for a condition; what says why it may not have come true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, what()
        time.sleep(0.02)

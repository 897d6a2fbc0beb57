"""Reads through a group of real members: cold, warm, from workers, and while members die or stand still."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.config import MIB, Tier
from forebay.peer.group import Group
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server
from tests.cluster._data_members import BLOCK, DataMember, DataMembers, data_members
from tests.integration._sites import counters, log_in, proxy_of, write_files

MEMBERS = 4
CLIENTS = 8
PATIENCE_S = 120

OBJECTS = {
    f"o{number:02}": hashlib.sha256(bytes([number])).digest() * (number % 5 * 3000 + 500)
    for number in range(40)
}


@dataclass
class Site:
    """A group over an S3 server whose requests are counted."""

    members: DataMembers
    proxy: Proxy
    folder: Path
    tiers: Path
    group: Group | None = None

    def client(self, name: str = "client", **limits: Any) -> Cache:
        """Open a cache that reads through the group and keeps what it has room for in little room."""
        self.group = Group("g", self.members.seeds, block_bytes=BLOCK, **limits)
        tier = Tier(str(self.tiers / name), 16 * MIB, "MEM")
        cache = Cache(self.folder / name, [tier], block_bytes=BLOCK, remote=self.group)
        cache.attach("d", "s3://bucket", endpoint_url=self.proxy.url, max_age=None, local_copy="never")
        return cache

    def requests(self) -> int:
        """Return how many GETs the server has had since the last call."""
        return sum(self.proxy.stats(reset=True)["requests_by_method"].values())

    def owner_of(self, name: str) -> DataMember:
        group = Group("g", self.members.seeds, block_bytes=BLOCK)
        group.take_view(self.members.view)
        assert group.ring is not None
        (owner,) = group.ring.owners("d", name, 0)
        group.close()
        return next(each for each in self.members.all if each.member.id == owner.id)


@pytest.fixture
def site(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    write_files(tmp_path / "buckets/bucket", OBJECTS)
    with S3Server(tmp_path / "buckets") as server:
        log_in(server, monkeypatch)
        with (
            proxy_of(server) as proxy,
            data_members(tmp_path / "members", memory_path, proxy.url, MEMBERS) as members,
        ):
            yield Site(members, proxy, tmp_path, memory_path)


def read_all(cache: Cache, names: Sequence[str] = tuple(OBJECTS)) -> float:
    """Read objects, hold each to its bytes, and return the seconds that the slowest took."""
    slowest_s = 0.0
    for name in names:
        begun_s = time.monotonic()
        with cache.read(f"d/{name}") as view:
            slowest_s = max(slowest_s, time.monotonic() - begun_s)
            assert bytes(view) == OBJECTS[name]
    return slowest_s


def read_all_and_exit(cache: Cache, barrier: Any, number: int) -> None:
    barrier.wait(PATIENCE_S)
    names = list(OBJECTS)
    read_all(cache, names[number * 5 :] + names[: number * 5])
    cache.close()
    os._exit(0)


def open_read_and_exit(open_client: Callable[[], Cache], barrier: Any, number: int) -> None:
    read_all_and_exit(open_client(), barrier, number)


def run(processes: Sequence[Any]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in processes] == [0] * len(processes)


class Opens:
    """Opens a client in another process."""

    def __init__(self, site: Site, name: str) -> None:
        self.seeds, self.url = site.members.seeds, site.proxy.url
        self.folder, self.tiers, self.name = site.folder, site.tiers, name

    def __call__(self) -> Cache:
        group = Group("g", self.seeds, block_bytes=BLOCK)
        tier = Tier(str(self.tiers / self.name), 16 * MIB, "MEM")
        cache = Cache(self.folder / self.name, [tier], block_bytes=BLOCK, remote=group)
        cache.attach("d", "s3://bucket", endpoint_url=self.url, max_age=None, local_copy="never")
        return cache


def test_the_storage_gives_each_object_once_however_many_clients_read_it(site: Site) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(CLIENTS)
    processes = [
        spawn.Process(target=open_read_and_exit, args=(Opens(site, f"c{number}"), barrier, number))
        for number in range(CLIENTS)
    ]
    site.proxy.stats(reset=True)
    run(processes)
    seen = site.proxy.stats()
    total_bytes = sum(map(len, OBJECTS.values()))
    # Beside the objects there are the heads of answers; the smallest object is larger than one.
    heads_bytes = seen["bytes_to_client"] - total_bytes
    assert 0 < heads_bytes < 1024 * seen["requests_by_method"]["GET"] < 1024 * 2 * len(OBJECTS)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_process_read_through_the_group(site: Site, method: str) -> None:
    context = multiprocessing.get_context(method)
    with site.client() as cache:
        read_all(cache)
        site.requests()
        barrier = context.Barrier(3)
        run(
            [
                context.Process(target=read_all_and_exit, args=(cache, barrier, number))  # type: ignore[attr-defined]
                for number in range(3)
            ]
        )
        assert site.requests() == 0
        assert read_all(cache) < PATIENCE_S


def test_workers_that_are_forked_before_anything_was_read_read_through_the_group(site: Site) -> None:
    context = multiprocessing.get_context("fork")
    with site.client() as first:
        read_all(first)
    with site.client("other") as cache:
        site.requests()
        barrier = context.Barrier(2)
        run([context.Process(target=read_all_and_exit, args=(cache, barrier, number)) for number in range(2)])
        assert site.requests() == 0


def test_a_client_that_comes_or_is_killed_moves_nothing(site: Site) -> None:
    spawn = multiprocessing.get_context("spawn")
    with site.client() as cache:
        read_all(cache)
        barrier = spawn.Barrier(2)
        other = spawn.Process(target=open_read_and_exit, args=(Opens(site, "killed"), barrier, 0))
        other.start()
        barrier.wait(PATIENCE_S)
        other.kill()
        other.join(PATIENCE_S)
        site.requests()
        assert read_all(cache) < PATIENCE_S
        assert site.requests() == 0


def test_no_read_fails_when_a_member_is_killed_in_the_middle(site: Site) -> None:
    with site.client() as cache:
        read_all(cache)
        victim = site.owner_of("o00")
        reads, slowest_s = 0, 0.0
        killed = threading.Event()

        def kill() -> None:
            victim.signal(signal.SIGKILL)
            killed.set()

        names = [name for name in OBJECTS if site.owner_of(name) is not victim][:4]
        read_all(cache, names)
        killer = threading.Thread(target=kill)
        killer.start()
        while not killed.is_set() or reads < 2 * len(OBJECTS):
            slowest_s = max(slowest_s, read_all(cache))
            reads += len(OBJECTS)
        killer.join()
        assert slowest_s <= 2.0 + 1.0
        # Those behind the dead one in rank have brought what was its own, once.
        site.requests()
        read_all(cache)
        assert site.requests() == 0


def test_a_member_that_stands_still_holds_a_read_up_for_the_deadline_at_most(site: Site) -> None:
    with site.client(peer_timeout_s=1.0) as cache:
        read_all(cache)
        victim = site.owner_of("o00")
        victim.signal(signal.SIGSTOP)
        try:
            assert read_all(cache) <= 1.0 + 1.0
            site.requests()
            assert read_all(cache) < 1.0
            assert site.requests() == 0
        finally:
            victim.signal(signal.SIGCONT)


def test_with_no_member_left_the_storage_answers(site: Site) -> None:
    with site.client(peer_timeout_s=1.0) as cache:
        read_all(cache)
        for each in site.members.all:
            each.signal(signal.SIGKILL)
        assert read_all(cache) <= 1.0 + 1.0


def test_a_member_that_comes_asks_who_had_it_before_the_storage(site: Site, tmp_path: Path) -> None:
    with site.client() as cache:
        site.members.tell(site.members.all[:-1])
        read_all(cache)
        site.members.tell(site.members.all)
        site.requests()
        deadline_s = time.monotonic() + PATIENCE_S
        group = site.group
        assert group is not None
        while group.ring is None or group.ring.epoch < site.members.epoch:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        read_all(cache)
        assert site.requests() == 0
        assert group.status()["counters"]["failures"] == 0


def test_a_group_pickles_without_what_belongs_to_a_process(site: Site) -> None:
    with site.client() as cache:
        read_all(cache)
        group = pickle.loads(pickle.dumps(site.group))
        assert group.rings.ring is None
        assert group.is_elsewhere("d", "o00", 0)
        group.close()
        assert not group.is_elsewhere("d", "o00", 0)
        assert counters(cache)["peer_bytes"] > 0

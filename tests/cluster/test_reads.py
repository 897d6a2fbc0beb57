"""Reads through a group of real members: cold, warm, from workers, and while members die or stand still."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from tests.cluster._members import PATIENT, ServedMember
from tests.cluster._site import (
    BOUNDED_S,
    OBJECTS,
    PATIENCE_S,
    Client,
    Site,
    read_all,
    run,
    running,
    wait_until,
)
from tests.integration._sites import counters

CLIENTS = 5


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A group whose members stay as they are; all that there is has been read."""
    with running(tmp_path_factory.mktemp("group")) as site:
        with site.client().open() as cache:
            read_all(cache)
        site.requests()
        yield site


def read_all_and_exit(cache: Cache, barrier: Any, number: int) -> None:
    barrier.wait(PATIENCE_S)
    names = list(OBJECTS)
    read_all(cache, names[number * 5 :] + names[: number * 5])
    cache.close()
    os._exit(0)


def open_read_and_exit(client: Client, barrier: Any, number: int) -> None:
    read_all_and_exit(client.open(), barrier, number)


def test_the_storage_gives_each_object_once_however_many_clients_read_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    size = sum(map(len, OBJECTS.values()))
    with running(tmp_path, how=PATIENT) as site:
        barrier = spawn.Barrier(CLIENTS)
        clients = [site.client() for _ in range(CLIENTS)]
        run(
            [
                spawn.Process(target=open_read_and_exit, args=(client, barrier, number))
                for number, client in enumerate(clients)
            ]
        )
        from_server = site.proxy.stats()["bytes_to_client"]
        from_source = 0
        hosts: list[ServedMember | Client] = [*site.members.all, *clients]
        for each in hosts:
            with each.open() as cache:
                from_source += counters(cache)["source_bytes"]
    assert from_source == size
    # By the server's side of it too: beside the bytes there are heads of answers and listings.
    assert size <= from_server < 1.2 * size


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_process_read_through_the_group(site: Site, method: str) -> None:
    context = multiprocessing.get_context(method)
    with site.client().open() as cache:
        read_all(cache)
        site.requests()
        barrier = context.Barrier(3)
        run(
            [
                context.Process(target=read_all_and_exit, args=(cache, barrier, number))  # type: ignore[attr-defined]
                for number in range(3)
            ]
        )
        read_all(cache)
        assert site.requests() == 0


def test_workers_that_are_forked_before_anything_was_read_read_through_the_group(site: Site) -> None:
    context = multiprocessing.get_context("fork")
    with site.client().open() as first, site.client().open() as cache:
        read_all(first)
        site.requests()
        barrier = context.Barrier(2)
        run([context.Process(target=read_all_and_exit, args=(cache, barrier, number)) for number in range(2)])
        assert site.requests() == 0


def test_a_client_that_comes_or_is_killed_moves_nothing(site: Site) -> None:
    spawn = multiprocessing.get_context("spawn")
    group = site.client().group()
    with site.client().open(group) as cache:
        read_all(cache)
        before = group.ring
        barrier = spawn.Barrier(2)
        other = spawn.Process(target=open_read_and_exit, args=(site.client(), barrier, 0))
        other.start()
        barrier.wait(PATIENCE_S)
        site.requests()
        other.kill()
        other.join(PATIENCE_S)
        read_all(cache)
        assert site.requests() == 0
        assert group.ring is not None
        assert before is not None
        assert group.ring.digest() == before.digest()


def test_a_group_pickles_without_what_belongs_to_a_process(site: Site) -> None:
    group = site.client().group()
    assert group.is_elsewhere("d", "o00", 0)
    copy = pickle.loads(pickle.dumps(group))
    assert copy.rings.ring is None
    assert copy.is_elsewhere("d", "o00", 0)
    copy.close()
    group.close()


def test_a_member_that_stands_still_holds_a_read_up_for_the_deadline_at_most(site: Site) -> None:
    victim = site.owner_of("o00")
    with site.client(peer_timeout_s=1.0).open() as cache:
        read_all(cache)
        victim.signal(signal.SIGSTOP)
        try:
            # How long it takes is measured by perf/; here, that it goes on at all.
            assert read_all(cache) <= PATIENCE_S

            # Those behind it in rank have what was its own from then on, and it is asked by no read.
            site.wait_until_free(cache)
        finally:
            victim.signal(signal.SIGCONT)


def test_no_read_fails_when_members_are_killed_in_the_middle(tmp_path: Path) -> None:
    with running(tmp_path) as site, site.client(peer_timeout_s=1.0).open() as cache:
        victim = site.owner_of("o00")
        read_all(cache)
        killed = threading.Event()

        def kill() -> None:
            victim.signal(signal.SIGKILL)
            killed.set()

        killer = threading.Thread(target=kill)
        killer.start()
        slowest_s = read_all(cache)
        while not killed.is_set():
            slowest_s = max(slowest_s, read_all(cache))
        killer.join()
        slowest_s = max(slowest_s, read_all(cache))
        assert slowest_s <= BOUNDED_S
        # Those behind the dead one in rank have all that was its own.
        site.wait_until_free(cache)
        for each in site.members.all:
            each.signal(signal.SIGKILL)
        assert read_all(cache) <= BOUNDED_S


def test_a_member_that_comes_asks_who_had_it_before_the_storage(tmp_path: Path) -> None:
    with running(tmp_path, 2, PATIENT) as site:
        group = site.client().group()
        with site.client().open(group) as cache:
            read_all(cache)
            site.members.add()
            wait_until(lambda: group.ring is not None and len(group.ring) == 3)
            site.requests()
            read_all(cache)
            assert site.requests() == 0
            assert group.status()["counters"]["failures"] == 0
            came = site.members.all[-1]
            assert any(site.owner_of(name) is came for name in OBJECTS)

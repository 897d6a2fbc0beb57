"""What concerns all members reaches all: loads, pins, frees, settings; also when one dies or was away."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.peer.settings import follower
from forebay.testing.faults import Fault
from tests.cluster._members import BLOCK, GROUP, ServedMember
from tests.cluster._site import OBJECTS, PATIENCE_S, Client, Site, read_all, run, running, wait_until

FORKS = 10
SIZE = sum(map(len, OBJECTS.values()))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path, 3) as site:
        yield site


def load(site: Site, client: Client, *options: str) -> subprocess.Popen[str]:
    """Begin ``forebay load`` at a client."""
    command = [sys.executable, "-m", "forebay", "load", "d", "--json", "--cache-dir", str(client.folder)]
    environ = os.environ | {
        "FOREBAY_GROUP": GROUP,
        "FOREBAY_PEERS": ",".join(site.members.seeds),
        "FOREBAY_BLOCK_BYTES": str(BLOCK),
    }
    command += ["--tier", f"{client.tier}:16M:MEM", *options]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def cached_bytes(members: list[ServedMember]) -> int:
    found = 0
    for each in members:
        with each.open() as cache:
            found += cache.usage("d").cached_bytes
    return found


def at_all(site: Site, look: Callable[[Cache], object]) -> list[object]:
    found = []
    for each in site.members.all:
        with each.open() as cache:
            found.append(look(cache))
    return found


def test_a_load_loses_nothing_when_a_member_is_killed_in_the_middle(site: Site) -> None:
    client = site.client(peer_timeout_s=1.0)
    with client.open():
        victim = site.members.all[2]
        left = site.members.all[:2]
        # The last of its objects comes to no end, so that the load has not ended when it is killed.
        last = [name for name in OBJECTS if site.owner_of(name) is victim][-1]
        site.proxy.set_faults([Fault("cut", match=f"GET /bucket/{last}", times=1)])
        loading = load(site, client, "--rate-limit", "2MiB")
        wait_until(lambda: cached_bytes([victim]) > 0)
        assert loading.poll() is None
        victim.signal(signal.SIGKILL)
        site.proxy.set_faults([])
        said, errors = loading.communicate(timeout=PATIENCE_S)
        assert loading.returncode == 0, errors
        assert json.loads(said)["state"] == "done"
        assert cached_bytes(left) >= SIZE
        assert site.cost_of_reading() == 0


def test_a_load_brings_each_object_once_and_all_members_have_a_share(site: Site) -> None:
    client = site.client()
    with client.open() as cache:
        loading = load(site, client)
        _, errors = loading.communicate(timeout=PATIENCE_S)
        assert loading.returncode == 0, errors
        assert cached_bytes(site.members.all) == SIZE
        assert all(cached_bytes([each]) > 0 for each in site.members.all)
        shares = cache.locate("d")
        assert sum(shares.values()) == pytest.approx(1.0)
        read_all(cache)
        assert cache.pin("d") == sum(-(-len(data) // BLOCK) for data in OBJECTS.values())
        # In the end: what is told of settings between members may come behind the command itself.
        wait_until(lambda: at_all(site, lambda at: bool(at.policy("d").pin)) == [True] * 3)
        cache.unpin("d")
        wait_until(lambda: at_all(site, lambda at: bool(at.policy("d").pin)) == [False] * 3)
        cache.ttl("d", 3600)
        wait_until(lambda: at_all(site, lambda at: at.policy("d").ttl_s) == [3600.0] * 3)
        cache.free("d")
        assert cached_bytes(site.members.all) == 0


def test_a_load_with_copies_has_them_made_as_blocks_come(site: Site) -> None:
    loading = load(site, site.client(), "--replicas", "2")
    _, errors = loading.communicate(timeout=PATIENCE_S)
    assert loading.returncode == 0, errors
    wait_until(lambda: at_all(site, lambda at: at.policy("d").replicas) == [2] * 3)
    wait_until(lambda: cached_bytes(site.members.all) == 2 * SIZE)


def test_settings_reach_all_members_and_one_that_was_away(site: Site) -> None:
    away, *there = site.members.all
    away.signal(signal.SIGKILL)
    with there[0].open() as cache:
        cache.attach("later", "s3://bucket", endpoint_url=site.proxy.url, max_age=None)
    wait_until(lambda: "later" in datasets(there[1]))
    away.restart()
    wait_until(lambda: "later" in datasets(away))
    with there[1].open() as cache:
        cache.detach("later")
    wait_until(lambda: all("later" not in datasets(each) for each in site.members.all))


def test_a_client_has_what_is_attached_and_said_at_a_member(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "PULL_EVERY_S", 0.2)
    first = site.members.all[0]
    group = site.client().group()
    with first.open() as at, site.client().open_bare(group) as cache:
        # Without a word at the client itself.
        read_all(cache)
        at.replicas("d", 2)
        wait_until(lambda: cache.policy("d").replicas == 2)
        at.attach("later", "s3://bucket", endpoint_url=site.proxy.url, max_age=None)
        wait_until(lambda: "later" in {dataset.name for dataset in cache.datasets()})
        with cache.read("later/o00") as view:
            assert bytes(view) == OBJECTS["o00"]


def test_children_read_that_are_forked_while_settings_are_asked_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "PULL_EVERY_S", 0.0)
    context = multiprocessing.get_context("fork")
    with site.client().open() as cache:
        read_all(cache)
        for _ in range(FORKS):
            run([context.Process(target=read_and_exit, args=(cache,)) for _ in range(2)])


def read_and_exit(cache: Cache) -> None:
    read_all(cache, list(OBJECTS)[:5])
    cache.close()
    os._exit(0)


def datasets(member: ServedMember) -> set[str]:
    with member.open() as cache:
        return {dataset.name for dataset in cache.datasets()}

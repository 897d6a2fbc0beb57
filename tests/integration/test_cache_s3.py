"""The cache over a real S3 server behind the counting proxy, from one process and from several."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotFound, UnderStorageError
from forebay.testing.faults import Fault
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server
from tests.integration._sites import PATIENCE_S, log_in, proxy_of, write_files

BLOCK = 256 * KIB
SIZES = {
    "empty": 0,
    "one": 1,
    "small": 100 * KIB,
    "block": BLOCK,
    "sub/block+1": BLOCK + 1,
    "sub/shard": 10 * BLOCK + 7,
}


@dataclass
class Site:
    """A bucket of known objects behind a proxy, and a place for a cache."""

    objects: dict[str, bytes]
    folder: Path
    proxy: Proxy
    cache_dir: Path
    tier_dir: Path

    def open(self) -> Cache:
        cache = Cache(self.cache_dir, [Tier(str(self.tier_dir), 64 * MIB, "MEM")], block_bytes=BLOCK)
        if not cache.datasets():
            cache.attach("d", "s3://bucket/pre", endpoint_url=self.proxy.url, max_age=None)
        self.proxy.stats(reset=True)
        return cache

    def requests(self) -> dict[str, int]:
        return dict(self.proxy.stats(reset=True)["requests_by_method"])


@pytest.fixture
def site(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    objects = {name: os.urandom(size) for name, size in SIZES.items()}
    folder = tmp_path / "buckets/bucket/pre"
    write_files(folder, objects)
    with S3Server(tmp_path / "buckets", live=True) as server:
        log_in(server, monkeypatch)
        with proxy_of(server) as proxy:
            yield Site(objects, folder, proxy, tmp_path / "cache", memory_path)


def test_cold_is_one_request_an_object_and_warm_none(site: Site) -> None:
    with site.open() as cache:
        for name in ("one", "small", "block"):
            assert cache.read(f"d/{name}") == site.objects[name]
        assert site.requests() == {"GET": 3}
        # Its blocks lie side by side, and are joined.
        assert cache.read("d/sub/shard") == site.objects["sub/shard"]
        assert site.requests() == {"GET": 1}
        # An empty object has no range to ask for; what it is may take a second request.
        assert cache.read("d/empty") == b""
        assert site.requests() in ({"GET": 1}, {"GET": 1, "HEAD": 1})
        assert cache.read("d/sub/block+1") == site.objects["sub/block+1"]
        assert site.requests() == {"GET": 1}
        for name, data in site.objects.items():
            assert cache.read(f"d/{name}") == data
        assert site.requests() == {}


def test_a_listing_makes_every_first_read_one_conditional_get(site: Site) -> None:
    with site.open() as cache:
        assert cache.listdir("d") == ["block", "empty", "one", "small", "sub"]
        assert cache.listdir("d/sub") == ["block+1", "shard"]
        assert site.requests() == {"GET": 2}
        for name, data in site.objects.items():
            assert cache.read(f"d/{name}") == data
        assert site.requests() == {"GET": len([data for data in site.objects.values() if data])}


def test_ranges_fetch_only_their_blocks(site: Site) -> None:
    data = site.objects["sub/shard"]
    with site.open() as cache:
        assert cache.read("d/sub/shard", 5 * BLOCK + 10, 100) == data[5 * BLOCK + 10 : 5 * BLOCK + 110]
        assert site.requests() == {"GET": 1}
        # The third of its blocks is cached, the other two are joined; of the next, one lies beyond it.
        assert cache.read("d/sub/shard", 4 * BLOCK - 1, BLOCK + 2) == data[4 * BLOCK - 1 : 5 * BLOCK + 1]
        assert site.requests() == {"GET": 1}
        assert cache.read("d/sub/shard", 2 * BLOCK, 5 * BLOCK) == data[2 * BLOCK : 7 * BLOCK]
        assert site.requests() == {"GET": 2}
        buffer = bytearray(2 * BLOCK)
        assert cache.readinto("d/sub/shard", buffer, 9 * BLOCK) == BLOCK + 7
        assert buffer[: BLOCK + 7] == data[9 * BLOCK :]
        assert site.requests() == {"GET": 1}


def test_read_many_fetches_together(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in site.objects if name != "sub/shard"]
    together = threading.Barrier(len(names))

    def wait_for_the_others(first_line: str) -> None:
        if first_line.startswith("GET"):
            together.wait(60)

    with site.open() as cache:
        monkeypatch.setattr(site.proxy.plan, "draw", wait_for_the_others)
        views = cache.read_many([f"d/{name}" for name in names])
        assert [bytes(view) for view in views] == [site.objects[name] for name in names]


def test_an_object_that_changed_is_read_whole_in_its_new_version(site: Site) -> None:
    new = os.urandom(10 * BLOCK + 7)
    with site.open() as cache:
        cache.read("d/sub/shard", 0, 10).release()
        (site.folder / "sub/shard").write_bytes(new)
        assert cache.read("d/sub/shard", 0, 10) == site.objects["sub/shard"][:10]
        assert cache.read("d/sub/shard") == new


def test_absent_forbidden_and_gone_buckets_differ(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with site.open() as cache:
        with pytest.raises(NotFound, match="s3://bucket/pre/none"):
            cache.read("d/none")
        with pytest.raises(UnderStorageError, match="bucket 'no-such-bucket' does not exist"):
            cache.attach("e", "s3://no-such-bucket", endpoint_url=site.proxy.url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with site.open() as cache, pytest.raises(PermissionError):
        cache.read("d/one")


def test_nothing_secret_is_kept_or_pickled(site: Site) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    with site.open() as cache:
        cache.read("d/small").release()
        assert secret not in pickle.dumps(cache)
        assert secret not in repr(cache.status()).encode()
    kept = [path for path in site.cache_dir.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        # Maps are sparse and address space, not size: whole files can be read.
        assert secret not in path.read_bytes(), path


def test_a_flaky_server_gives_right_bytes_all_the_same(site: Site) -> None:
    with site.open() as cache:
        site.proxy.set_faults(
            [
                Fault("reset", after_bytes=5, match="shard", times=1),
                Fault("status", status=503, match="shard", times=1),
                Fault("truncate", after_bytes=5, match="shard", times=1),
            ]
        )
        assert cache.read("d/sub/shard") == site.objects["sub/shard"]
        assert site.proxy.stats()["faults"] == 3


# None is passed by because a busy machine let it stand still: what is fetched is counted.
READER = f"""
import hashlib, sys
from forebay.cache import Cache
from forebay.meta import entries
entries._PATIENCE_S = {PATIENCE_S}
with Cache(sys.argv[1], stall_timeout_s={PATIENCE_S}) as cache:
    print("ready", flush=True)
    for line in sys.stdin:
        with cache.read(line.strip()) as view:
            print(hashlib.sha256(view).hexdigest(), flush=True)
"""


class Reader:
    """A process that reads the paths that it is told, and answers with their hashes."""

    def __init__(self, site: Site) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER, str(site.cache_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

    def ask(self, path: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(path + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


@pytest.fixture
def readers(site: Site) -> Iterator[Callable[[int], list[Reader]]]:
    started: list[Reader] = []

    def start(count: int) -> list[Reader]:
        new = [Reader(site) for _ in range(count)]
        started.extend(new)
        return new

    yield start
    for reader in started:
        reader.end(kill=True)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_many_processes_that_miss_fetch_once(site: Site, readers: Callable[[int], list[Reader]]) -> None:
    site.open().close()
    crowd = readers(8)
    site.requests()
    site.proxy.set_faults([Fault("delay", delay_s=0.2)])
    for name in ("small", "sub/shard"):
        for reader in crowd:
            reader.ask(f"d/{name}")
        assert {reader.answer() for reader in crowd} == {digest(site.objects[name])}
    assert site.requests() == {"GET": 2}


def test_a_killed_fetcher_is_taken_over_from(site: Site, readers: Callable[[int], list[Reader]]) -> None:
    site.open().close()
    first, second = readers(2)
    site.proxy.set_faults([Fault("cut", after_bytes=1_000, times=1)])
    first.ask("d/block")
    deadline_s = time.monotonic() + 30
    while site.proxy.stats()["faults"] == 0 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    second.ask("d/block")
    start_s = time.monotonic()
    first.end(kill=True)
    assert second.answer() == digest(site.objects["block"])
    # At once, and not as from one that stands still.
    assert time.monotonic() - start_s < PATIENCE_S / 2


def test_warm_after_every_process_was_killed(site: Site, readers: Callable[[int], list[Reader]]) -> None:
    site.open().close()
    for kill in (True, False):
        crowd = readers(2)
        for reader in crowd:
            for name in site.objects:
                reader.ask(f"d/{name}")
            assert [reader.answer() for _ in site.objects] == [digest(data) for data in site.objects.values()]
        for reader in crowd:
            reader.end(kill=kill)
        assert site.requests() == ({"GET": len(SIZES), "HEAD": 1} if kill else {})


def read_in_worker(cache: Cache, names: list[str]) -> list[str]:
    with cache:
        return [digest(bytes(cache.read(f"d/{name}"))) for name in names]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_get_the_cache_as_an_argument(site: Site, method: str) -> None:
    names = list(site.objects)
    # One that an earlier test has started has no credentials in its environment.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    with site.open() as cache, multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(read_in_worker, [(cache, names)] * 2)
        assert results == [[digest(data) for data in site.objects.values()]] * 2
        site.requests()
        assert cache.read("d/sub/shard") == site.objects["sub/shard"]
        assert site.requests() == {}


def test_a_fork_during_a_fetch(site: Site) -> None:
    """The child neither waits for its parent's threads nor uses their connections."""
    with site.open() as cache:
        cache.read("d/one").release()
        site.proxy.set_faults([Fault("delay", after_bytes=1_000, delay_s=0.5, match="shard")])
        fetching = threading.Thread(target=cache.read, args=("d/sub/shard",))
        fetching.start()
        deadline_s = time.monotonic() + 30
        while site.proxy.stats()["faults"] == 0 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                right = all(cache.read(f"d/{name}") == data for name, data in site.objects.items())
                code = 0 if right else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        fetching.join()
        assert cache.read("d/sub/shard") == site.objects["sub/shard"]

"""Single flight over processes: each block is fetched once a host, whoever dies or stands still meanwhile."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.testing.faults import Fault
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server

BLOCK = 64 * KIB
OBJECTS = 200
PROCESSES = 16
ASKED_ANEW_MAX = OBJECTS // 50
WAIT_S = 120

fork = multiprocessing.get_context("fork")


@dataclass
class Site:
    """A bucket of objects of one block each, and one of many, behind a counting proxy."""

    objects: dict[str, bytes]
    proxy: Proxy
    cache: Cache

    def gets(self) -> int:
        return int(self.proxy.stats(reset=True)["requests_by_method"].get("GET", 0))


@pytest.fixture
def patience_s() -> float:
    """After how long without progress a fetcher is passed by, and a turn to write metadata given up."""
    return 5.0


@pytest.fixture
def site(
    tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> Iterator[Site]:
    objects = {f"small/{number:03d}": os.urandom(20 * KIB + number) for number in range(OBJECTS)}
    objects["large"] = os.urandom(40 * BLOCK + 7)
    for name, data in objects.items():
        path = tmp_path / "buckets/bucket" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    monkeypatch.setattr("forebay.meta.entries._PATIENCE_S", patience_s)
    with S3Server(tmp_path / "buckets") as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        host, port = server.address.split(":")
        with (
            Proxy((host, int(port))) as proxy,
            Cache(
                tmp_path / "cache",
                [Tier(str(memory_path), 64 * MIB, "MEM")],
                block_bytes=BLOCK,
                stall_timeout_s=patience_s,
            ) as cache,
        ):
            cache.attach("d", "s3://bucket", endpoint_url=proxy.url, max_age=None)
            proxy.stats(reset=True)
            yield Site(objects, proxy, cache)


def start(target: Callable[[], bool]) -> BaseProcess:
    """Run in a forked child, whose exit code says whether target returned True."""

    def run() -> None:
        os._exit(0 if target() else 1)

    process = fork.Process(target=run)
    process.start()
    return process


def end(process: BaseProcess) -> None:
    process.join(WAIT_S)
    assert process.exitcode == 0


def read_all(site: Site, barrier: Barrier) -> bool:
    names = [name for name in site.objects if name != "large"]
    barrier.wait(WAIT_S)
    views = site.cache.read_many([f"d/{name}" for name in names])
    return all(view == site.objects[name] for name, view in zip(names, views, strict=True))


# Sixteen on a busy machine: one that waits for its turn is not to be taken for one that stands still.
@pytest.mark.parametrize("patience_s", [60.0])
@pytest.mark.parametrize("listed", [False, True])
def test_sixteen_processes_that_miss_the_same_blocks_fetch_each_once(site: Site, listed: bool) -> None:
    if listed:
        assert len(site.cache.listdir("d/small")) == OBJECTS
        site.gets()
    barrier = fork.Barrier(PROCESSES)
    crowd = [start(lambda: read_all(site, barrier)) for _ in range(PROCESSES)]
    for process in crowd:
        end(process)
    gets, counters = site.gets(), site.cache.status()["counters"]
    # A connection that breaks is asked over anew, and of who gets no processor for long it cannot be told
    # whether it goes on: both are rare. Who does not share at all asks 16 times as often.
    for count in (gets, counters["source_requests"]):
        assert OBJECTS <= count <= OBJECTS + ASKED_ANEW_MAX, counters


@pytest.mark.parametrize("patience_s", [60.0])
def test_many_processes_that_stream_one_large_file_fetch_it_once(site: Site) -> None:
    site.cache.stat("d/large")
    site.gets()
    barrier = fork.Barrier(6)

    def stream() -> bool:
        digest = hashlib.sha256()
        barrier.wait(WAIT_S)
        with site.cache.open("d/large") as file:
            while part := file.read(BLOCK // 2):
                digest.update(part)
        return digest.digest() == hashlib.sha256(site.objects["large"]).digest()

    for process in [start(stream) for _ in range(6)]:
        end(process)
    assert site.gets() <= 41
    assert site.cache.status()["counters"]["source_bytes"] == len(site.objects["large"])


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("name", ["small/000", "large"])
def test_a_fetcher_that_is_killed_or_stopped_is_passed_by(site: Site, name: str, signal_number: int) -> None:
    site.cache.stat(f"d/{name}")
    site.proxy.stats(reset=True)
    site.proxy.set_faults([Fault("delay", after_bytes=1_000, delay_s=WAIT_S, times=1)])
    first = start(lambda: site.cache.read(f"d/{name}") == site.objects[name])
    deadline_s = time.monotonic() + WAIT_S
    while site.proxy.stats()["faults"] == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert first.pid is not None
    os.kill(first.pid, signal_number)
    try:
        start_s = time.monotonic()
        assert site.cache.read(f"d/{name}") == site.objects[name]
        # One that stands still is given five seconds, and not the two minutes that the answer takes.
        assert time.monotonic() - start_s < WAIT_S / 2
    finally:
        first.kill()
        first.join()
    assert site.cache.read(f"d/{name}") == site.objects[name]
    assert site.cache.check().ok

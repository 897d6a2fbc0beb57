"""Processes that share a cache, struck while one of them fetches: killed, stopped, interrupted, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from forebay.cache import Cache
from forebay.cache.blocks import PART_BYTES
from forebay.config import MIB, Tier
from forebay.errors import Closed
from forebay.testing.faulty import FaultyStorage
from tests._s3 import FakeS3, give_keys
from tests.faults._child import DEADLINE_S, wait_until
from tests.faults._source import BLOCK, TIMEOUT_S, Reader, Site, content

STALL_S: Final = 0.5
# Over what a test waits for on purpose: steps of 100 ms, and a machine that others use as well.
SLACK_S: Final = 20.0

SIZES: Final = {"one": 1, "small": 1_000, "blocks": 3 * BLOCK + 5, "other": 2_000}


@pytest.fixture
def site(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    give_keys(monkeypatch)
    with FakeS3() as server:
        server.objects.update({key: content(key, size) for key, size in SIZES.items()})
        site = Site(server, tmp_path / "cache", memory_path)
        site.open().close()
        server.requests.clear()
        yield site


@pytest.mark.parametrize("key", ["small", "blocks"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_another_takes_over_from_who_was_fetching(site: Site, key: str, how: str) -> None:
    options = {"stall_timeout_s": STALL_S}
    with Reader(site, **options) as first, Reader(site, **options) as second, site.gate(key) as gate:
        first.begin(f"d/{key}")
        assert gate.reached.wait(SLACK_S)
        second.begin(f"d/{key}")
        begun_s = time.monotonic()
        first.kill() if how == "killed" else first.stop()
        assert second.receive() == site.server.objects[key]
        assert time.monotonic() - begun_s < STALL_S + SLACK_S
        gate.opened.set()
        if how == "stopped":
            first.resume()
            assert first.receive() == site.server.objects[key]
            first.end()
        assert second.read(f"d/{key}") == site.server.objects[key]
        second.end()


@pytest.mark.parametrize("key", ["small", "blocks"])
@pytest.mark.parametrize("is_range_known", [False, True])
def test_an_interrupt_ends_a_read_at_once_and_the_cache_goes_on(
    site: Site, key: str, is_range_known: bool
) -> None:
    with Reader(site) as child, site.gate(key) as gate:
        if is_range_known:
            # From the second on, another client makes the requests.
            assert child.read("d/one") == site.server.objects["one"]
        child.begin(f"d/{key}")
        assert gate.reached.wait(SLACK_S)
        begun_s = time.monotonic()
        os.kill(child.pid, signal.SIGINT)
        assert isinstance(child.receive(), KeyboardInterrupt)
        assert time.monotonic() - begun_s < SLACK_S
        # Not held up by what the interrupted read had begun.
        assert child.read("d/other") == site.server.objects["other"]
        assert child.read(f"d/{key}") == site.server.objects[key]
        assert time.monotonic() - begun_s < 2 * SLACK_S
        # Nor is closing by what nobody waits for any more: the server is still silent.
        begun_s = time.monotonic()
        child.end()
        assert time.monotonic() - begun_s < TIMEOUT_S / 2


PROGRAM: Final = """
import forebay, sys
with forebay.open(sys.argv[1], block_bytes=int(sys.argv[2])) as cache:
    for path in sys.argv[3:]:
        cache.read(path).release()
"""


@pytest.mark.parametrize("paths", [["d/blocks"], ["d/one", "d/small"]])
def test_an_interrupted_program_ends_while_the_server_is_silent(site: Site, paths: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, str(site.cache_dir), str(BLOCK), *paths]
    with site.gate(paths[-1].removeprefix("d/")) as gate:
        program = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            assert gate.reached.wait(DEADLINE_S)
            begun_s = time.monotonic()
            program.send_signal(signal.SIGINT)
            _, words = program.communicate(timeout=DEADLINE_S)
            assert time.monotonic() - begun_s < TIMEOUT_S / 2
        finally:
            program.kill()
    assert words.rstrip().endswith(b"KeyboardInterrupt"), words
    assert program.returncode == -signal.SIGINT
    with site.open() as cache:
        assert cache.check().ok
        assert bytes(cache.read(paths[-1])) == site.server.objects[paths[-1].removeprefix("d/")]


def test_closing_tells_readers_of_other_threads_that_wait_for_a_silent_source(
    tmp_path: Path, memory_path: Path
) -> None:
    reached, opened = threading.Semaphore(0), threading.Event()

    def stall() -> None:
        reached.release()
        opened.wait(DEADLINE_S)

    storage = FaultyStorage({"a": bytes(3 * PART_BYTES)})
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, schemes=storage.schemes()) as cache, ThreadPoolExecutor(1) as pool:
        cache.attach("d", "faulty://x", max_age=None)
        cache.listdir("d")
        storage.script("readinto", *[stall] * 3)
        read = pool.submit(cache.read, "d/a")
        for _ in range(3):
            assert reached.acquire(timeout=DEADLINE_S)
        cache.close()
        with pytest.raises(Closed):
            read.result(DEADLINE_S)
        opened.set()


def test_an_interrupt_while_another_fetches(site: Site) -> None:
    # Longer than it takes: whoever waits for so long fetches for itself.
    options = {"stall_timeout_s": DEADLINE_S}
    with (
        Reader(site, **options) as first,
        Reader(site, **options) as second,
        site.gate("small") as gate,
        site.open() as cache,
    ):
        first.begin("d/small")
        assert gate.reached.wait(SLACK_S)
        second.begin("d/small")
        wait_until(lambda: cache.status()["counters"]["flight_waits"], "the second waits")
        begun_s = time.monotonic()
        os.kill(second.pid, signal.SIGINT)
        assert isinstance(second.receive(), KeyboardInterrupt)
        assert time.monotonic() - begun_s < SLACK_S
        gate.opened.set()
        assert first.receive() == second.read("d/small") == site.server.objects["small"]
        for child in (first, second):
            child.end()
        assert site.gets("small") == 1


@pytest.mark.parametrize("size", [1_000, 3 * BLOCK, 3 * PART_BYTES])
def test_after_an_interrupt_the_buffer_is_the_callers_alone(
    tmp_path: Path, memory_path: Path, size: int
) -> None:
    opened = threading.Event()

    def interrupt() -> None:
        # A signal that comes just before the main thread blocks is not heard until something wakes it.
        main = threading.main_thread().ident or 0
        wait_until(
            lambda: sys._current_frames()[main].f_code.co_filename == threading.__file__, "the reader waits"
        )
        signal.pthread_kill(main, signal.SIGINT)
        opened.wait(DEADLINE_S)

    storage = FaultyStorage({"a": b"x" * size})
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, schemes=storage.schemes(), block_bytes=BLOCK) as cache:
        cache.attach("d", "faulty://x", max_age=None)
        cache.listdir("d")
        storage.script("readinto", interrupt)
        buffer = bytearray(size)
        with pytest.raises(KeyboardInterrupt):
            cache.readinto("d/a", buffer)
        buffer[:] = bytes(size)
        opened.set()
        wait_until(lambda: not cache.status()["fetch"]["in_flight"], "what was given up ends")
        assert buffer == bytes(size)
        assert cache.readinto("d/a", buffer) == size
        assert buffer == b"x" * size

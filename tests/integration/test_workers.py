"""Workers of every start method on one cache, as data loaders run them: persistent, killed, many at once."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.testing.faulty import FaultyStorage
from forebay.testing.s3 import S3Server
from tests.integration import _workers
from tests.integration._sites import OpenCache, proxy_of, write_files

METHODS = ["fork", "spawn", "forkserver"]
ASKED_ANEW_MAX = _workers.OBJECTS // 50


def run_workers(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    command = [sys.executable, str(Path(_workers.__file__)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def fill(folder: Path) -> None:
    """Write the objects that the script expects."""
    numbers = range(_workers.OBJECTS)
    write_files(folder, {_workers.name_of(number): _workers.content(number) for number in numbers})


@pytest.mark.parametrize("how", ["persistent", "killed", "leaving"])
@pytest.mark.parametrize("method", METHODS)
def test_workers_share_the_cache(method: str, how: str, tmp_path: Path, memory_path: Path) -> None:
    fill(tmp_path / "data")
    done = run_workers(method, how, str(tmp_path / "cache"), str(memory_path), (tmp_path / "data").as_uri())
    assert (done.returncode, done.stderr) == (0, "")
    # Whoever comes next finds it in order.
    with Cache(tmp_path / "cache") as cache:
        assert cache.read(f"d/{_workers.name_of(3)}") == _workers.content(3)
        assert cache.status()["rows"]["used"] == 1
        assert cache.check().ok


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_sixteen_that_miss_the_same_200_blocks_ask_200_times(
    method: str, tmp_path: Path, memory_path: Path, s3_server: S3Server
) -> None:
    fill(tmp_path / "buckets/bucket")
    with proxy_of(s3_server) as proxy:
        done = run_workers(
            method, "crowd", str(tmp_path / "cache"), str(memory_path), "s3://bucket", proxy.url
        )
        assert (done.returncode, done.stderr) == (0, "")
        gets = proxy.stats()["requests_by_method"]["GET"] - listings_of_attach()
        # A connection that breaks is asked over anew; who does not share at all asks 16 times as often.
        assert _workers.OBJECTS <= gets <= _workers.OBJECTS + ASKED_ANEW_MAX


def listings_of_attach() -> int:
    """Return how many GETs tell whether the bucket is there: one page of its list."""
    return 1


def test_forks_while_other_threads_use_the_metadata(open_cache: OpenCache, tmp_path: Path) -> None:
    objects = {f"{number}": b"%d" % number * 1_000 for number in range(50)}
    write_files(tmp_path / "data", objects)
    cache = open_cache()
    cache.attach("d", (tmp_path / "data").as_uri(), max_age=0)
    over = threading.Event()
    errors: list[BaseException] = []

    def use() -> None:
        try:
            while not over.is_set():
                cache.sync("d")
                for name, data in objects.items():
                    assert cache.read(f"d/{name}") == data
        except BaseException as error:  # noqa: BLE001  (shown by the main thread)
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    right = all(cache.read(f"d/{name}") == data for name, data in objects.items())
                    code = 0 if right and cache.listdir("d") == sorted(objects) else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_closed_cache_holds_no_descriptor(tmp_path: Path, memory_path: Path, open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"1"})
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    cache.read("d/a").release()
    cache.stat("d/a")
    cache.close()
    gc.collect()
    # What is open of earlier tests may be closed meanwhile.
    assert set(os.listdir("/proc/self/fd")) <= before

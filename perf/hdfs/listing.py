"""webhdfs_list: LISTSTATUS of a directory of 100,000 entries that the cache knows, and the same by pages.

The entries are those of a listing double. The time ends with the whole answer in hand; it is parsed and
compared afterwards. Memory is watched while further listings run, for watching takes time.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import forebay
from perf import memory, workload
from perf.harness import Case, Contender, Outcome, compare, interleave, within_limit
from perf.hdfs.clients import connected, get
from perf.hdfs.servers import PREFIX, HttpServer, gateway
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET
from perf.system.keys import SIZE_BYTES, key_of, listing_server

ROOM_BYTES = 1 << 30
LIMIT_S = 1.0
LIMIT_ENTRIES = 100_000
GROWTH_LIMIT_BYTES = 64 << 20
SAMPLE_S = 0.01
DIRECTORY = f"{PREFIX}/{DATASET}/000000"


def run(quick: bool) -> Outcome:
    """List the directory at once and by pages in turn, then watch the process."""
    load = workload.load("hdfs", quick)
    count: int = load["listed_count"]
    with memory_folder(ROOM_BYTES) as folder, listing_server(count, count, delay_ms=0) as url:
        cache_dir = _listed_cache(folder, url, load)
        with gateway(cache_dir) as server:
            before = memory.private_bytes(server.pid)
            contenders = [
                Contender("LISTSTATUS", partial(_seconds_at_once, server, count)),
                Contender("LISTSTATUS_BATCH, all pages", partial(_seconds_by_pages, server, count)),
            ]
            samples = interleave(contenders, load["list_rounds"])
            grown = [_growth(server, count) for _ in range(load["list_rounds"])]
            after = memory.private_bytes(server.pid)
    # For another number of entries the limit is what it is for one, so many times.
    limit_s = LIMIT_S * count / LIMIT_ENTRIES
    bars = [
        within_limit("LISTSTATUS of 100,000 entries / 1 s", samples["LISTSTATUS"], limit_s),
        compare(
            "LISTSTATUS_BATCH of 100,000 entries in pages of 1,000 / LISTSTATUS, time",
            samples,
            "LISTSTATUS_BATCH, all pages",
            "LISTSTATUS",
            None,
            "at most",
        ),
        within_limit("LISTSTATUS, private bytes meanwhile / 64 MiB", grown, GROWTH_LIMIT_BYTES),
    ]
    facts = {"private_bytes_before": before, "private_bytes_after": after}
    return Outcome("s", samples, bars, load, facts)


CASE = Case(
    "webhdfs_list",
    "LISTSTATUS and LISTSTATUS_BATCH of a directory of 100,000 entries by WebHDFS",
    "an object and a line of JSON for each entry",
    run,
)


def _listed_cache(folder: Path, url: str, load: dict[str, Any]) -> Path:
    """Make a cache that knows the directory."""
    tiers = [forebay.Tier(str(folder / "tier"), 64 << 20, "MEM")]
    with forebay.open(folder / "cache", tiers=tiers) as cache:
        cache.attach(DATASET, f"s3://{BUCKET}", endpoint_url=url, max_age=None)
        cache.load(DATASET, metadata_only=True).wait()
        return Path(cache.path)


def _seconds_at_once(server: HttpServer, count: int) -> float:
    with connected(server) as connection:
        started = time.perf_counter()
        text = get(connection, f"{DIRECTORY}?op=LISTSTATUS")
        seconds = time.perf_counter() - started
    _check(json.loads(text)["FileStatuses"]["FileStatus"], count)
    return seconds


def _seconds_by_pages(server: HttpServer, count: int) -> float:
    """Ask for page after page, as clients do: each behind the last name of the one before."""
    seconds, found, after, has_more = 0.0, [], "", True
    with connected(server) as connection:
        while has_more:
            started = time.perf_counter()
            text = get(connection, f"{DIRECTORY}?op=LISTSTATUS_BATCH&startAfter={quote(after)}")
            seconds += time.perf_counter() - started
            page = json.loads(text)["DirectoryListing"]
            found += page["partialListing"]["FileStatuses"]["FileStatus"]
            after, has_more = found[-1]["pathSuffix"], page["remainingEntries"] > 0
    _check(found, count)
    return seconds


def _check(found: list[dict[str, Any]], count: int) -> None:
    """Hold a listing to the keys. Raises: RuntimeError."""
    names = [each["pathSuffix"] for each in found]
    if names != [key_of(number, count).partition("/")[2] for number in range(count)]:
        raise RuntimeError(f"{len(names)} names came of {count}, or others than those")
    if any(each["length"] != SIZE_BYTES for each in found):
        raise RuntimeError("a file has another length")


def _growth(server: HttpServer, count: int) -> float:
    """Return by how much the process is larger at its largest while a listing runs."""
    before = memory.private_bytes(server.pid)
    with memory.watching_peak(server.pid, SAMPLE_S) as peak:
        _seconds_at_once(server, count)
    return float(peak[0] - before)

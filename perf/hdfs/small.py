"""webhdfs_small: OPENs of 2,000 cached 100 KiB files by 16 connections, beside nginx with the same files.

The client is wrk, with two threads. What the gateway's process takes in memory is looked at after each round.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from perf import memory, workload
from perf.harness import Case, Contender, Outcome, compare, interleave, within_limit
from perf.hdfs.clients import OPEN, connected, files_a_second, get
from perf.hdfs.files import DATASET, filled_cache, write_files
from perf.hdfs.servers import PREFIX, HttpServer, gateway, nginx
from perf.places import memory_folder

ROOM_BYTES = 1 << 30
GROWTH_LIMIT_BYTES = 8 << 20


def run(quick: bool) -> Outcome:
    """Get the files from the gateway and from nginx in turn."""
    load = workload.load("hdfs", quick)
    with memory_folder(ROOM_BYTES) as folder:
        data = folder / "data"
        names = write_files(data, load["small_count"], load["small_bytes"], load["seed"])
        with filled_cache(folder, data, load) as cache:
            cache_dir = Path(cache.path)
        before = f"{PREFIX}/{DATASET}/"
        with gateway(cache_dir) as ours, nginx(data) as theirs:
            with connected(ours) as to_ours, connected(theirs) as to_theirs:
                for name in names[::10]:
                    found = get(to_ours, f"{before}{name}{OPEN}"), get(to_theirs, f"/{name}")
                    if found != ((data / name).read_bytes(),) * 2:
                        raise RuntimeError(f"{name}: other bytes came than were asked for")
            taken: list[int] = []
            contenders = [
                Contender("gateway", partial(_rate_and_memory, ours, before, load, taken)),
                Contender("nginx", lambda: files_a_second(theirs, "/", ".bin", load)),
            ]
            samples = interleave(contenders, load["open_rounds"])
    # The first was the warm-up's: connections, threads and tables were made in it.
    grown = float(taken[-1] - taken[0])
    answers = sum(samples["gateway"]) * load["open_seconds"]
    bars = [
        compare("WebHDFS OPENs of 100 KiB, 16 connections / nginx", samples, "gateway", "nginx", None),
        within_limit("WebHDFS, private bytes that all those OPENs add / 8 MiB", [grown], GROWTH_LIMIT_BYTES),
    ]
    facts = {"private_bytes": taken, "answers": round(answers)}
    return Outcome("files/s", samples, bars, load, facts)


CASE = Case(
    "webhdfs_small",
    "OPENs of 2,000 cached files of 100 KiB by WebHDFS, 16 connections",
    "the kernel's two copies; parsing a request and writing an answer",
    run,
)


def _rate_and_memory(server: HttpServer, before: str, load: dict[str, Any], taken: list[int]) -> float:
    rate = files_a_second(server, before, f".bin{OPEN}", load)
    taken.append(memory.private_bytes(server.pid))
    return rate

"""mount_cold: the first read of files that nobody has cached, behind 20 ms to the first byte and 200 MB/s.

Small files are read whole, of large ones the first 128 KiB: what is read ahead beyond them is not to be
waited for, neither by this read nor by the next. Names and sizes are known to every system. Beside the mounts
a bare ranged GET of the same bytes, by boto3 over a connection that is open.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.fuse.mounts import Mount
from perf.fuse.passes import first_read_s, stat_files
from perf.fuse.stage import Stage
from perf.fuse.systems import NEW_JUICEFS, OURS, SYSTEMS, all_mounted, peer_versions
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, served, write_object, write_objects
from perf.system.peers import Boto3

ROOM_BYTES = 4 << 30
GET = "ranged GET"
MEASURED = (OURS, "rclone", "s3fs", NEW_JUICEFS)
QUIET_S = 0.05  # longer than a request takes to be answered

Read = Callable[[str, int], float]  # key and bytes wanted, seconds taken


@dataclass(frozen=True)
class Files:
    """Files of one kind: what is read of each, and how many are read in a round."""

    kind: str
    keys: list[str]
    read_bytes: int
    a_round: int


def run(quick: bool) -> Outcome:
    """Read files that are cold by every system in turn."""
    load = workload.load("mount", quick)
    with (
        memory_folder(ROOM_BYTES) as folder,
        served(folder / "s3") as server,
        ProxyProcess(
            server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
        ) as proxy,
    ):
        stage = Stage(folder, server, proxy.url, load)
        small, large = _write_files(stage, load)
        _let_server_hash(stage, small.keys + large.keys)
        with all_mounted(stage, {name: SYSTEMS[name] for name in MEASURED}) as mounts:
            for mount in mounts.values():
                stat_files([str(mount.root / key) for key in small.keys + large.keys])
            reads: dict[str, Read] = {name: partial(_read, mount) for name, mount in mounts.items()}
            reads[GET] = partial(_get, Boto3(stage.endpoint_url, BUCKET))
            contenders = [
                Contender(f"{files.kind}, {name}", _ColdReads(read, files, proxy).measure)
                for files in (small, large)
                for name, read in reads.items()
            ]
            samples = interleave(contenders, load["cold_rounds"])
    bars = [
        compare(
            f"mount, {files.kind} / ranged GET",
            samples,
            f"{files.kind}, {OURS}",
            f"{files.kind}, {GET}",
            1.3,
            "at most",
        )
        for files in (small, large)
    ]
    return Outcome("s", samples, bars, load, peer_versions(MEASURED))


CASE = Case(
    "mount_cold",
    "first read of cold files through a mount, 20 ms and 200 MB/s away",
    "one request to the server",
    run,
)


class _ColdReads:
    """The reads of one system: every round takes files that it has not read before."""

    def __init__(self, read: Read, files: Files, proxy: ProxyProcess) -> None:
        self._read = read
        self._files = files
        self._proxy = proxy
        self._next = 0

    def measure(self) -> float:
        """Read the next files; returns the median, in seconds."""
        files, first = self._files, self._next
        self._next += files.a_round
        taken = []
        for key in files.keys[first : self._next]:
            self._wait_until_quiet()
            taken.append(self._read(key, files.read_bytes))
        return statistics.median(taken)

    def _wait_until_quiet(self) -> None:
        """Wait until nothing has come from the server for a while: read-ahead of the last file may go on."""
        before, now = -1, self._proxy.stats()["bytes_to_client"]
        while now != before:
            time.sleep(QUIET_S)
            before, now = now, self._proxy.stats()["bytes_to_client"]


def _write_files(stage: Stage, load: dict[str, Any]) -> tuple[Files, Files]:
    """Write the files of all rounds, that of the warm-up included."""
    rounds = load["cold_rounds"] + 1
    count = rounds * load["cold_small_count"]
    small = write_objects(stage.folder / "s3", count, load["small_bytes"], load["seed"], "small/")
    large = [f"large/{number:06}.bin" for number in range(rounds * load["cold_large_count"])]
    for number, key in enumerate(large):
        write_object(stage.folder / "s3", key, load["cold_bytes"], load["seed"] + number)
    first_kib, whole_mib = load["cold_first_bytes"] >> 10, load["cold_bytes"] >> 20
    return (
        Files(
            f"first read of a cold {load['small_bytes'] >> 10} KiB file",
            small,
            load["small_bytes"],
            load["cold_small_count"],
        ),
        Files(
            f"first {first_kib} KiB of a cold {whole_mib} MiB file",
            large,
            load["cold_first_bytes"],
            load["cold_large_count"],
        ),
    )


def _let_server_hash(stage: Stage, keys: list[str]) -> None:
    """Get all objects once: the server hashes what it serves for the first time."""
    boto = Boto3(stage.server.endpoint_url, BUCKET)
    for key in keys:
        boto.get(key)


def _read(mount: Mount, key: str, size_bytes: int) -> float:
    return first_read_s(str(mount.root / key), size_bytes)


def _get(boto: Boto3, key: str, size_bytes: int) -> float:
    started = time.perf_counter()
    count = len(boto.get_first(key, size_bytes))
    seconds = time.perf_counter() - started
    if count != size_bytes:
        raise RuntimeError(f"{key}: {count} bytes came of {size_bytes}")
    return seconds

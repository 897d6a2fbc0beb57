"""transfer: warm blocks from a member to another process, beside plain TCP and unary gRPC with the same.

Large blocks are asked for by one message in both; of small ones 64 are in flight: the next 64 are asked for
when these have come, by both. What is received into is the same memory for both, and was touched before.
Processor time is that of both processes, from the clocks that the kernel keeps of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from forebay.peer.data.client import PeerLink
from forebay.peer.data.deadline import Deadline
from forebay.remote import BlockRequest
from perf import workload
from perf.group.members import link_to, members
from perf.group.plain import PlainTcp, plain_tcp, unary_grpc
from perf.harness import Case, Outcome, Samples, collector_off, compare, turns
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, served, write_object, write_objects

ROOM_BYTES = 3 << 30
GIB = 1 << 30
MIB = 1 << 20
LARGE_KEY = "large.bin"
DEADLINE = Deadline(30.0)


@dataclass(frozen=True)
class Work:
    """Blocks to move, so many by one message, and where they lie for the plain servers."""

    requests: list[BlockRequest]
    offsets: list[int]
    buffers: list[memoryview]
    at_a_time: int

    @property
    def total_bytes(self) -> int:
        return sum(map(len, self.buffers))

    def batches(self) -> Sequence[slice]:
        return [slice(start, start + self.at_a_time) for start in range(0, len(self.buffers), self.at_a_time)]


def run(quick: bool) -> Outcome:
    """Move large and small blocks by each way in turn."""
    load = workload.load("transfer", quick)
    samples: Samples = {}
    with memory_folder(ROOM_BYTES) as folder, ExitStack() as parts:
        write_object(folder / "s3", LARGE_KEY, load["large_count"] * load["large_bytes"], load["seed"])
        keys = write_objects(folder / "s3", load["small_count"], load["small_bytes"], load["seed"], "small/")
        small_path = folder / "small"
        small_path.write_bytes(b"".join((folder / "s3" / BUCKET / key).read_bytes() for key in keys))
        server = parts.enter_context(served(folder / "s3"))
        (member,) = parts.enter_context(members(folder, 1, server.endpoint_url, load["quota_bytes"]))
        link = parts.enter_context(link_to(member))
        large_path = folder / "s3" / BUCKET / LARGE_KEY
        large_tcp = parts.enter_context(plain_tcp(large_path))
        small_tcp = parts.enter_context(plain_tcp(small_path))
        call = parts.enter_context(unary_grpc(small_path))
        large, small = _large(link, load), _small(link, keys, load)
        for work, path in ((large, large_path), (small, small_path)):
            _check(work, path, link)
        ways: list[tuple[str, int | None, int, Callable[[], None]]] = [
            ("member, 4 MiB", member.pid, large.total_bytes, partial(_by_link, link, large)),
            ("plain TCP, 4 MiB", large_tcp.pid, large.total_bytes, partial(_by_tcp, large_tcp, large)),
            ("member, 100 KiB", member.pid, small.total_bytes, partial(_by_link, link, small)),
            ("plain TCP, 100 KiB", small_tcp.pid, small.total_bytes, partial(_by_tcp, small_tcp, small)),
            ("unary gRPC, 100 KiB", None, small.total_bytes, partial(_by_grpc, call, small)),
        ]
        for (name, pid, moved_bytes, move), kept in turns(ways, load["rounds"]):
            taken_s, used_s = _timed(move, pid)
            if kept:
                samples.setdefault(f"{name}: MiB/s", []).append(moved_bytes / MIB / taken_s)
                if pid is not None:
                    samples.setdefault(f"{name}: CPU s/GiB", []).append(used_s * GIB / moved_bytes)
    in_flight = load["small_in_flight"]
    bars = [
        compare("4 MiB from a member / plain TCP", samples, *_pair("4 MiB", "MiB/s"), 0.7),
        compare(
            f"100 KiB from a member, {in_flight} in flight / plain TCP",
            samples,
            *_pair("100 KiB", "MiB/s"),
            0.6,
        ),
        compare(
            f"100 KiB from a member, {in_flight} in flight / unary gRPC",
            samples,
            "member, 100 KiB: MiB/s",
            "unary gRPC, 100 KiB: MiB/s",
            4,
        ),
        compare(
            "processor time, 4 MiB from a member / plain TCP",
            samples,
            *_pair("4 MiB", "CPU s/GiB"),
            None,
            "at most",
        ),
        compare(
            "processor time, 100 KiB from a member / plain TCP",
            samples,
            *_pair("100 KiB", "CPU s/GiB"),
            None,
            "at most",
        ),
    ]
    return Outcome("MiB/s or s", samples, bars, load)


CASE = Case(
    "transfer",
    "warm blocks from a member to another process: rates, and processor time of both sides",
    "the kernel's two copies, and a checksum on either side",
    run,
)


def _pair(blocks: str, figure: str) -> tuple[str, str]:
    return f"member, {blocks}: {figure}", f"plain TCP, {blocks}: {figure}"


def _large(link: PeerLink, load: dict[str, Any]) -> Work:
    version = _version(link, LARGE_KEY)
    count, length = load["large_count"], load["large_bytes"]
    offsets = [number * length for number in range(count)]
    requests = [
        BlockRequest(DATASET, LARGE_KEY, version, number, offset, length)
        for number, offset in enumerate(offsets)
    ]
    return Work(requests, offsets, [memoryview(bytearray(length)) for _ in offsets], count)


def _small(link: PeerLink, keys: list[str], load: dict[str, Any]) -> Work:
    length = load["small_bytes"]
    requests = [BlockRequest(DATASET, key, _version(link, key), 0, 0, length) for key in keys]
    offsets = [number * length for number in range(len(keys))]
    buffers = [memoryview(bytearray(length)) for _ in offsets]
    return Work(requests, offsets, buffers, load["small_in_flight"])


def _version(link: PeerLink, key: str) -> str:
    found = link.stat(DATASET, key, deadline=DEADLINE)
    if found is None:
        raise RuntimeError(f"the member cannot say what {key} is")
    return found.version


def _check(work: Work, path: Path, link: PeerLink) -> None:
    """Have all blocks cached by the member, and compare them. Raises: RuntimeError."""
    _by_link(link, work)
    with path.open("rb") as file:
        for offset, buffer in zip(work.offsets, work.buffers, strict=True):
            if os.pread(file.fileno(), len(buffer), offset) != buffer:
                raise RuntimeError(f"{path.name}: the member gave other bytes at {offset}")


def _by_link(link: PeerLink, work: Work) -> None:
    came: list[int] = []
    for batch in work.batches():
        link.read(work.requests[batch], work.buffers[batch], came.append, deadline=DEADLINE)
    if len(came) != len(work.buffers):
        raise RuntimeError(f"{len(came)} blocks came of {len(work.buffers)}")


def _by_tcp(plain: PlainTcp, work: Work) -> None:
    for batch in work.batches():
        plain.read(work.offsets[batch], work.buffers[batch])


def _by_grpc(call: Callable[[int, int], bytes], work: Work) -> None:
    for offset, buffer in zip(work.offsets, work.buffers, strict=True):
        if len(call(offset, len(buffer))) != len(buffer):
            raise RuntimeError("a call was answered with another length")


def _timed(move: Callable[[], None], pid: int | None) -> tuple[float, float]:
    """Return the seconds that it takes, and those of processor time here and in the other process."""
    with collector_off():
        used_s, begun_s = _used_s(pid), time.perf_counter()
        move()
        return time.perf_counter() - begun_s, _used_s(pid) - used_s


def _used_s(pid: int | None) -> float:
    used_s = time.process_time()
    if pid is not None:
        # The clock of another process: what clock_getcpuclockid makes of its id.
        used_s += time.clock_gettime(~pid << 3 | 2)
    return used_s

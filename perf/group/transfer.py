"""transfer: warm blocks from a member to another process, beside plain TCP and unary gRPC with the same.

A member is asked over its data port, and over the gRPC stream that takes its place where there is none. Large
blocks are asked for by one message; of small ones 64 are in flight: the next 64 are asked for when these have
come. Plain TCP does alike. What is received into is the same memory for all, and was touched before.
Processor time is that of both processes, from the clocks that the kernel keeps of them. Waits are how often
this process slept: whoever sends to one that sleeps has to wake it, which on a virtual machine costs him more
than the bytes, so that rates follow from who happens to be ahead.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from forebay.peer.data.deadline import Deadline
from forebay.peer.data.link import Link
from forebay.remote import BlockRequest
from perf import workload
from perf.group.members import link_to, members, stream_to
from perf.group.plain import PlainTcp, plain_tcp, unary_grpc
from perf.harness import Bar, Case, Outcome, Samples, collector_off, compare, turns
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


class Taken(NamedTuple):
    """What moving all blocks once took."""

    wall_s: float
    used_s: float
    waits: int


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
        link, stream = parts.enter_context(link_to(member)), parts.enter_context(stream_to(member))
        large_path = folder / "s3" / BUCKET / LARGE_KEY
        large_tcp = parts.enter_context(plain_tcp(large_path))
        small_tcp = parts.enter_context(plain_tcp(small_path))
        call = parts.enter_context(unary_grpc(small_path))
        large, small = _large(link, load), _small(link, keys, load)
        for work, path in ((large, large_path), (small, small_path)):
            _check(work, path, link)
            _check(work, path, stream)
        ways: list[tuple[str, int | None, int, Callable[[], None]]] = [
            ("member, 4 MiB", member.pid, large.total_bytes, partial(_by_link, link, large)),
            ("plain TCP, 4 MiB", large_tcp.pid, large.total_bytes, partial(_by_tcp, large_tcp, large)),
            ("member, 100 KiB", member.pid, small.total_bytes, partial(_by_link, link, small)),
            ("plain TCP, 100 KiB", small_tcp.pid, small.total_bytes, partial(_by_tcp, small_tcp, small)),
            ("gRPC stream, 4 MiB", member.pid, large.total_bytes, partial(_by_link, stream, large)),
            ("gRPC stream, 100 KiB", member.pid, small.total_bytes, partial(_by_link, stream, small)),
            ("unary gRPC, 100 KiB", None, small.total_bytes, partial(_by_grpc, call, small)),
        ]
        for (name, pid, moved_bytes, move), kept in turns(ways, load["rounds"]):
            taken = _measured(move, pid)
            if kept:
                samples.setdefault(f"{name}: MiB/s", []).append(moved_bytes / MIB / taken.wall_s)
                samples.setdefault(f"{name}: waits", []).append(taken.waits)
                if pid is not None:
                    samples.setdefault(f"{name}: CPU s/GiB", []).append(taken.used_s * GIB / moved_bytes)
    return Outcome("MiB/s or s", samples, _bars(samples, load["small_in_flight"]), load)


def _bars(samples: Samples, in_flight: int) -> list[Bar]:
    """Compare the ways; what has no target is there to be seen."""
    small = f"100 KiB from a member, {in_flight} in flight"
    rate, used = "MiB/s", "CPU s/GiB"
    return [
        compare("4 MiB from a member / plain TCP", samples, *_pair("4 MiB", rate), 0.7),
        compare(f"{small} / plain TCP", samples, *_pair("100 KiB", rate), 0.6),
        compare(f"{small} / unary gRPC", samples, "member, 100 KiB: MiB/s", "unary gRPC, 100 KiB: MiB/s", 4),
        *(
            compare(
                f"the same over the gRPC stream, {blocks} / plain TCP",
                samples,
                f"gRPC stream, {blocks}: MiB/s",
                f"plain TCP, {blocks}: MiB/s",
                None,
            )
            for blocks in ("4 MiB", "100 KiB")
        ),
        *(
            compare(
                f"processor time, {blocks} from a member / plain TCP",
                samples,
                *_pair(blocks, used),
                None,
                "at most",
            )
            for blocks in ("4 MiB", "100 KiB")
        ),
    ]


CASE = Case(
    "transfer",
    "warm blocks from a member to another process: rates, and processor time of both sides",
    "the kernel's two copies, and a checksum on either side",
    run,
)


def _pair(blocks: str, figure: str) -> tuple[str, str]:
    return f"member, {blocks}: {figure}", f"plain TCP, {blocks}: {figure}"


def _large(link: Link, load: dict[str, Any]) -> Work:
    version = _version(link, LARGE_KEY)
    count, length = load["large_count"], load["large_bytes"]
    offsets = [number * length for number in range(count)]
    requests = [
        BlockRequest(DATASET, LARGE_KEY, version, number, offset, length)
        for number, offset in enumerate(offsets)
    ]
    return Work(requests, offsets, [memoryview(bytearray(length)) for _ in offsets], count)


def _small(link: Link, keys: list[str], load: dict[str, Any]) -> Work:
    length = load["small_bytes"]
    requests = [BlockRequest(DATASET, key, _version(link, key), 0, 0, length) for key in keys]
    offsets = [number * length for number in range(len(keys))]
    buffers = [memoryview(bytearray(length)) for _ in offsets]
    return Work(requests, offsets, buffers, load["small_in_flight"])


def _version(link: Link, key: str) -> str:
    found = link.stat(DATASET, key, deadline=DEADLINE)
    if found is None:
        raise RuntimeError(f"the member cannot say what {key} is")
    return found.version


def _check(work: Work, path: Path, link: Link) -> None:
    """Have all blocks cached by the member, and compare them. Raises: RuntimeError."""
    _by_link(link, work)
    with path.open("rb") as file:
        for offset, buffer in zip(work.offsets, work.buffers, strict=True):
            if os.pread(file.fileno(), len(buffer), offset) != buffer:
                raise RuntimeError(f"{path.name}: the member gave other bytes at {offset}")


def _by_link(link: Link, work: Work) -> None:
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


def _measured(move: Callable[[], None], pid: int | None) -> Taken:
    """Return what it takes of time, and of processor time here and in the other process."""
    with collector_off():
        waits, used_s, begun_s = _waits(), _used_s(pid), time.perf_counter()
        move()
        return Taken(time.perf_counter() - begun_s, _used_s(pid) - used_s, _waits() - waits)


def _waits() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def _used_s(pid: int | None) -> float:
    used_s = time.process_time()
    if pid is not None:
        # The clock of another process: what clock_getcpuclockid makes of its id.
        used_s += time.clock_gettime(~pid << 3 | 2)
    return used_s

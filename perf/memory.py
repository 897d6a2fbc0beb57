"""Private memory of a process: what its maps cost that no other process shares.

Read from smaps by map rather than from smaps_rollup: the kernel calls a page of a *shared* file private
as long as one process alone has it mapped, which would charge the index to whoever opens it first.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KIB = 1024
SAMPLE_S = 0.5


def give_back_free_heap() -> None:
    """Make the heap as small as it can be, so that what is allocated next is seen as growth."""
    ctypes.CDLL(None).malloc_trim(0)


def private_bytes(process: int | str = "self") -> int:
    """Sum Private_Clean and Private_Dirty of all private maps (heap, stacks, data of libraries)."""
    total = 0
    is_private = False
    with Path(
        f"/proc/{process}/smaps"
    ).open() as lines:  # line by line: read whole it would add to what it says
        for line in lines:
            first, _, rest = line.partition(" ")
            if not first.endswith(":"):  # the head of a map: address range, then permissions
                is_private = rest[3] == "p"
            elif is_private and first in ("Private_Clean:", "Private_Dirty:"):
                total += int(rest.split()[0]) * KIB
    return total


@contextmanager
def watching_peak(process: int | str = "self", sample_s: float = SAMPLE_S) -> Iterator[list[int]]:
    """Look at a process's private memory now and then; gives a list of the highest figure."""
    peak = [private_bytes(process)]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(sample_s):
            peak[0] = max(peak[0], private_bytes(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def page_table_bytes() -> int:
    """What the kernel holds in page tables for this process."""
    return _status_bytes("self", "VmPTE")


def resident_bytes(process: int) -> int:
    """What a process has in memory, shared maps included."""
    return _status_bytes(process, "VmRSS")


def _status_bytes(process: int | str, name: str) -> int:
    path = Path(f"/proc/{process}/status")
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIB
    raise OSError(f"{path}: no {name} line")

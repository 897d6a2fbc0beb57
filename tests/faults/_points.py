"""The failpoints, read from the C sources, and the workload that reaches each."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, get_args

import mmh3

from forebay.config import Medium
from tests.faults._place import Place
from tests.faults._world import (
    FILE_BLOCK_BYTES,
    Block,
    Operation,
    World,
    delete,
    die_holding,
    fetch_alone,
    free,
    get,
    maintain,
    put,
    put_file,
    retain,
    world_after,
)

SOURCES: Final = Path(__file__).resolve().parents[2] / "csrc" / "src"
POINT: Final = re.compile(r'FB_POINT\("([^"]+)"\)')

NEW_PAGES: Final = 24
SPLIT_AT: Final = 1739  # slots used in a page
CHURNED: Final = 7  # the dataset that evicts
WHOLE: Final = 8  # the dataset of whole files
# Where it matters what medium the bytes lie on; the rest is index and live, the same for all.
DISK_POINTS: Final = ("delete.", "evict.", "put.", "rebuild.", "segment.", "whole.")
ALONE_ONLY: Final = {"close.saved", "open.judged"}  # passed only by who has the store open alone


def names_in_sources() -> list[str]:
    """List every failpoint that the C library has."""
    found = [name for path in sorted(SOURCES.glob("*.c")) for name in POINT.findall(path.read_text())]
    assert len(found) == len(set(found)), "two places share the name of a failpoint"
    return sorted(found)


def arm(point: str, action: str, nth: int = 1) -> None:
    """Let this process be killed or stopped at the nth passing, counted from the next open."""
    os.environ["FOREBAY_FAILPOINT"] = f"{point}={action}@{nth}"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is there before, what the victim does, and how the place must be for it."""

    prepared: tuple[Operation, ...]
    acted: tuple[Operation, ...]
    high: float = 0.95
    index_lost: bool = False

    @property
    def fills(self) -> bool:
        """Tell whether it fills the tier, so that a put may find no room."""
        return self.high < 0.5


def _blocks(
    first: int, count: int, length_bytes: int = 3000, version: int = 0, dataset: int = 0
) -> list[Block]:
    return [Block(first + i, length_bytes + i % 7, version, dataset) for i in range(count)]


def _puts(blocks: list[Block], *, lasting: bool = True) -> tuple[Operation, ...]:
    return tuple(put(block, lasting=lasting) for block in blocks)


KEPT: Final = _blocks(0, 200)


def _reclaiming() -> Workload:
    """Evict under the views of a process that was killed."""
    return Workload(_puts(KEPT), (die_holding(KEPT[0]), free(KEPT)))


def _admitting() -> Workload:
    """Fill segments from the first to the last byte, several times over."""
    return Workload(_puts(KEPT), _puts(_blocks(1000, 500, 5000)))


def _replacing() -> Workload:
    """Put what is there already, in another length."""
    return Workload(_puts(KEPT), _puts(_blocks(0, 200, 2000, version=1)))


def _deleting() -> Workload:
    """Delete from pages so full that slots are pulled back."""
    many = _blocks(0, 4000, 32)
    return Workload(_puts(many), tuple(delete(block) for block in many[:2000]))


def in_first_page(count: int) -> list[Block]:
    """Return blocks whose slots lie in the first of a new index's pages: its place goes by the key's hash."""
    first_page = (1 << 64) // NEW_PAGES
    blocks = (Block(number, 16) for number in itertools.count())
    hits = (block for block in blocks if mmh3.hash64(block.key, signed=False)[0] < first_page)
    return list(itertools.islice(hits, count))


def _splitting() -> Workload:
    """Fill a page up to where it splits, and go on."""
    blocks = in_first_page(SPLIT_AT + 60)
    return Workload(_puts(blocks[: SPLIT_AT - 20]), _puts(blocks[SPLIT_AT - 20 :]))


def _evicting() -> Workload:
    """Churn an s3fifo dataset above the watermark, part of it read twice, beside blocks that stay."""
    old = _blocks(10000, 1500, 4000, dataset=CHURNED)
    reread = [operation for block in old[::3] for operation in (get(block), get(block))]
    new = _blocks(20000, 1500, 4000, dataset=CHURNED)
    rounds = [(*_puts(new[i : i + 100], lasting=False), maintain()) for i in range(0, len(new), 100)]
    prepared = (*_puts(KEPT), retain(CHURNED, "s3fifo"), *_puts(old, lasting=False))
    acted = (retain(CHURNED, "s3fifo"), *reread, *(operation for a_round in rounds for operation in a_round))
    return Workload(prepared, acted, high=0.25)


def _compacting() -> Workload:
    """Fill the tier with blocks that are kept, delete most, ask for room: the rest is moved together."""
    kept = _blocks(40000, 100, 60000)
    deleted = [block for i, block in enumerate(kept) if i % 3]
    asked = _puts(_blocks(50000, 40, 60000), lasting=False)
    acted = (*(delete(block) for block in deleted), *asked, *(maintain() for _ in range(4)))
    return Workload((*_puts(KEPT), *_puts(kept)), acted, high=0.3)


def _file(first: int) -> list[Block]:
    """Return the blocks of a file that is just longer than a segment; all but the last are full."""
    full = [Block(first + i, FILE_BLOCK_BYTES, dataset=WHOLE) for i in range(17)]
    return [*full, Block(first + 17, FILE_BLOCK_BYTES - 5, dataset=WHOLE)]


def _whole_files() -> Workload:
    """Write two whole files and free them."""
    files = [_file(30000), _file(31000)]
    acted = [put_file(b"file-%d" % i, blocks) for i, blocks in enumerate(files)]
    return Workload(_puts(KEPT), (*acted, free(files[0] + files[1])))


def _reading() -> Workload:
    """Read everything twice: the first time verifies."""
    return Workload(_puts(KEPT), tuple(get(block) for block in KEPT * 2))


def _flying() -> Workload:
    return Workload(_puts(KEPT), tuple(fetch_alone(block) for block in _blocks(1000, 5)))


def _opening() -> Workload:
    return Workload(_puts(KEPT), ())


def _closing() -> Workload:
    return Workload(_puts(KEPT), _puts(_blocks(1000, 5)))


def _rebuilding() -> Workload:
    return Workload(_puts(_blocks(0, 1500)), (maintain(), maintain()), index_lost=True)


# Which workloads reach which failpoint. test_kill_points.py holds this to the sources, and each kill to
# having taken place.
REACHED_BY: Final[dict[str, tuple[Callable[[], Workload], ...]]] = {
    "close.saved": (_closing,),
    "delete.unpublished": (_deleting,),
    "evict.copied": (_evicting, _compacting),
    "evict.held": (_evicting, _compacting),
    "evict.record": (_evicting, _compacting),
    "evict.removed": (_whole_files,),
    "evict.retiring": (_evicting, _compacting),
    "flight.begun": (_flying,),
    "flight.locked": (_flying,),
    "get.leased": (_reading,),
    "grow.allocated": (_splitting,),
    "index.add": (_admitting,),
    "index.locked": (_admitting,),
    "index.removed": (_deleting,),
    "index.set": (_replacing,),
    "index.shift": (_deleting,),
    "open.judged": (_opening,),
    "put.committed": (_admitting, _replacing),
    "put.published": (_admitting, _replacing),
    "put.reserved": (_admitting,),
    "put.written": (_admitting,),
    "rebuild.scanned": (_rebuilding,),
    "row.claimed": (_opening,),
    "row.reclaimed": (_reclaiming,),
    "segment.acquired": (_admitting,),
    "segment.created": (_admitting,),
    "segment.creating": (_admitting,),
    "segment.opened": (_admitting,),
    "segment.sealed": (_admitting,),
    "segment.taken": (_evicting,),
    "split.copied": (_splitting,),
    "split.directory": (_splitting,),
    "split.purged": (_splitting,),
    "split.reset": (_splitting,),
    "whole.created": (_whole_files,),
    "whole.published": (_whole_files,),
    "whole.written": (_whole_files,),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A failpoint, a workload that reaches it and the medium that it works on."""

    point: str
    make: Callable[[], Workload]
    medium: Medium

    def __str__(self) -> str:
        return f"{self.point}-{self.make.__name__.lstrip('_')}-{self.medium}"

    @property
    def workload(self) -> Workload:
        """The workload, made once."""
        return _made(self.make)

    def world(self, completed: int) -> World:
        """Return what must hold when the workload was cut short after some operations."""
        return world_after(self.workload.prepared, self.workload.acted, completed)

    def place(self, folder: Path) -> Place:
        """Lay out a store for it."""
        return Place.under(folder, medium=self.medium, high=self.workload.high)


@cache
def _made(make: Callable[[], Workload]) -> Workload:
    return make()


def cases() -> list[Case]:
    """List every way to reach every failpoint of the sources."""
    return [
        Case(point, make, medium)
        for point in names_in_sources()
        for make in REACHED_BY.get(point, ())
        for medium in get_args(Medium)[:2]
        if medium == "MEM" or point.startswith(DISK_POINTS)
    ]

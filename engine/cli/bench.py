"""``bench``: what the tiers give on this machine, each beside the plain way to move the same bytes.

A store of its own is made in a scratch folder on each tier's file system, and removed. Both sides of a
comparison are measured in turn, several rounds, and the medians are compared; the page cache is warm for
both. It says what this machine does now; the figures of a project are in perf/.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click

from forebay.cli.interrupt import undone_if_interrupted
from forebay.cli.kinds import SIZE
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import columns, echo_json, size_text
from forebay.config import MIB, Tier, default_tiers, is_new
from forebay.store import BlockStore

_BLOCK_BYTES: Final = MIB
_SIZE_BYTES: Final = 128 * MIB
_SIZE_BYTES_MIN: Final = 16 * MIB
_ROUNDS: Final = 5
_REMOVALS_MAX: Final = 100

_Action = Callable[[], None]


@dataclass(frozen=True)
class Comparison:
    """One operation and its limit on one tier: median seconds for the same blocks.

    ratio is limit_s / seconds: 1 is as fast as the limit, more is faster.
    """

    tier: str
    medium: str
    operation: str
    limit: str
    blocks: int
    bytes: int
    seconds: float
    limit_s: float
    ratio: float


@click.command()
@common_options
@click.option(
    "--size", type=SIZE, default=_SIZE_BYTES, metavar="SIZE", help="Bytes to move in each tier. [128MiB]"
)
@pass_session
def bench(session: Session, size: int) -> None:
    """Measure put, get and readinto of 1 MiB blocks in each tier, beside plain copies of the same bytes.

    Everything is done in a scratch folder on the tier's file system, which takes about three times the size
    and is removed. Nothing that is cached is touched.
    """
    if size < _SIZE_BYTES_MIN:
        raise click.BadParameter(f"at least {size_text(_SIZE_BYTES_MIN)}", param_hint="--size")
    found: list[Comparison] = []
    for tier in _tiers(session):
        with _scratch(tier, size) as folder:
            found += _measure(tier, folder, size // _BLOCK_BYTES)
    if session.as_json:
        echo_json([asdict(comparison) for comparison in found])
        return
    for line in columns(
        ("tier", "medium", "operation", "seconds", "limit", "seconds", "ratio"),
        [
            (
                each.tier,
                each.medium,
                each.operation,
                f"{each.seconds:.4f}",
                each.limit,
                f"{each.limit_s:.4f}",
                f"{each.ratio:.2f}",
            )
            for each in found
        ],
    ):
        click.echo(line)
    click.echo(
        f"{size // _BLOCK_BYTES} blocks of {size_text(_BLOCK_BYTES)}, median of {_ROUNDS} rounds; "
        "ratio: 1 is as fast as the limit, more is faster"
    )


def _tiers(session: Session) -> Sequence[Tier]:
    """Return the tiers that are configured, else those that the cache remembers, else the default ones."""
    if tiers := session.settings().tiers:
        return tiers
    folder = session.folder()
    if is_new(folder):
        return default_tiers(folder)
    with session.open_cache() as cache:
        listed = cache.status()["tiers"]
    return [Tier(tier["path"], tier["quota_bytes"], tier["medium"]) for tier in listed]


@contextmanager
def _scratch(tier: Tier, size_bytes: int) -> Iterator[Path]:
    """Give a folder on the tier's file system, and remove it. Raises: OSError (no room)."""
    place = next(path for path in (Path(tier.path), *Path(tier.path).parents) if path.is_dir())
    stats = os.statvfs(place)
    needed_bytes, free_bytes = 4 * size_bytes, stats.f_bavail * stats.f_frsize
    if free_bytes < needed_bytes:
        words = f"{size_text(free_bytes)} free, {size_text(needed_bytes)} needed; give a smaller --size"
        raise OSError(errno.ENOSPC, words, str(place))
    folder = Path(tempfile.mkdtemp(prefix=".forebay-bench-", dir=place))

    def remove() -> None:
        # Where the store still works while an interrupt ends us, a file may come while others go.
        for _ in range(_REMOVALS_MAX):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break

    with undone_if_interrupted(remove):
        try:
            yield folder
        finally:
            remove()


def _measure(tier: Tier, folder: Path, count: int) -> Iterator[Comparison]:
    """Measure one tier: every round puts all blocks, then reads them."""
    with (
        _store(tier, folder, 2 * count * _BLOCK_BYTES) as store,
        closing(_Pairs(store, folder, count, in_memory=tier.medium == "MEM")) as pairs,
    ):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in pairs.all()}
        for _ in range(_ROUNDS):
            store.free_dataset(0)  # what was put in the round before: its segments are used again
            for name, _, ours, limit in pairs.all():
                times[name].append((_seconds(ours), _seconds(limit)))
        limits = {name: limit_name for name, limit_name, _, _ in pairs.all()}
    for name, limit_name in limits.items():
        seconds, limit_s = (statistics.median(side) for side in zip(*times[name], strict=True))
        yield Comparison(
            tier=tier.path,
            medium=tier.medium,
            operation=name,
            limit=limit_name,
            blocks=count,
            bytes=count * _BLOCK_BYTES,
            seconds=seconds,
            limit_s=limit_s,
            ratio=limit_s / seconds,
        )


@contextmanager
def _store(tier: Tier, folder: Path, quota_bytes: int) -> Iterator[BlockStore]:
    """Open a store in the folder; of what it keeps elsewhere, its live file, nothing is left either."""
    store = BlockStore(folder / "cache", [Tier(str(folder / "tier"), quota_bytes, tier.medium)])
    live = Path(store.status()["index"]["live_path"])
    with undone_if_interrupted(partial(live.unlink, missing_ok=True)):
        try:
            with store:
                yield store
        finally:
            live.unlink(missing_ok=True)


class _Pairs:
    """Each operation of a store with its limit, over the same blocks in the same random order."""

    def __init__(self, store: BlockStore, folder: Path, count: int, *, in_memory: bool) -> None:
        self._store: Final = store
        self._keys: Final = [b"block %d" % number for number in range(count)]
        self._order: Final = random.Random(1).sample(range(count), count)
        self._in_memory: Final = in_memory
        self._source: Final = memoryview(random.Random(2).randbytes(_BLOCK_BYTES) * count)
        self._buffer: Final = memoryview(bytearray(_BLOCK_BYTES))
        self._file: Final = os.open(folder / "plain", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def all(self) -> Iterator[tuple[str, str, _Action, _Action]]:
        """Yield name, name of the limit, operation and limit; put comes first, and fills both."""
        yield "put", "pwrite", self._put, self._pwrite
        get_limit, read_limit = ("mmap", "memcpy") if self._in_memory else ("pread", "pread")
        limits = {"mmap": self._mmap, "memcpy": self._memcpy, "pread": self._pread}
        yield "get", get_limit, self._get, limits[get_limit]
        yield "readinto", read_limit, self._readinto, limits[read_limit]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _lost(self) -> OSError:
        return OSError(
            errno.ENOSPC, "the tier has no room for its blocks; give a smaller --size", self._store.path
        )

    def _part(self, number: int) -> memoryview:
        return self._source[number * _BLOCK_BYTES : (number + 1) * _BLOCK_BYTES]

    def _put(self) -> None:
        for number in self._order:
            if not self._store.put(self._keys[number], self._part(number)):
                raise self._lost()

    def _get(self) -> None:
        for number in self._order:
            view = self._store.get(self._keys[number])
            if view is None:
                raise self._lost()
            view.release()

    def _readinto(self) -> None:
        for number in self._order:
            if self._store.readinto(self._keys[number], self._buffer) != _BLOCK_BYTES:
                raise self._lost()

    def _pwrite(self) -> None:
        for number in self._order:
            os.pwrite(self._file, self._part(number), number * _BLOCK_BYTES)

    def _pread(self) -> None:
        for number in self._order:
            os.preadv(self._file, [self._buffer], number * _BLOCK_BYTES)

    def _mmap(self) -> None:
        for number in self._order:
            offset = number * _BLOCK_BYTES
            mmap.mmap(self._file, _BLOCK_BYTES, prot=mmap.PROT_READ, offset=offset).close()

    def _memcpy(self) -> None:
        for number in self._order:
            self._buffer[:] = self._part(number)


def _seconds(action: _Action) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun

"""open_1m and rebuild: opening a store of 1 M blocks, and making a lost index again from a disk tier.

Opening is measured with the store open elsewhere, with nobody there, and after a process that had it open
was killed. Before each rebuild the index file is removed and the page cache dropped; reads go on meanwhile.
Beside it stands the least that a rebuild has to read: head and record table of every segment.
"""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from forebay import BlockStore, Tier
from perf import stores, workload
from perf.harness import Bar, Case, Contender, Outcome, Samples, interleave, within_limit
from perf.places import disk_folder, memory_folder

ROOM_BYTES = 3 << 30
OPEN_LIMIT_S = 1.0
SEGMENTS_PER_S = 200
PAGE_BYTES = 4096
TABLE_ENTRY_BYTES = 64
READS_BETWEEN_LOOKS = 20
START_TIMEOUT_S = 60.0


def run(quick: bool) -> Outcome:
    """Measure three kinds of opening in turn, then rebuilds in turn with bare reads of the tables."""
    index, rebuild = workload.load("index", quick), workload.load("rebuild", quick)
    with memory_folder(ROOM_BYTES) as folder:
        samples = _opening(folder, index)
    with disk_folder() as folder:
        store = RebuildStore(folder, rebuild)
        store.fill()
        contenders = [
            Contender("rebuild, segments/s", store.rebuild_rate),
            Contender("bare reads of the tables, segments/s", store.bare_rate),
        ]
        samples |= interleave(contenders, rebuild["rounds"])
    bars = [
        within_limit(f"{name} / {OPEN_LIMIT_S:g} s", figures, OPEN_LIMIT_S)
        for name, figures in samples.items()
        if name.startswith("open")
    ]
    rates = [rate / SEGMENTS_PER_S for rate in samples["rebuild, segments/s"]]
    bars.append(Bar(f"rebuild, cold: segments/s / {SEGMENTS_PER_S}", 1.0, rates))
    return Outcome("s; segments/s", samples, bars, index | {"rebuild": rebuild}, store.facts)


CASE = Case(
    "open_rebuild",
    "opening a 1 M-block store; rebuild after index loss, page cache dropped",
    "opening: a few maps; rebuild: one cold read of each segment's record table",
    run,
)


def _opening(folder: Path, load: dict[str, Any]) -> Samples:
    keys = workload.keys(load["block_count"], load["seed"])
    record = bytes(load["block_bytes"])
    with stores.create(folder, load["quota_bytes"]) as store:
        if not all(store.put(key, record) for key in keys):
            raise RuntimeError("a store below its watermark refused a block")
    contenders = [
        Contender("open, nobody there", partial(_open_seconds, folder, keys)),
        Contender("open, beside another", partial(_open_beside_seconds, folder, keys)),
        Contender("open, after SIGKILL", partial(_open_after_kill_seconds, folder, keys)),
    ]
    return interleave(contenders, load["rounds"])


def _open_seconds(folder: Path, keys: list[bytes]) -> float:
    """Time an opening and the first hit."""
    started = time.perf_counter()
    with BlockStore(folder) as store:
        view = store.get(keys[0])
        seconds = time.perf_counter() - started
        if view is None:
            raise RuntimeError("a block was lost by closing and opening")
        view.release()
    return seconds


def _open_beside_seconds(folder: Path, keys: list[bytes]) -> float:
    with BlockStore(folder):
        return _open_seconds(folder, keys)


def _open_after_kill_seconds(folder: Path, keys: list[bytes]) -> float:
    context = get_context("spawn")
    opened = context.Event()
    process = context.Process(target=_hold_open, args=(folder, opened))
    process.start()
    if not opened.wait(START_TIMEOUT_S):
        raise TimeoutError("the process that is to be killed did not open the store in time")
    process.kill()
    process.join()
    return _open_seconds(folder, keys)


def _hold_open(folder: Path, opened: Event) -> None:
    with BlockStore(folder) as store:
        store.put(b"written before the kill", b"so that there is something to recover")
        opened.set()
        signal.pause()  # until it is killed


class RebuildStore:
    """A store on a disk tier whose index is removed again and again."""

    def __init__(self, folder: Path, load: dict[str, Any]) -> None:
        self._folder = folder
        self._load = load
        self._tier = Tier(str(folder / "disk"), load["quota_bytes"], "SSD")
        self._keys = workload.keys(load["record_count"], load["seed"])
        self.facts: dict[str, Any] = {"reads_while_rebuilding": 0, "hits_while_rebuilding": 0}

    def _open(self) -> BlockStore:
        return BlockStore(self._folder, [self._tier], block_bytes=stores.SMALL_BLOCK_BYTES)

    def fill(self) -> None:
        data = random.Random(self._load["seed"]).randbytes(self._load["record_bytes"])
        with self._open() as store:
            refused = sum(not store.put(key, data) for key in self._keys)
        self.facts["segments"] = len(self._segments())
        self.facts["refused_blocks"] = refused

    def rebuild_rate(self) -> float:
        """Lose the index, open cold, read while it is rebuilt; returns segments a second."""
        stores.remove_index(self._folder)
        self._drop_page_cache()
        started = time.perf_counter()
        with self._open() as store:
            # Readers start no thread: whoever admits first becomes the maintainer, which rebuilds.
            store.put(b"admitted after the loss", b"as a cache does after its first miss")
            self._read_until_rebuilt(store)
            seconds = time.perf_counter() - started
            found = sum(map(store.contains, self._keys))
        expected = len(self._keys) - self.facts["refused_blocks"]
        if found < expected:
            raise RuntimeError(f"{found} of {expected} blocks came back from the rebuild")
        return len(self._segments()) / seconds

    def bare_rate(self) -> float:
        """Read head and table of every segment cold; returns segments a second."""
        segments = self._segments()
        self._drop_page_cache()
        started = time.perf_counter()
        for path in segments:
            self._read_table(path)
        return len(segments) / (time.perf_counter() - started)

    def _read_until_rebuilt(self, store: BlockStore) -> None:
        source = random.Random(self._load["seed"])
        while stores.is_rebuilding(store):
            for key in source.choices(self._keys, k=READS_BETWEEN_LOOKS):
                view = store.get(key)
                self.facts["reads_while_rebuilding"] += 1
                if view is not None:
                    self.facts["hits_while_rebuilding"] += 1
                    view.release()

    def _segments(self) -> list[Path]:
        return [path for path in Path(self._tier.path).rglob("*") if path.stat().st_size >= 1 << 20]

    def _read_table(self, path: Path) -> None:
        file = os.open(path, os.O_RDONLY)
        size = os.fstat(file).st_size
        table = TABLE_ENTRY_BYTES * (size // self._load["record_bytes"])
        os.pread(file, PAGE_BYTES, 0)
        os.pread(file, table, size - table)
        os.close(file)

    def _drop_page_cache(self) -> None:
        """Drop everything as root; otherwise ask the kernel to drop the segments' pages."""
        os.sync()
        if os.geteuid() == 0:
            Path("/proc/sys/vm/drop_caches").write_text("3")
            return
        for path in self._segments():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)

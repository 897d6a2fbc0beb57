"""index_1m: bytes of index a block while a store grows to 1 M blocks, and what an opener of it adds.

The index's size is what its file takes on the file system. Memory is read in fresh processes, after they
looked up many keys, as the growth of their private maps; shared maps and page tables are counted apart.
"""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from forebay import BlockStore
from perf import memory, stores, workload
from perf.harness import Case, Facts, Outcome, within_limit
from perf.places import memory_folder

ROOM_BYTES = 3 << 30
INDEX_LIMIT_BYTES = 64
PRIVATE_LIMIT_BYTES = 10 << 20
HALF = 0.5


def run(quick: bool) -> Outcome:
    """Grow a store, looking at its index now and then; then open it in fresh processes."""
    load = workload.load("index", quick)
    with memory_folder(ROOM_BYTES) as folder:
        growth = _grow(folder, load)
        openers = [_in_fresh_process(_opener_memory, folder, load) for _ in range(load["rounds"])]
    half_full = [point["bytes_a_block"] for point in growth if point["load"] >= HALF]
    private = [opener["private_bytes"] for opener in openers]
    bars = [
        within_limit(
            f"index bytes a block, worst / {INDEX_LIMIT_BYTES}", [max(half_full)], INDEX_LIMIT_BYTES
        ),
        within_limit("private bytes of an opener / 10 MiB", private, PRIVATE_LIMIT_BYTES),
    ]
    facts: Facts = {
        "index_growth": growth,
        "index_bytes_a_block_worst_at_any_load": max(point["bytes_a_block"] for point in growth),
        "opener_page_table_bytes": max(opener["page_table_bytes"] for opener in openers),
    }
    samples = {"private bytes of an opener": private}
    return Outcome("bytes", samples, bars, load, facts)


CASE = Case(
    "index_size",
    "index bytes a block through growth to 1 M blocks; private memory of an opener",
    "a slot a block",
    run,
)


def _grow(folder: Path, load: dict[str, Any]) -> list[Facts]:
    """Fill the store; returns what the index was like at every checkpoint."""
    record = bytes(load["block_bytes"])
    points: list[Facts] = []
    with stores.create(folder, load["quota_bytes"]) as store:
        for count in range(1, load["block_count"] + 1):
            if not store.put(_key(count - 1), record):
                raise RuntimeError(f"a store below its watermark refused block {count}")
            if count >= load["first_checkpoint"] and count % load["checkpoint_blocks"] == 0:
                points.append(_look(store, folder, count))
    return points


def _look(store: BlockStore, folder: Path, count: int) -> Facts:
    size = stores.index_file_bytes(folder)
    return {"blocks": count, "load": count / stores.index_slots(store), "bytes_a_block": size / count}


def _in_fresh_process(measure: Any, *args: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(measure, *args).result()


def _opener_memory(folder: Path, load: dict[str, Any]) -> Facts:
    """Open the store and look keys up; returns what that added to this process."""
    source = random.Random(load["seed"])
    memory.give_back_free_heap()
    private, tables = memory.private_bytes(), memory.page_table_bytes()
    with BlockStore(folder) as store:
        for _ in range(load["touched_keys"]):
            store.get(_key(source.randrange(load["block_count"]))).release()  # type: ignore[union-attr]
        return {
            "private_bytes": memory.private_bytes() - private,
            "page_table_bytes": memory.page_table_bytes() - tables,
        }


def _key(number: int) -> bytes:
    """Give the key of a block; made where it is needed, so that an opener's heap holds no list of keys."""
    return number.to_bytes(8, "little")

"""get_1m: look-ups of 1 M present keys in random order, from one process and from two.

Store, dict and LMDB hold the same keys and values and are asked in the same order with the same key
objects, which a dict recognises by identity: its best case. A view is taken and released. diskcache
holds fewer keys; its values are of a sample's size, which it keeps in files, and beside it small ones,
which it keeps in SQLite rows. A hit of the store costs the same whatever the size.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import diskcache
import lmdb

from forebay import BlockStore
from perf import stores, workload
from perf.crew import Crew, Measurement
from perf.harness import Case, Contender, Outcome, Samples, compare, interleave
from perf.places import memory_folder

LMDB_MAP_BYTES = 1 << 30
ROOM_BYTES = 3 << 30
SPOT_CHECKS = 1_000


def run(quick: bool) -> Outcome:
    """Look keys up in a store, a dict, LMDB and diskcache; then in the store from two processes."""
    load = workload.load("lookup", quick)
    with memory_folder(ROOM_BYTES) as folder:
        _fill_store(folder / "store", load)
        samples = _one_process(folder, load) | _two_processes(folder / "store", load)
    bars = [
        compare("get_1m / dict", samples, "forebay", "dict", 0.8),
        compare("get_1m / py-lmdb", samples, "forebay", "py-lmdb", 2.0),
        compare("get_1m / diskcache, 100 KiB", samples, "forebay", "diskcache, 100 KiB", 25.0),
        compare("get_1m, 2 processes / 1", samples, "forebay, 2 processes", "forebay, 1 process", 1.8),
    ]
    return Outcome("look-ups/s", samples, bars, load)


CASE = Case(
    "store_get",
    "look-up of a present key, 1 M keys in random order, MEM tier",
    "cache misses: the index page, the lease word and the key object itself",
    run,
)


def _keys(load: dict[str, Any]) -> list[bytes]:
    return workload.keys(load["key_count"], load["seed"], load["key_bytes"])


def _fill_store(path: Path, load: dict[str, Any]) -> None:
    keys, repeats = _keys(load), load["value_repeats"]
    with stores.create(path, load["quota_bytes"]) as store:
        refused = sum(not store.put(key, key * repeats) for key in keys)
        if refused:
            raise RuntimeError(f"{refused} of {len(keys)} records were not admitted")
        for key in keys[:: max(1, len(keys) // SPOT_CHECKS)]:
            view = store.get(key)
            if view is None or bytes(view) != key * repeats:
                raise RuntimeError(f"the store returned wrong bytes for {key.hex()}")


def _one_process(folder: Path, load: dict[str, Any]) -> Samples:
    keys = _keys(load)
    table = {key: key * load["value_repeats"] for key in keys}
    order = workload.shuffled(keys, load["seed"] + 1)
    with ExitStack() as stack:
        store = stack.enter_context(BlockStore(folder / "store"))
        environment = stack.enter_context(
            lmdb.open(str(folder / "lmdb"), map_size=LMDB_MAP_BYTES, sync=False)
        )
        _fill_lmdb(environment, table)
        few = order[: load["diskcache_key_count"]]
        sample = random.Random(load["seed"]).randbytes(load["sample_bytes"])
        samples = stack.enter_context(_filled_diskcache(folder / "samples", dict.fromkeys(few, sample)))
        rows = stack.enter_context(_filled_diskcache(folder / "rows", {key: table[key] for key in few}))
        transaction = stack.enter_context(environment.begin(buffers=True))
        contenders = [
            Contender("forebay", partial(_store_rate, store, order)),
            Contender("dict", partial(_dict_rate, table, order)),
            Contender("py-lmdb", partial(_get_rate, transaction.get, order)),
            Contender("diskcache, 100 KiB", partial(_get_rate, samples.get, few)),
            Contender("diskcache, 64 B", partial(_get_rate, rows.get, few)),
        ]
        return interleave(contenders, load["rounds"])


def _fill_lmdb(environment: lmdb.Environment, table: dict[bytes, bytes]) -> None:
    with environment.begin(write=True) as transaction:
        for key in sorted(table):
            transaction.put(key, table[key], append=True)


def _filled_diskcache(path: Path, items: dict[bytes, bytes]) -> diskcache.Cache:
    disk = diskcache.Cache(str(path))
    with disk.transact():
        for key, value in items.items():
            disk.set(key, value)
    return disk


def _store_rate(store: BlockStore, order: list[bytes]) -> float:
    get = store.get
    started = time.perf_counter()
    for key in order:
        get(key).release()  # type: ignore[union-attr]  # every key is present
    return len(order) / (time.perf_counter() - started)


def _dict_rate(table: dict[bytes, bytes], order: list[bytes]) -> float:
    started = time.perf_counter()
    for key in order:
        table[key]
    return len(order) / (time.perf_counter() - started)


def _get_rate(get: Callable[[bytes], object], order: list[bytes]) -> float:
    started = time.perf_counter()
    for key in order:
        get(key)
    return len(order) / (time.perf_counter() - started)


def _two_processes(path: Path, load: dict[str, Any]) -> Samples:
    alone: list[tuple[Any, ...]] = [(path, load, 0)]
    both: list[tuple[Any, ...]] = [(path, load, 1), (path, load, 2)]
    with Crew(_reader, alone) as single, Crew(_reader, both) as double:
        contenders = [
            Contender("forebay, 1 process", single.throughput),
            Contender("forebay, 2 processes", double.throughput),
        ]
        return interleave(contenders, load["rounds"])


def _reader(path: Path, load: dict[str, Any], member: int) -> Measurement:
    store = BlockStore(path)
    order = workload.shuffled(_keys(load), load["seed"] + 1 + member)

    def look_up() -> int:
        _store_rate(store, order)
        return len(order)

    return look_up

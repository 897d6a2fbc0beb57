"""A script: a store shared with the workers of a multiprocessing pool.

python _pools.py fork|spawn|forkserver all|killed CACHE TIER: exits with 0 when every worker read what the
parent put, the parent reads what the workers put, and no row is left; with `killed` a worker dies at work,
and a second pool does the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from forebay.store import BlockStore, Tier, View

WORKERS = 3
BLOCKS = 60


def content(number: int) -> bytes:
    """Return the bytes of a block."""
    return b"%08d" % number * 500


def read(store: BlockStore, key: bytes) -> View:
    """Read a block that is there, though a writer that lost its processor may hide it for a moment."""
    while (view := store.get(key)) is None:
        time.sleep(0.001)
    return view


def work(store: BlockStore, number: int) -> tuple[int, int]:
    """Read one block, put another; return the process and its row."""
    with read(store, b"parent-%d" % number) as view:
        assert view == content(number)
        assert pickle.loads(pickle.dumps(view)) == content(number)
    # Not admitted where a writer has had no processor for a second.
    while not store.put(b"worker-%d" % number, content(number + 1)):
        continue
    return os.getpid(), store.status()["rows"]["own"]


def work_or_die(store: BlockStore, number: int) -> tuple[int, int]:
    """Do the same, but die holding a view and a reservation in the middle of the blocks."""
    if number == BLOCKS // 2:
        kept = [store.get(b"parent-0"), store.reserve(b"never", 5000)]
        os.kill(os.getpid(), signal.SIGKILL)
        kept.clear()
    return work(store, number)


def run_all(method: str, store: BlockStore) -> None:
    """Run a pool over all blocks."""
    context = multiprocessing.get_context(method)
    # With the store in every task, it is pickled and opened anew for each under spawn and forkserver.
    with context.Pool(WORKERS) as pool:
        seen = pool.starmap(work, [(store, number) for number in range(BLOCKS)], chunksize=5)
        pool.close()
        pool.join()
    assert all(pid != os.getpid() for pid, _ in seen)
    assert store.status()["rows"]["own"] not in {row for _, row in seen}, "each worker has its own row"


def run_killed(method: str, store: BlockStore) -> None:
    """Run a pool in which a worker is killed, then another over what was not done."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        futures = [pool.submit(work_or_die, store, number) for number in range(BLOCKS)]
        errors = [future.exception() for future in futures]
    assert any(isinstance(error, BrokenProcessPool) for error in errors)
    left = [number for number, error in enumerate(errors) if error is not None]
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        for future in [pool.submit(work, store, number) for number in left]:
            future.result()


def main(method: str, how: str, cache: str, tier: str) -> None:
    """Put, run the workers, and look at what they left."""
    with BlockStore(cache, [Tier(tier, "24MiB", "MEM")]) as store:
        for number in range(BLOCKS):
            assert store.put(b"parent-%d" % number, content(number))
        (run_killed if how == "killed" else run_all)(method, store)
        for number in range(BLOCKS):
            with read(store, b"worker-%d" % number) as view:
                assert view == content(number + 1)
        assert store.status()["rows"]["used"] == 1
        assert store.status()["holders"] == []
        assert store.check().ok


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A script: ways to end an interpreter that has a store open.

python _exits.py HOW CACHE TIER, where HOW names one of the functions here.
"""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType
from typing import cast

from forebay.store import BlockStore, Tier

KEPT: list[object] = []


def with_views(store: BlockStore) -> None:
    """Leave views, slices of them and the store itself to the interpreter's end."""
    view = store.get(b"block")
    assert view is not None
    KEPT.extend([store, view, view[10:20], memoryview(view)])
    sys.modules["kept to the end"] = cast(ModuleType, store)


def with_a_reservation(store: BlockStore) -> None:
    """Leave a reservation open."""
    reservation = store.reserve(b"open", 1000)
    KEPT.extend([store, reservation, reservation.__enter__(), store.reserve_file(b"file", 2 << 20)])


def with_a_claim(store: BlockStore) -> None:
    """Leave a flight going on."""
    KEPT.extend([store, store.claim(b"flight")])


def in_a_cycle(store: BlockStore) -> None:
    """Leave everything in a reference cycle."""
    cycle: list[object] = [store, store.get(b"block"), store.claim(b"flight"), store.reserve(b"open", 1000)]
    cycle.append(cycle)


def while_a_thread_reads(store: BlockStore) -> None:
    """Leave a daemon thread in the middle of its reads."""

    def read() -> None:
        while True:
            store.get(b"block")

    threading.Thread(target=read, daemon=True).start()


def at_once(store: BlockStore) -> None:
    """Leave without any clean-up."""
    KEPT.append(store.get(b"block"))
    os._exit(0)


def closed_first(store: BlockStore) -> None:
    """Close while a view is out, and leave the view."""
    KEPT.append(store.get(b"block"))
    store.close()


def main(how: str, cache: str, tier: str) -> None:
    """Put a block, with a maintainer's thread at work, and leave."""
    store = BlockStore(cache, [Tier(tier, "24MiB", "MEM")])
    assert store.put(b"block", b"x" * 1000)
    globals()[how](store)


if __name__ == "__main__":
    main(*sys.argv[1:])

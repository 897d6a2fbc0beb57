"""A script: a cache shared by data-loading workers, as a training job has them.

python _workers.py fork|spawn|forkserver persistent|killed|crowd|leaving CACHE TIER URI [ENDPOINT]

persistent: workers live for several epochs and read indices from queues. killed: one of them is killed in the
middle, and others do the rest. crowd: 16 processes miss the same objects at once. leaving: the interpreter
ends with views, files and threads of the cache alive. Exits with 0 when every byte was right and nothing is
left.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import zlib
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from typing import Any, Final

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.meta import entries

OBJECTS: Final = 200
WORKERS: Final = 3
EPOCHS: Final = 3
CROWD: Final = 16
_KEPT: Final[list[object]] = []
# Many on a busy machine: one that waits for its turn is not to be taken for one that stands still.
PATIENCE_S: Final = 60.0
# The test that imports this has a patience of its own.
if __name__ in ("__main__", "__mp_main__"):
    entries._PATIENCE_S = PATIENCE_S  # type: ignore[misc]


def name_of(number: int) -> str:
    """Return the name of an object."""
    return f"part{number % 7}/{number:04}"


def content(number: int) -> bytes:
    """Return the bytes of an object."""
    return b"%08d" % number * (100 + number)


def work(cache: Cache, orders: Any, results: Any, dies_at: int | None) -> None:
    """Read what is ordered and answer with checksums, as a persistent worker does."""
    while (number := orders.get()) is not None:
        if number == dies_at:
            _KEPT.append(cache.read(f"d/{name_of(number)}"))
            os.kill(os.getpid(), signal.SIGKILL)
        with cache.read(f"d/{name_of(number)}") as view:
            results.put((os.getpid(), number, zlib.crc32(view)))
    cache.close()
    results.put((os.getpid(), None, 0))


def persistent(context: BaseContext, cache: Cache) -> None:
    """Run the same workers for some epochs."""
    orders, results = [context.Queue() for _ in range(WORKERS)], context.Queue()
    crew = [context.Process(target=work, args=(cache, each, results, None)) for each in orders]  # type: ignore[attr-defined]
    for worker in crew:
        worker.start()
    for _ in range(EPOCHS):
        for number in range(OBJECTS):
            orders[number % WORKERS].put(number)
        for _ in range(OBJECTS):
            _, number, checksum = results.get(timeout=60)
            assert checksum == zlib.crc32(content(number))
    for each in orders:
        each.put(None)
    for worker in crew:
        worker.join(60)
        assert worker.exitcode == 0


def killed(context: BaseContext, cache: Cache) -> None:
    """Kill a worker that holds a view; the others, and one that comes later, read on."""
    orders, results = [context.Queue() for _ in range(WORKERS)], context.SimpleQueue()
    crew = [
        context.Process(target=work, args=(cache, each, results, OBJECTS // 2))  # type: ignore[attr-defined]
        for each in orders
    ]
    for worker in crew:
        worker.start()
    for number in range(OBJECTS):
        orders[0 if number == OBJECTS // 2 else 1 + number % (WORKERS - 1)].put(number)
    for _ in range(OBJECTS - 1):
        _, number, checksum = results.get()
        assert checksum == zlib.crc32(content(number))
    crew[0].join(60)
    assert crew[0].exitcode == -signal.SIGKILL
    assert cache.read(f"d/{name_of(OBJECTS // 2)}") == content(OBJECTS // 2)
    for each in orders[1:]:
        each.put(None)
    for worker in crew[1:]:
        worker.join(60)
        assert worker.exitcode == 0


def read_all(cache: Cache, numbers: Sequence[int], barrier: Any, verdict: Any) -> None:
    """Read everything as soon as all are ready to."""
    barrier.wait(120)
    right = all(bytes(cache.read(f"d/{name_of(number)}")) == content(number) for number in numbers)
    cache.close()
    verdict.put(right)


def crowd(context: BaseContext, cache: Cache) -> None:
    """Have many miss the same at once."""
    barrier, verdict = context.Barrier(CROWD), context.SimpleQueue()
    arguments = (cache, range(OBJECTS), barrier, verdict)
    crew = [context.Process(target=read_all, args=arguments) for _ in range(CROWD)]  # type: ignore[attr-defined]
    for worker in crew:
        worker.start()
    assert all(verdict.get() for _ in crew)
    for worker in crew:
        worker.join(60)


def leaving(context: BaseContext, cache: Cache) -> None:
    """Leave views, an open file that reads ahead, views half-way, a load and a thread to the end."""
    views = cache.views(f"d/{name_of(OBJECTS - 1)}")
    file = cache.open(f"d/{name_of(1)}")
    file.read(10)
    _KEPT.extend([cache, cache.read(f"d/{name_of(0)}"), next(views), views, file, cache.load("d")])
    _KEPT.append(cache.read_many([f"d/{name_of(number)}" for number in range(20)]))

    def read() -> None:
        while True:
            for number in range(OBJECTS):
                cache.read(f"d/{name_of(number)}").release()

    threading.Thread(target=read, daemon=True).start()


def main(method: str, how: str, path: str, tier: str, uri: str, endpoint: str = "") -> None:
    """Attach, run, and look at what is left."""
    context = multiprocessing.get_context(method)
    tiers = [Tier(tier, 64 * MIB, "MEM")]
    cache = Cache(path, tiers, block_bytes=64 * KIB, stall_timeout_s=PATIENCE_S)
    cache.attach("d", uri, max_age=None, endpoint_url=endpoint or None)
    globals()[how](context, cache)
    if how != "leaving":
        status = cache.status()
        assert status["rows"]["used"] == 1, status["rows"]
        assert status["holders"] == []
        assert cache.check().ok
        cache.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A cache over an S3 server that can be made to stand still: for faults of whoever is fetching."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Self

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from tests._s3 import BUCKET, FakeS3, Handler
from tests.faults._child import DEADLINE_S, Child

BLOCK: Final = 64 * KIB
# After which the cache's clients give up a server that is silent.
TIMEOUT_S: Final = 20


def content(key: str, size: int = 1_000) -> bytes:
    """Return the bytes of an object of that name."""
    return random.Random(key).randbytes(size)


@dataclass
class Gate:
    """Holds up the requests for one key, the first of them, until it is opened."""

    key: str
    first: int = 1
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, handler: Handler) -> bool:
        """Wait if it is for this request; the ordinary answer follows in any case."""
        if handler.path.endswith(self.key) and self.first > 0:
            self.first -= 1
            self.reached.set()
            self.opened.wait(DEADLINE_S)
        return False


@dataclass
class Site:
    """The server, and where the cache lies."""

    server: FakeS3
    cache_dir: Path
    tier_dir: Path

    def open(self, **options: Any) -> Cache:
        """Open the cache; the first time with the bucket attached as ``d``."""
        options = {"block_bytes": BLOCK, **options}
        cache = Cache(self.cache_dir, [Tier(str(self.tier_dir), 64 * MIB, "MEM")], **options)
        if not cache.datasets():
            cache.attach(
                "d", f"s3://{BUCKET}", endpoint_url=self.server.url, max_age=None, timeout_s=TIMEOUT_S
            )
        return cache

    def gets(self, key: str = "") -> int:
        """Count the requests for objects, or for one."""
        paths = [request.path for request in self.server.requests if request.method == "GET"]
        return sum(path.endswith(f"/{key}" if key else "") for path in paths)

    @contextmanager
    def gate(self, key: str, first: int = 1) -> Iterator[Gate]:
        """Hold up requests for a key until the end of the block."""
        gate = Gate(key, first)
        self.server.interfere = gate
        try:
            yield gate
        finally:
            gate.opened.set()
            self.server.interfere = None


class Reader(Child):
    """A process that reads what it is told to."""

    def __init__(self, site: Site, **options: Any) -> None:
        super().__init__(serve, site, options)
        assert self.receive() == "ready"

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def begin(self, path: str) -> None:
        """Have it begin to read."""
        assert self.ask(path) == "begun"

    def read(self, path: str) -> Any:
        """Have it read, and return the bytes or the exception."""
        self.begin(path)
        return self.receive()

    def end(self) -> None:
        """Have it close the cache and end. Raises: ChildError."""
        self.send(None)
        self.result()


def serve(link: Connection, site: Site, options: dict[str, Any]) -> None:
    """Read the objects that the link names, saying "begun" and then the bytes or what was raised."""
    with site.open(**options) as cache:
        link.send("ready")
        while (path := link.recv()) is not None:
            try:
                link.send("begun")
                with cache.read(path) as view:
                    link.send(bytes(view))
            except (OSError, KeyboardInterrupt) as error:
                link.send(error)

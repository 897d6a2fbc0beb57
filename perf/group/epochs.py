"""A reader that passes over the objects of a group again and again, and what it met with."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forebay
from forebay.testing.proxy_process import ProxyProcess
from perf.group.members import Served, client, members
from perf.system.bucket import BUCKET, DATASET, served, write_objects


@dataclass
class Met:
    """What reads met with."""

    taken_s: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0


class Reader:
    """Reads all objects in one order, over and over, from a cache that keeps nothing; one read at a time."""

    def __init__(self, folder: Path, keys: list[str], cache: forebay.Cache) -> None:
        self._contents = {key: (folder / "s3" / BUCKET / key).read_bytes() for key in keys}
        self.cache = cache
        self._next = itertools.cycle(keys)

    @property
    def object_count(self) -> int:
        return len(self._contents)

    def read(self, count: int, met: Met) -> None:
        """Read the next so many objects."""
        for key in itertools.islice(self._next, count):
            begun_s = time.perf_counter()
            try:
                view = self.cache.read(f"{DATASET}/{key}")
            except OSError:
                met.failed += 1
                continue
            finally:
                met.taken_s.append(time.perf_counter() - begun_s)
            with view:
                met.wrong += bytes(view) != self._contents[key]

    def read_until(self, is_over: Callable[[], bool], met: Met) -> None:
        """Read on until it is over."""
        while not is_over():
            self.read(1, met)


@contextmanager
def group_of_warm_members(
    folder: Path, load: dict[str, Any]
) -> Iterator[tuple[list[Served], Reader, ProxyProcess]]:
    """Run new members that have all objects between them, a reader of them, and what counts the GETs."""
    keys = write_objects(folder / "s3", load["object_count"], load["object_bytes"], load["seed"])
    with (
        served(folder / "s3") as server,
        ProxyProcess(server.address, delay_ms=load["delay_ms"]) as proxy,
        members(folder, load["member_count"], proxy.url, load["quota_bytes"]) as group,
        client(folder, [each.address for each in group], proxy.url) as cache,
    ):
        reader = Reader(folder, keys, cache)
        reader.read(2 * len(keys), Met())
        proxy.stats(reset=True)
        yield group, reader, proxy


def percentile(figures: list[float], share: float) -> float:
    """Return the figure that this share of all does not exceed."""
    return sorted(figures)[min(int(len(figures) * share), len(figures) - 1)]

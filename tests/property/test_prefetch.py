"""Prefetch against reading one by one, over storages that fail: the same bytes, and errors in their places.

What an object does (is there, is absent, is forbidden, fails the first times) is drawn, and so are the sizes,
the order with its repetitions, the window, the budget, the quota and what the cache knows beforehand.
"""

from __future__ import annotations

import errno
import random
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.errors import UnderStorageError, forbidden
from forebay.testing.faulty import FaultyStorage

BLOCK = 64 * KIB
FAILURES_MAX = 2

OBJECTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 700, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]),
        st.sampled_from(["there", "there", "there", "absent", "forbidden", "broken", "unsteady"]),
    ),
    min_size=1,
    max_size=12,
)


class MoodyStorage(FaultyStorage):
    """Each object behaves as its mood says. Threads: any."""

    def __init__(self, objects: dict[str, bytes], moods: dict[str, str]) -> None:
        super().__init__({path: data for path, data in objects.items() if moods[path] != "absent"})
        self._moods = moods
        self._failed: Counter[str] = Counter()
        self._moods_lock = threading.Lock()

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> Any:
        mood = self._moods[path]
        if mood == "forbidden":
            raise forbidden(path, "not for you")
        with self._moods_lock:
            self._failed[path] += 1
            fails = mood == "broken" or (mood == "unsteady" and self._failed[path] <= FAILURES_MAX)
        if fails:
            raise UnderStorageError(errno.EIO, "not now", path)
        return super().read_range(path, offset, length, version)


def outcome_of(iterator: Any) -> tuple[str, object] | type[BaseException]:
    """Return what comes next: path and bytes, or the kind of the exception."""
    try:
        path, view = next(iterator)
        with view:
            return path, bytes(view)
    except (OSError, StopIteration) as error:
        return type(error)


@settings(max_examples=60)
@given(
    objects=OBJECTS,
    seed=st.integers(0, 1_000),
    window=st.sampled_from([0, 1_000, BLOCK, 2 * BLOCK, 5 * BLOCK, MIB, None]),
    memory=st.sampled_from([BLOCK, 4 * BLOCK, 16 * MIB]),
    threads=st.sampled_from([1, 2, 8]),
    knows=st.booleans(),
    is_full=st.booleans(),
    stops_after=st.one_of(st.none(), st.integers(0, 20)),
)
def test_it_gives_what_reading_gives(
    objects: list[tuple[int, str]],
    seed: int,
    window: int | None,
    memory: int,
    threads: int,
    knows: bool,
    is_full: bool,
    stops_after: int | None,
) -> None:
    draw = random.Random(seed)
    data = {f"o{number:02}": draw.randbytes(size) for number, (size, _) in enumerate(objects)}
    moods = {f"o{number:02}": mood for number, (_, mood) in enumerate(objects)}
    order = draw.choices([*data], k=draw.randint(1, 30))
    storage = MoodyStorage(data, moods)
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as place,
        Cache(
            Path(place) / "cache",
            [Tier(f"{place}/tier", 4 * MIB, "MEM")],
            block_bytes=BLOCK,
            schemes=storage.schemes(),
            fetch_memory=memory,
            fetch_threads=threads,
        ) as cache,
    ):
        cache.attach("d", "faulty://x", max_age=None)
        if is_full:
            fill(cache)
        if knows:
            cache.load("d", metadata_only=True, wait=True)
        ahead = cache.prefetch((f"d/{name}" for name in order), window_bytes=window)
        for name in order[:stops_after]:
            found = outcome_of(ahead)
            if moods[name] in ("there", "unsteady") or (not data[name] and knows and moods[name] != "absent"):
                # What fails the first times may still do so when its turn comes.
                is_right = found == (f"d/{name}", data[name])
                assert is_right or (moods[name] == "unsteady" and found is UnderStorageError)
            else:
                kinds = {"absent": FileNotFoundError, "forbidden": PermissionError}
                kind = kinds.get(moods[name], UnderStorageError)
                assert isinstance(found, type)
                assert issubclass(found, kind)
        if stops_after is None:
            assert outcome_of(ahead) is StopIteration
        ahead.close()
        status = cache.status()["fetch"]
        assert status["readahead_bytes"] == 0
        assert cache.check().ok


def fill(cache: Cache) -> None:
    """Leave no room in the tier."""
    store = cache._runtime().fetcher.store
    number = 0
    while store.put(b"filler %d" % number, bytes(BLOCK), dataset=999):
        number += 1

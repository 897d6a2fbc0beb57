"""Reads through peers that have blocks, lack them, are late, break off or answer for another version.

Whatever they do, the bytes are right, buffers keep within the memory there is, and what is kept is asked of
the source no more often than peers fail to have it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.remote import BlockRequest
from forebay.testing.faulty import FaultyStorage
from tests._remote import FakeRemote, Fate

BLOCK: Final = 64 * KIB
MEMORY_BYTES: Final = MIB
THREADS: Final = 4
PATHS: Final = ["a", "b", "sub/c", "sub/d"]

fates = st.sampled_from(["comes", "comes", "late", "lacks", "dies", "cut", "stale"])
lengths = st.sampled_from([0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 7, 20 * BLOCK + 5])
offsets = st.sampled_from([0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
reads = st.one_of(
    st.tuples(st.just("read"), st.sampled_from(PATHS), offsets, st.none() | lengths),
    st.tuples(st.just("readinto"), st.sampled_from(PATHS), offsets, lengths),
    st.tuples(st.just("read_many"), st.just(""), st.just(0), st.none()),
    st.tuples(st.just("views"), st.sampled_from(PATHS), st.just(0), st.none()),
    st.tuples(st.just("open"), st.sampled_from(PATHS), offsets, lengths),
)


def read(cache: Cache, objects: dict[str, bytes], call: tuple[str, str, int, int | None]) -> None:
    """Do one read, and hold it to the objects."""
    verb, path, offset, length = call
    data = objects.get(path, b"")
    wanted = data[offset:] if length is None else data[offset : offset + length]
    if verb == "read":
        assert cache.read(f"d/{path}", offset, length) == wanted
    elif verb == "readinto":
        buffer = bytearray(length or 0)
        assert cache.readinto(f"d/{path}", buffer, offset) == len(wanted)
        assert buffer[: len(wanted)] == wanted
    elif verb == "read_many":
        views = cache.read_many([f"d/{each}" for each in objects])
        assert [bytes(view) for view in views] == list(objects.values())
    elif verb == "views":
        assert b"".join(bytes(view) for view in cache.views(f"d/{path}")) == data
    else:
        with cache.open(f"d/{path}") as file:
            file.seek(offset)
            assert file.read(length) == wanted


@given(
    sizes=st.lists(lengths, min_size=len(PATHS), max_size=len(PATHS)),
    calls=st.lists(reads, min_size=1, max_size=12),
    plan=st.lists(fates, min_size=1, max_size=20),
    local_copy=st.sampled_from(["never", "always", "if_room"]),
    is_known=st.booleans(),
    split=st.sampled_from(["", "b", "sub/d", "z"]),
)
@settings(max_examples=40)
def test_reads_through_any_peers_are_right(
    sizes: list[int],
    calls: list[tuple[str, str, int, int | None]],
    plan: list[Fate],
    local_copy: str,
    is_known: bool,
    split: str,
) -> None:
    objects = {
        path: bytes((number * 7 + at // 251) % 256 for at in range(size))
        for number, (path, size) in enumerate(zip(PATHS, sizes, strict=True))
    }
    storage = FaultyStorage(objects)
    remote = FakeRemote(storage)
    remote.elsewhere = lambda path, offset: path < split
    failed: Counter[tuple[str, int]] = Counter()

    def fate(request: BlockRequest) -> Fate:
        at = sum(len(batch) for batch in remote.batches) + request.number
        chosen = plan[at % len(plan)]
        failed[request.path, request.number] += chosen not in ("comes", "late")
        return chosen

    remote.fate = fate
    folder = Path(tempfile.mkdtemp(prefix="forebay-test-", dir="/dev/shm"))
    try:
        with Cache(
            folder / "cache",
            [Tier(str(folder / "tier"), 64 * MIB, "MEM")],
            block_bytes=BLOCK,
            schemes=storage.schemes(),
            remote=remote,
            fetch_memory=MEMORY_BYTES,
            max_read_bytes=8 * MIB,
        ) as cache:
            cache.attach("d", "faulty://x", max_age=None, local_copy=local_copy)
            if is_known:
                cache.sync("d")
            storage.calls.clear()
            with ThreadPoolExecutor(THREADS) as threads:
                for done in threads.map(lambda call: read(cache, objects, call), calls):
                    assert done is None
            peak_bytes = remote.buffer_bytes_max
            assert peak_bytes <= MEMORY_BYTES + 2 * BLOCK
            counted = cache.status()["counters"]
            assert counted["peer_down"] <= counted["peer_requests"]
            if local_copy == "always" and split == "z" and not any(failed.values()):
                assert storage.calls["read_range"] == 0
                asked = Counter((each.path, each.number) for batch in remote.batches for each in batch)
                assert set(asked.values()) <= {1}
    finally:
        shutil.rmtree(folder)

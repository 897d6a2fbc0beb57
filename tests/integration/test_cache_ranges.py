"""`Cache.read_ranges` and `Cache.peek`: parts of many objects at a time, and what is at hand."""

from __future__ import annotations

import random

import pytest

from forebay.cache import Cache
from forebay.config import KIB
from forebay.errors import NotFound, Stale
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache

BLOCK = 64 * KIB
SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7)
DATA = {f"f{size}": random.Random(size).randbytes(size) for size in SIZES}
LARGE = f"f{SIZES[-1]}"


@pytest.fixture
def source() -> FaultyStorage:
    return FaultyStorage(DATA)


@pytest.fixture
def ranged(open_cache: OpenCache, source: FaultyStorage) -> Cache:
    cache = open_cache(schemes=source.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    return cache


def test_ranges_are_those_of_the_objects_cold_and_cached(ranged: Cache) -> None:
    dice = random.Random(5)
    lengths = (None, 0, 1, BLOCK, 3 * BLOCK)
    for turn in range(60):
        if turn % 7 == 0:
            ranged.free("d", metadata=turn % 2 == 0)
        asked = [
            (dice.choice(list(DATA)), dice.randrange(6 * BLOCK), dice.choice(lengths))
            for _ in range(dice.randrange(12))
        ]
        views = ranged.read_ranges((f"d/{name}", offset, length) for name, offset, length in asked)
        for (name, offset, length), view in zip(asked, views, strict=True):
            end = None if length is None else offset + length
            assert view == DATA[name][offset:end], (name, offset, length)
            view.release()


def test_a_block_that_several_ranges_share_is_fetched_once(ranged: Cache, source: FaultyStorage) -> None:
    ranged.stat(f"d/{LARGE}")
    source.calls.clear()
    spans = [(0, 10), (100, 10), (BLOCK - 5, 10), (BLOCK + 50, 5), (BLOCK + 50, 5)]
    views = ranged.read_ranges((f"d/{LARGE}", offset, length) for offset, length in spans)
    assert [bytes(view) for view in views] == [DATA[LARGE][at : at + length] for at, length in spans]
    assert source.calls["read_range"] == 1


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
def test_negative_figures_are_refused(ranged: Cache, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="not negative"):
        ranged.read_ranges([(f"d/{LARGE}", offset, length)])


def test_the_first_that_cannot_be_read_is_told(ranged: Cache) -> None:
    with pytest.raises(NotFound, match="absent"):
        ranged.read_ranges([(f"d/{LARGE}", 0, 5), ("d/absent", 0, 5)])


def test_a_peek_asks_nobody(ranged: Cache, source: FaultyStorage) -> None:
    name = f"f{BLOCK}"
    assert ranged.peek(f"d/{name}") is None
    ranged.read(f"d/{name}").release()
    ranged.stat(f"d/{name}")
    source.calls.clear()
    view = ranged.peek(f"d/{name}")
    assert view is not None
    assert view == DATA[name]
    assert ranged.peek(f"d/{name}", bytes_max=BLOCK - 1) is None
    assert ranged.peek("d/absent") is ranged.peek("d") is None
    assert not source.calls


def test_folders_have_directories_of_their_own(ranged: Cache) -> None:
    assert ranged.has_directories("d/any") is FaultyStorage.has_directories


@pytest.mark.parametrize("cached", range(3))
def test_ranges_of_one_object_are_of_one_version(
    open_cache: OpenCache, source: FaultyStorage, cached: int
) -> None:
    ranged = open_cache(schemes=source.schemes())
    ranged.attach("d", "faulty://x", max_age=3600)
    places = [0, 2 * BLOCK, 4 * BLOCK]
    kept = ranged.read(f"d/{LARGE}", places[cached], 10)
    newer = bytes(byte ^ 255 for byte in DATA[LARGE])
    source.put(LARGE, newer)
    asked = [(f"d/{LARGE}", place, 10) for place in places] + [("d/f1", 0, 1)]
    views = ranged.read_ranges(asked)
    assert [bytes(view) for view in views] == [newer[place : place + 10] for place in places] + [DATA["f1"]]
    assert kept == DATA[LARGE][places[cached] : places[cached] + 10]


def test_ranges_of_an_object_that_changes_again_are_of_no_version(
    open_cache: OpenCache, source: FaultyStorage
) -> None:
    ranged = open_cache(schemes=source.schemes())
    ranged.attach("d", "faulty://x", max_age=3600)
    ranged.read(f"d/{LARGE}", 0, 10).release()
    source.put(LARGE, DATA[LARGE][::-1])
    # What is not cached is asked for in the old version, then all in the new one, which is gone by then.
    source.script("read_range", None, lambda: source.put(LARGE, DATA[LARGE][1:]))
    asked = [(f"d/{LARGE}", place, 10) for place in (0, 3 * BLOCK)]
    with pytest.raises(Stale):
        ranged.read_ranges(asked)
    newest = DATA[LARGE][1:]
    assert [bytes(view) for view in ranged.read_ranges(asked)] == [newest[:10], newest[3 * BLOCK :][:10]]

"""`Cache.read_ranges` and `Cache.peek`: parts of many objects at a time, and what is at hand."""

from __future__ import annotations

import random

import pytest

from forebay.cache import Cache
from forebay.config import KIB
from forebay.errors import NotFound
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

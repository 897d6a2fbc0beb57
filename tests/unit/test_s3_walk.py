"""Keys listed range by range: every key exactly once, whatever the keys, the pages and the workers."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import NotFound, UnderStorageError
from forebay.ufs._s3_cut import Ruler
from forebay.ufs._s3_listing import Listing
from forebay.ufs._s3_names import Key, is_path
from forebay.ufs._s3_pages import Page
from forebay.ufs._s3_walk import walk_keys

CHARACTERS = "/0az😀"
KEYS = st.text(alphabet=CHARACTERS, min_size=1, max_size=6)


class Bucket:
    """What Listing offers, over a list of keys. Counts requests."""

    uri = "s3://bucket/pre"

    def __init__(
        self,
        keys: list[str],
        prefix: str = "",
        page_keys: int = 3,
        *,
        starts_after: bool = True,
        descending: bool = False,
    ) -> None:
        self.prefix = prefix
        self.keys = sorted((key for key in keys if key.startswith(prefix)), reverse=descending)
        self.page_keys = page_keys
        self.starts_after = starts_after
        self.request_count = 0
        self.range_count = 0
        self._lock = threading.Lock()

    def pages(self, start_after: str = "") -> Iterator[Page]:
        self.range_count += 1
        at = bisect_right(self.keys, start_after) if self.starts_after and start_after else 0
        while True:
            with self._lock:
                self.request_count += 1
            keys = self.keys[at : at + self.page_keys]
            at += len(keys)
            yield Page([Key(key, 1, 0, "v") for key in keys], [], at < len(self.keys), str(at))
            if at >= len(self.keys):
                return

    def common_prefixes(self) -> list[str]:
        rests = (key[len(self.prefix) :] for key in self.keys)
        groups = {self.prefix + rest[: rest.index("/") + 1] for rest in rests if "/" in rest}
        return sorted(groups)[: self.page_keys]


def walk(bucket: Bucket, workers: int, hidden: list[int] | None = None) -> list[str]:
    count = hidden if hidden is not None else []
    pages = walk_keys(cast(Listing, bucket), "", workers, count.append)
    return [info.path for page in pages for info in page]


@settings(max_examples=150)
@given(
    keys=st.sets(KEYS, max_size=60),
    prefix=st.sampled_from(["", "a/", "0"]),
    page_keys=st.integers(1, 7),
    workers=st.integers(1, 6),
    starts_after=st.booleans(),
)
def test_every_key_comes_once(
    keys: set[str], prefix: str, page_keys: int, workers: int, starts_after: bool
) -> None:
    bucket = Bucket(list(keys), prefix, page_keys, starts_after=starts_after)
    hidden: list[int] = []
    below = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
    if prefix and not below:
        with pytest.raises(NotFound):
            walk(bucket, workers)
        return
    found = walk(bucket, workers, hidden)
    assert sorted(found) == sorted(rest for rest in below if is_path(rest))
    assert sum(hidden) == sum(not is_path(rest) for rest in below)


def test_a_small_prefix_takes_one_request() -> None:
    bucket = Bucket([f"{number}" for number in range(10)], page_keys=10)
    assert len(walk(bucket, 8)) == 10
    assert bucket.request_count == 1


def test_a_prefix_of_two_pages_takes_two_requests() -> None:
    bucket = Bucket([f"{number // 5}/{number:02}" for number in range(20)], page_keys=10)
    assert len(walk(bucket, 8)) == 20
    assert bucket.request_count == 2


@pytest.mark.parametrize(
    "name",
    [
        lambda number: f"{number:07}.jpg",
        lambda number: f"{number:x}",
        lambda number: f"same/long/folder/{number:07}",
        lambda number: f"train/class{number // 100:04}/x/image_{number:07}.jpg",
        lambda number: f"train/class{number % 7}/{number:07}",
        lambda number: hashlib.md5(f"{number}".encode(), usedforsecurity=False).hexdigest(),
    ],
    ids=["flat", "hexadecimal", "in a folder", "small classes", "large classes", "hashes"],
)
def test_a_large_prefix_is_shared_out_at_little_expense(name: Callable[[int], str]) -> None:
    keys = [name(number) for number in range(20_000)]
    bucket = Bucket(keys, page_keys=100)
    assert len(walk(bucket, 8)) == len(keys)
    assert bucket.request_count <= 200 * 1.5
    assert bucket.range_count >= 8


def test_a_server_that_sorts_otherwise_is_listed_as_one_chain() -> None:
    keys = [f"{number:04}" for number in range(100)]
    bucket = Bucket(keys, page_keys=10, descending=True)
    assert sorted(walk(bucket, 8)) == keys
    assert bucket.request_count == 10


def test_an_order_lost_in_the_middle_is_an_error() -> None:
    class Disturbed(Bucket):
        def pages(self, start_after: str = "") -> Iterator[Page]:
            for number, page in enumerate(super().pages(start_after)):
                if number >= 3:
                    page.keys.reverse()
                yield page

    bucket = Disturbed([f"{number:04}" for number in range(1_000)], page_keys=10)
    with pytest.raises(UnderStorageError, match="out of order"):
        walk(bucket, 4)


@given(
    keys=st.lists(KEYS, min_size=3, max_size=3, unique=True),
    bounded=st.booleans(),
    more=st.sets(KEYS),
    pages_ahead=st.integers(1, 40),
)
def test_a_cut_lies_behind_the_page_and_within_the_range(
    keys: list[str], bounded: bool, more: set[str], pages_ahead: int
) -> None:
    before, last, upto = sorted(keys)
    place = learned(before, last, *more).cut(before, last, upto if bounded else None, pages_ahead)
    if place is not None:
        assert last < place
        assert not bounded or place < upto


@pytest.mark.parametrize(
    ("before", "last", "upto", "pages_ahead", "low", "high"),
    [
        ("0000", "0010", None, 3, "0030", "0060"),
        ("0000", "0010", None, 50, "0400", "0700"),
        ("0000", "0010", "0910", 1, "0400", "0500"),
        ("a0000", "a0010", None, 3, "a0030", "a0060"),
        ("n01/0000.jpg", "n01/0990.jpg", "n99/", 1, "n4", "n6"),
    ],
)
def test_a_cut_is_measured_in_pages(
    before: str, last: str, upto: str | None, pages_ahead: int, low: str, high: str
) -> None:
    """About: the end of a text counts as a digit too."""
    place = learned(before, last).cut(before, last, upto, pages_ahead)
    assert place is not None
    assert low <= place <= high


@pytest.mark.parametrize(("last", "upto"), [("0010", "0030"), ("9999999999", None)])
def test_what_is_short_or_at_its_end_is_not_cut(last: str, upto: str | None) -> None:
    assert learned("0000", last).cut("0000", last, upto, 8) is None


def learned(*keys: str) -> Ruler:
    ruler = Ruler()
    for key in keys:
        ruler.learn(key)
    return ruler

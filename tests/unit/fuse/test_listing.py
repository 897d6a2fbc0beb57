"""Open directories: what they keep of their entries, and for how long that holds."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest

from forebay.cache import Entry
from forebay.fuse.attributes import Appearance
from forebay.fuse.listing import Listing
from forebay.fuse.options import MountOptions

MANY = 1_000


@pytest.fixture
def appearance() -> Appearance:
    return Appearance(MountOptions(), read_only=True)


def entry(path: str, number: int, *, is_dir: bool = False) -> Entry:
    return Entry(path, 0 if is_dir else number, number, "v", is_dir, 0, number)


def test_entries_are_what_was_added(appearance: Appearance) -> None:
    listing = Listing()
    listing.add(b"0", appearance.described(1 << 63, 1 << 40, -5, 0.0, is_dir=False), is_dir=False)
    listing.add(b"1", appearance.described(7, 0, 5, 2.0, is_dir=True), is_dir=True)
    assert len(listing) == 2
    assert list(listing.rows(0)) == [(b"0", 1 << 63, 1 << 40, -5, 0.0, 0), (b"1", 7, 0, 5, 2.0, 1)]


@pytest.mark.parametrize("begin", ["", "a/b/"])
def test_pages_are_added_as_entries_are(appearance: Appearance, begin: str) -> None:
    names = [f"n\udcff{number}" for number in range(MANY)]
    listing, expected = Listing(), []
    for is_dir in (True, False):
        page = [entry(f"{begin}{name}", number, is_dir=is_dir) for number, name in enumerate(names)]
        listing.add_page(page, [float(number) for number in range(MANY)])
        expected += [
            (name.encode("utf-8", "surrogateescape"), number, 0 if is_dir else number, number, number, is_dir)
            for number, name in enumerate(names)
        ]
    listing.add_page([], [])
    for start in (0, 1, 255, 256, MANY, 2 * MANY - 1, 2 * MANY):
        assert list(listing.rows(start)) == expected[start:]


def test_what_was_listed_long_ago_holds_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("forebay.fuse.listing.monotonic", lambda: now_s)
    listing = Listing()
    assert listing.left_s(60.0) == 60.0
    now_s = 145.0
    assert listing.left_s(60.0) == 15.0
    now_s = 200.0
    assert listing.left_s(60.0) == 0.0


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "n" * 1_025])
def test_names_that_no_file_system_shows(appearance: Appearance, name: str) -> None:
    listing = Listing()
    listing.add(name.encode(), appearance.described(7, 0, 0, 0.0, is_dir=False), is_dir=False)
    assert len(listing) == 0
    page = [entry(f"a/{each}", number) for number, each in enumerate(("b", name, "c"))]
    listing.add_page(page, [10.0, 11.0, 12.0])
    assert list(listing.rows(0)) == [(b"b", 0, 0, 0, 10.0, 0), (b"c", 2, 2, 2, 12.0, 0)]


def test_a_name_with_a_slash_is_not_shown(appearance: Appearance) -> None:
    listing = Listing()
    listing.add(b"a/b", appearance.described(7, 0, 0, 0.0, is_dir=False), is_dir=False)
    assert len(listing) == 0


def filled(listing: Listing) -> Iterator[None]:
    """Add two pages with nothing between them, and fail."""
    for names in ("ab", "", "cd"):
        listing.add_page([entry(name, ord(name)) for name in names], [1.0] * len(names))
        yield
    raise OSError("gone")


def test_a_listing_is_read_as_far_as_it_is_reached() -> None:
    listing = Listing(filled)
    assert len(listing) == 0
    for number, count in ((0, 2), (1, 2), (2, 4), (0, 4), (3, 4)):
        listing.reach(number)
        assert len(listing) == count
    assert [row[0] for row in listing.rows(1)] == [b"b", b"c", b"d"]


def test_what_fails_is_raised_where_it_is_reached() -> None:
    listing = Listing(filled)
    for _ in range(10):
        listing.read_on()
    assert listing.is_ahead_of(0)
    listing.reach(3)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            listing.reach(4)
    assert len(list(listing.rows(0))) == 4


def test_an_end_is_no_failure() -> None:
    listing = Listing()
    assert not listing.is_ahead_of(0)
    listing.reach(0)
    assert listing.is_ahead_of(0)
    assert list(listing.rows(0)) == []


def test_a_listing_that_is_closed_is_gone_at_once() -> None:
    listing = Listing(filled)
    listing.reach(0)
    watched = weakref.ref(listing)
    listing.close()
    listing.read_on()
    assert len(listing) == 2
    del listing
    assert watched() is None

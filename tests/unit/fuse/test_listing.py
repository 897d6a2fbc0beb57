"""Open directories: what they keep of their entries, and for how long that holds."""

from __future__ import annotations

import pytest

from forebay.fuse.attributes import Appearance
from forebay.fuse.listing import Listing
from forebay.fuse.options import MountOptions


@pytest.fixture
def appearance() -> Appearance:
    return Appearance(MountOptions(), read_only=True)


def test_entries_are_what_was_added(appearance: Appearance) -> None:
    listing = Listing(appearance)
    added = [
        appearance.described(1 << 63, 1 << 40, -5, 0.0, is_dir=False),
        appearance.described(7, 0, 5, 0.0, is_dir=True),
    ]
    for number, attributes in enumerate(added):
        listing.add(b"%d" % number, attributes, is_dir=number == 1)
    assert listing.names == [b"0", b"1"]
    assert [listing.attributes(number) for number in range(len(listing))] == added


def test_what_was_listed_long_ago_holds_for_less(
    appearance: Appearance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("forebay.fuse.listing.monotonic", lambda: now_s)
    listing = Listing(appearance)
    listing.add(b"a", appearance.described(7, 0, 0, 60.0, is_dir=False), is_dir=False)
    assert listing.attributes(0).timeout_s == 60.0
    now_s = 145.0
    assert listing.attributes(0).timeout_s == 15.0
    now_s = 200.0
    assert listing.attributes(0).timeout_s == 0.0


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"n" * 1_025])
def test_names_that_no_file_system_shows(appearance: Appearance, name: bytes) -> None:
    listing = Listing(appearance)
    listing.add(name, appearance.described(7, 0, 0, 0.0, is_dir=False), is_dir=False)
    assert len(listing) == 0

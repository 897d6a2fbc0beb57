"""The listing of a load: spooled behind one thread and read by another, and whether it still holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from forebay.cache.loads.listing import Lister, Listing
from forebay.cache.loads.spool import JobFolder
from forebay.errors import forbidden
from forebay.meta import Entry


class FakeLister:
    """Yields the pages that the test says."""

    started_ns = 77

    def __init__(self, pages: Iterator[list[Entry]]) -> None:
        self._pages = pages

    def pages(self, is_stopped: Callable[[], bool]) -> Iterator[list[Entry]]:
        for page in self._pages:
            if is_stopped():
                return
            yield page


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "jobs" / "a")
    folder.make()
    return folder


def entries(*numbers: int) -> list[Entry]:
    return [Entry(f"d/{number}\udcff\n", number, 5, f"v{number}", False, 77) for number in numbers]


def fill(listing: Listing, pages: Iterator[list[Entry]]) -> list[tuple[int, int]]:
    totals: list[tuple[int, int]] = []
    listing.fill(cast("Lister", FakeLister(pages)), on_end=lambda files, size: totals.append((files, size)))
    return totals


def test_pages_are_read_while_more_are_listed(folder: JobFolder) -> None:
    go_on = threading.Event()

    def pages() -> Iterator[list[Entry]]:
        yield entries(1, 2)
        yield []
        assert go_on.wait(60)
        yield entries(3)

    listing = Listing(folder, threading.Event())
    totals = fill(listing, pages())
    read = listing.pages()
    assert next(read) == entries(1, 2)
    assert totals == []
    go_on.set()
    assert list(read) == [entries(3)]
    listing.close()
    assert totals == [(3, 6)]
    assert list(listing.pages()) == [entries(1, 2), entries(3)]


def test_a_whole_listing_is_used_again_while_it_holds(folder: JobFolder) -> None:
    first = Listing(folder, threading.Event())
    fill(first, iter([entries(1), entries(2)]))
    first.close()
    again = Listing(folder, threading.Event())
    assert not again.is_usable(lambda listed_ns: listed_ns > 77)
    assert again.is_usable(lambda listed_ns: listed_ns == 77)
    assert again.totals == (2, 3)
    assert list(again.pages()) == [entries(1), entries(2)]
    end = folder.get("listing.end")
    assert end is not None
    folder.put("listing.end", {**end, "boot_id": "another"})
    assert not Listing(folder, threading.Event()).is_usable(lambda listed_ns: True)


def test_a_listing_that_was_not_completed_is_not_used_again(folder: JobFolder) -> None:
    def fail() -> Iterator[list[Entry]]:
        yield entries(1)
        raise forbidden("s3://b", "HTTP 403")

    listing = Listing(folder, threading.Event())
    totals = fill(listing, fail())
    read = listing.pages()
    assert next(read) == entries(1)
    with pytest.raises(PermissionError, match="HTTP 403"):
        next(read)
    listing.close()
    stop = threading.Event()
    stopped = Listing(folder, stop)
    stop.set()
    totals += fill(stopped, iter([entries(1)]))
    stopped.close()
    assert list(stopped.pages()) == []
    assert totals == []
    assert not Listing(folder, threading.Event()).is_usable(lambda listed_ns: True)

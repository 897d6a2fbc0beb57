"""What a prefetch hurries for: what is due soon, and more where that proves too late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.faults._child import wait_until
from tests.integration._sites import OpenCache
from tests.integration.test_prefetch import WAIT_S, CountingStorage, know_all, paths_of

FEW = 8
CLOSE = 128


class Epoch:
    """A cache of which some objects, by their numbers, are cached, and a reader on its way through all."""

    def __init__(self, open_cache: OpenCache, cached: set[int], missing: set[int]) -> None:
        self.names = {number: f"{number:04}" for number in sorted(cached | missing)}
        self.storage = CountingStorage({name: name.encode() for name in self.names.values()})
        self.cache = open_cache(schemes=self.storage.schemes())
        self.cache.attach("d", "faulty://x", max_age=None)
        know_all(self.cache)
        assert self.cache.load("d", files=[self.names[number] for number in cached]).wait(WAIT_S).ok
        self.storage.read.clear()
        self.ahead = self.cache.prefetch(paths_of(self.names.values()))

    def hold(self, numbers: set[int]) -> threading.Event:
        """Hold the reads of these objects up; return what lets them go on."""
        event = threading.Event()
        self.storage.held |= {self.names[number]: event for number in numbers}
        return event

    def read_to(self, number: int) -> None:
        """Read on until this object has been read."""
        for path, view in self.ahead:
            assert bytes(view).decode() == path.removeprefix("d/")
            if path == f"d/{number:04}":
                return
        raise AssertionError(f"there is no object {number}")


@pytest.fixture
def open_epoch(open_cache: OpenCache) -> Iterator[Callable[[set[int], set[int]], Epoch]]:
    epochs: list[Epoch] = []

    def open_one(cached: set[int], missing: set[int]) -> Epoch:
        epochs.append(Epoch(open_cache, cached, missing))
        return epochs[-1]

    yield open_one
    for epoch in epochs:
        for event in epoch.storage.held.values():
            event.set()
        epoch.ahead.close()


def test_what_is_not_due_soon_is_fetched_by_few(open_epoch: Callable[..., Epoch]) -> None:
    missing = set(range(300, 400))
    epoch = open_epoch(set(range(300)), missing)
    epoch.hold(missing)
    # At each object two more are looked at: the missing ones from 150 on, so many objects ahead.
    epoch.read_to(170)
    wait_until(lambda: len(epoch.storage.read) == FEW, "a few are asked for")
    epoch.read_to(175)
    assert len(epoch.storage.read) == FEW
    # The first of those that wait is due soon now, and then ever more.
    epoch.read_to(299)
    wait_until(lambda: len(epoch.storage.read) > 5 * FEW, "many are asked for")


def test_what_was_late_is_hurried_for_earlier(open_epoch: Callable[..., Epoch]) -> None:
    missing = {300, *range(700, 800)}
    epoch = open_epoch(set(range(800)) - missing, missing)
    go_on, _ = epoch.hold({300}), epoch.hold(missing - {300})
    epoch.read_to(299)
    reader = threading.Thread(target=epoch.read_to, args=(300,))
    reader.start()
    # While it waits for what was asked for long ago, the rest is looked at, and asked for by few.
    wait_until(lambda: len(epoch.storage.read) == FEW, "others are asked for")
    go_on.set()
    reader.join(WAIT_S)
    wait_until(lambda: len(epoch.storage.read) == 1 + FEW, "one more is asked for instead")
    epoch.read_to(700 + FEW - 2 * CLOSE - 1)
    assert len(epoch.storage.read) == 1 + FEW
    # As far away as was not soon enough to be hurried for at first.
    epoch.read_to(690 - CLOSE)
    wait_until(lambda: len(epoch.storage.read) > 5 * FEW, "many are asked for")

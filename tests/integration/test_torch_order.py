"""The order of an epoch, told to torch workers: what comes is what the sampler says, and is fetched ahead."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from forebay.api.torch import MapDataset, OrderedBatches, loader
from forebay.cache import Cache
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import wait_until
from tests.integration._sites import OpenCache

COUNT = 3_000
WAIT_S = 60


class HeldStorage(FaultyStorage):
    """Notes which objects are read; one of them is held up."""

    def __init__(self) -> None:
        super().__init__({f"{number:04}": b"%04d" % number for number in range(COUNT)})
        self.read: list[str] = []
        self.held = ""
        self.go_on = threading.Event()

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> Any:
        self.read.append(path)
        if path == self.held:
            assert self.go_on.wait(WAIT_S)
        return super().read_range(path, offset, length, version)


@pytest.fixture
def storage() -> HeldStorage:
    return HeldStorage()


@pytest.fixture
def dataset(open_cache: OpenCache, storage: HeldStorage) -> MapDataset:
    """All objects in order; what is known of them costs no request, and samples are their numbers."""
    cache: Cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    cache.load("d", metadata_only=True, wait=True)
    return MapDataset.from_prefix(cache, "d", decode=lambda path, data: int(bytes(data)))


def numbers_of(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch]


def shuffled(seed: int) -> list[int]:
    return random.Random(seed).sample(range(COUNT), COUNT)


def in_batches(order: Sequence[int], size: int = 7) -> list[list[int]]:
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_batch_says_what_its_worker_reads_next(workers: int) -> None:
    batches = in_batches(range(100), 9)
    told: Any = list(OrderedBatches(batches, workers))
    assert told == batches
    for number, batch in enumerate(told):
        assert list(batch.upcoming) == list(
            itertools.chain(*batches[number + max(workers, 1) :: max(workers, 1)])
        )


def test_an_endless_sampler_is_asked_for_so_much_only() -> None:
    asked = itertools.count()

    def endless() -> Iterator[list[int]]:
        while True:
            yield [next(asked)]

    batches: Any = iter(OrderedBatches(endless(), 2))
    for number in range(50):
        batch = next(batches)
        assert batch == [number]
        assert list(batch.upcoming) == list(range(number + 2, number + 2 + 2 * 1_024, 2))
    assert next(asked) < 50 + 2 * 1_024 + 4


def test_what_a_sampler_raises_comes_where_it_is_raised() -> None:
    def failing() -> Iterator[list[int]]:
        yield [1]
        yield [2]
        raise LookupError("no third batch")

    batches = iter(OrderedBatches(failing(), 1))
    assert [next(batches), next(batches)] == [[1], [2]]
    with pytest.raises(LookupError, match="no third batch"):
        next(batches)
    with pytest.raises(ValueError, match="-1 is negative"):
        OrderedBatches([], -1)


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_come_in_the_samplers_order_and_each_object_is_fetched_once(
    dataset: MapDataset, storage: HeldStorage, workers: int
) -> None:
    orders = iter([shuffled(1), shuffled(2)])

    class Sampler:
        def __iter__(self) -> Iterator[int]:
            return iter(next(orders))

        def __len__(self) -> int:
            return COUNT

    options: dict[str, Any] = (
        {"multiprocessing_context": "fork", "persistent_workers": True} if workers else {}
    )
    reading = loader(
        dataset, sampler=Sampler(), batch_size=32, num_workers=workers, collate_fn=list, **options
    )
    assert len(reading) == -(-COUNT // 32)
    assert numbers_of(reading) == shuffled(1)
    assert numbers_of(reading) == shuffled(2)
    assert dataset.cache.status()["counters"]["source_bytes"] == 4 * COUNT


def test_what_finds_no_room_is_fetched_once_an_epoch_all_the_same(
    dataset: MapDataset, storage: HeldStorage
) -> None:
    dataset.cache.set_quota("d", 1)
    reading = loader(dataset, batch_size=32, shuffle=True, collate_fn=list)
    for epoch in (1, 2):
        assert sorted(numbers_of(reading)) == list(range(COUNT))
        assert len(storage.read) == epoch * COUNT


def test_what_is_told_is_fetched_before_it_is_asked_for(dataset: MapDataset, storage: HeldStorage) -> None:
    order = shuffled(3)
    storage.held = f"{order[0]:04}"
    reading = iter(loader(dataset, batch_sampler=in_batches(order), collate_fn=list))
    first: list[Any] = []
    reader = threading.Thread(target=lambda: first.append(next(reading)))
    reader.start()
    try:
        wait_until(lambda: len(storage.read) >= 1_000, "what comes after the first batch is fetched")
        assert not first
        assert set(storage.read) <= {f"{number:04}" for number in order[:1_100]}
    finally:
        storage.go_on.set()
        reader.join(WAIT_S)
    assert first == [order[:7]]


def test_an_order_that_changes_in_the_middle_is_followed_from_there(dataset: MapDataset) -> None:
    batches = in_batches(shuffled(4))
    reading = iter(loader(dataset, batch_sampler=batches, collate_fn=list))
    found = [next(reading) for _ in range(10)]
    # Beyond what the sampler was asked for by now.
    changed = in_batches(shuffled(5))
    was = [list(batch) for batch in batches]
    batches[300:] = changed[300:]
    assert [*found, *reading] == was[:300] + changed[300:]


def test_batches_that_come_in_another_order_than_was_told_are_read_as_they_come(dataset: MapDataset) -> None:
    told: list[Any] = list(OrderedBatches(in_batches(shuffled(6)), 1))
    # Some are left out, as when a run is resumed; some come again; some come twice.
    for batch in [told[0], *told[40:50], *told[20:30], told[29], told[29], told[-1], told[0], [3, 1, 2]]:
        assert dataset.__getitems__(batch) == list(batch)


def test_an_object_that_cannot_be_read_fails_its_batch_alone(
    dataset: MapDataset, storage: HeldStorage
) -> None:
    told: list[Any] = list(OrderedBatches(in_batches(range(COUNT)), 1))
    storage.remove("0010")
    assert dataset.__getitems__(told[0]) == told[0]
    with pytest.raises(OSError, match="0010"):
        dataset.__getitems__(told[1])
    for batch in told[2:5]:
        assert dataset.__getitems__(batch) == batch


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shuffle": True, "sampler": [1]}, "shuffle"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler"),
        ({"batch_sampler": [[1]], "drop_last": True}, "batch_sampler"),
        ({"num_workers": -1}, "-1"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(
    dataset: MapDataset, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        loader(dataset, **options)

"""Writers of a dataset with a quota are killed: it is never exceeded, and all of it can be used again.

The sum that a quota goes by and the slots change one after the other; these kills fall in between.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import mmh3
import pytest

from forebay.config import KIB
from forebay.store import BlockStore
from tests.faults._child import Child, run, wait_until
from tests.faults._place import Place, settle
from tests.faults._points import NEW_PAGES, SPLIT_AT, arm, in_first_page

OWN: Final = 5
FILES: Final = 6  # the dataset of whole files
QUOTA: Final = 512 * KIB
FILE_QUOTA: Final = 2048 * KIB
LENGTH_MAX: Final = 6000
KEYS: Final = 200
WRITERS: Final = 3
MOMENTS: Final = 50
# Where the sum has been changed and the slot has not, or the other way round, and around it.
POINTS: Final = (
    "index.add",
    "index.locked",
    "index.removed",
    "index.set",
    "index.shift",
    "delete.unpublished",
    "put.committed",
    "put.published",
    "put.reserved",
    "whole.written",
)
PASSINGS: Final = (1, 15)  # of a file there are 17


@cache
def crowded_keys() -> list[bytes]:
    """Return keys whose slots crowd in one corner of a page, so that most removals pull others back."""
    first_page, slots, corner = (1 << 64) // NEW_PAGES, 2046, 64

    def is_there(key: bytes) -> bool:
        name: int = mmh3.hash64(key, signed=False)[0]
        return name < first_page and (name & 0xFFFFFFFF) * slots >> 32 < corner

    return list(itertools.islice(filter(is_there, (b"%d" % number for number in itertools.count())), KEYS))


def committed(store: BlockStore, dataset: int = OWN) -> int:
    return int(store.status()["datasets"][dataset]["committed_bytes"])


def fill(store: BlockStore, dataset: int = OWN) -> None:
    """Put blocks of 1,000 bytes that are not there yet until one is refused."""
    for number in itertools.count():
        key = b"fill %d %d" % (dataset, number)
        if not store.contains(key) and not store.put(key, bytes(1000), dataset=dataset):
            return


def assert_exact(store: BlockStore, *datasets: tuple[int, int]) -> None:
    """All of each dataset's quota can be used, and not a byte more."""
    settle(store)
    for dataset, quota in datasets:
        fill(store, dataset)
        assert quota - 1000 < committed(store, dataset) <= quota
    assert store.check().ok


def churn(store: BlockStore, seed: int) -> None:
    """Put, replace and delete blocks of the dataset, more than its quota takes; and now and then a file."""
    source, keys = random.Random(seed), crowded_keys()
    for step in itertools.count(1):
        key = source.choice(keys)
        if source.random() < 0.5:
            store.delete(key)
        else:
            store.put(key, bytes(source.randrange(1, LENGTH_MAX)), dataset=OWN)
        if step % 40 == 0:
            put_file(store, step)


def put_file(store: BlockStore, number: int) -> None:
    """Write a whole file, as long as the quota takes it."""
    block = 64 * KIB
    with store.reserve_file(b"file", 17 * block, dataset=FILES, block_bytes=block) as file:
        for index in range(17):
            file.write(index, b"file %d/%d" % (number, index), bytes(block))


def victim(link: Connection, place: Place, point: str, nth: int) -> None:
    """Body: churn until killed at a failpoint."""
    arm(point, "kill", nth)
    with place.open() as store:
        link.send("open")
        link.recv()
        churn(store, nth)


def with_quota(link: Connection, place: Place) -> None:
    """Body: have the store open with a quota, answer with what is committed, and in the end count."""
    with place.open() as store:
        store.set_quota(OWN, QUOTA)
        store.set_quota(FILES, FILE_QUOTA)
        link.send("open")
        while (word := link.recv()) != "end":
            if word == "fill":
                fill(store)
            link.send(committed(store))
        assert_exact(store, (OWN, QUOTA), (FILES, FILE_QUOTA))


@pytest.mark.parametrize("nth", PASSINGS)
@pytest.mark.parametrize("point", POINTS)
def test_who_had_it_open_finds_all_of_the_quota_again(point: str, nth: int, memory_path: Path) -> None:
    place = Place.under(memory_path)
    with Child(with_quota, place) as survivor:
        assert survivor.receive() == "open"
        with Child(victim, place, point, nth) as struck:
            assert struck.receive() == "open"
            struck.send("go")
            assert struck.exit_code() == -signal.SIGKILL, f"{point} was not reached"
        assert survivor.ask("committed") <= QUOTA + LENGTH_MAX
        survivor.send("end")
        survivor.result()


@pytest.mark.parametrize("point", ["index.add", "index.set", "index.removed"])
def test_kills_one_after_the_other_do_not_add_up(point: str, memory_path: Path) -> None:
    """Nobody counts in between: each may take room away for a while, none may give what is not there."""
    place = Place.under(memory_path)
    with Child(with_quota, place) as survivor:
        assert survivor.receive() == "open"
        for _ in range(12):
            with Child(victim, place, point, PASSINGS[-1]) as struck:
                assert struck.receive() == "open"
                struck.send("go")
                assert struck.exit_code() == -signal.SIGKILL, f"{point} was not reached"
            assert survivor.ask("fill") <= QUOTA
        survivor.send("end")
        survivor.result()


def alone(link: Connection, place: Place, point: str, nth: int) -> None:
    """Body: set the quota, and be killed."""
    arm(point, "kill", nth)
    with place.open() as store:
        store.set_quota(OWN, QUOTA)
        churn(store, nth)


def come_after(link: Connection, place: Place) -> None:
    """Body: open what a killed process left: its quota is still in force, and the sum is counted."""
    with place.open() as store:
        assert store.status()["datasets"][OWN]["quota_bytes"] == QUOTA
        assert_exact(store, (OWN, QUOTA))


@pytest.mark.parametrize("point", ["index.add", "index.set", "index.shift", "index.removed"])
def test_who_opens_it_next_finds_all_of_the_quota(point: str, memory_path: Path) -> None:
    place = Place.under(memory_path)
    with Child(alone, place, point, PASSINGS[-1]) as struck:
        assert struck.exit_code() == -signal.SIGKILL, f"{point} was not reached"
    run(come_after, place)


def split_and_die(link: Connection, place: Place, point: str) -> None:
    """Body: put blocks into one page until it splits, and be killed there."""
    arm(point, "kill")
    with place.open() as store:
        for block in in_first_page(SPLIT_AT + 20):
            store.put(block.key, block.data, dataset=OWN)


@pytest.mark.parametrize("point", ["split.reset", "split.copied", "split.directory", "split.purged"])
def test_slots_that_a_killed_split_left_twice_count_once(point: str, memory_path: Path) -> None:
    place = Place.under(memory_path)
    with Child(with_quota, place) as survivor:
        assert survivor.receive() == "open"
        with Child(split_and_die, place, point) as struck:
            assert struck.exit_code() == -signal.SIGKILL, f"{point} was not reached"
        survivor.send("end")
        survivor.result()


def writer(link: Connection, place: Place, seed: int) -> None:
    """Body: churn until killed from outside."""
    with place.open() as store:
        link.send("open")
        churn(store, seed)


def has_come_on(survivor: Child, limit: int, steps: Iterator[int]) -> bool:
    """Say whether the writers have committed more than that, or it was asked as often as it shall be."""
    return survivor.ask("committed") > limit or next(steps, None) is None


def test_kills_at_random_moments_never_let_it_be_exceeded(memory_path: Path) -> None:
    """One of several writers after the other; all together have one block more each at most."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    source = random.Random(seed)
    place = Place.under(memory_path, quota="48MiB")
    with ExitStack() as stack, Child(with_quota, place) as survivor:
        assert survivor.receive() == "open"
        writers = [stack.enter_context(Child(writer, place, seed + number)) for number in range(WRITERS)]
        for moment in range(MOMENTS):
            which = source.randrange(WRITERS)
            assert writers[which].receive() == "open"
            limit = survivor.ask("committed") + source.randrange(1, 20_000)
            # A moment is told by what the others have done by then, and not by the clock.
            steps = iter(range(source.randrange(1, 30)))
            wait_until(partial(has_come_on, survivor, limit, steps), "the writers go on")
            writers[which].kill()
            writers[which].exit_code()
            assert survivor.ask("committed") <= QUOTA + WRITERS * LENGTH_MAX
            writers[which] = stack.enter_context(Child(writer, place, seed + WRITERS + moment))
        for one in writers:
            one.kill()
            one.exit_code()
        survivor.send("end")
        survivor.result()

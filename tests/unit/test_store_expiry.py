"""TTL: expiry in the store's own clock, which jumps of the wall clock do not move."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.store import BlockStore
from tests.unit._stores import Stores, counting, maintain, noise, rebuilt

DAY_S = 86_400


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open()


def test_a_block_with_a_ttl_is_there_until_it_has_passed(store: BlockStore) -> None:
    store.put(b"k", b"value", ttl_s=100)
    store.advance_clock(98)
    assert store.get(b"k") == b"value"
    store.advance_clock(4)
    changes = counting(store)
    assert store.get(b"k") is None
    assert store.readinto(b"k", bytearray(5)) is None
    assert not store.contains(b"k")
    assert changes() == {"misses_expired": 2}


def test_a_ttl_is_never_cut_short(store: BlockStore) -> None:
    for fraction in range(20):
        store.put(b"%d" % fraction, b"value", ttl_s=0.05 * fraction + 5)
        store.advance_clock(0.31)
        assert store.contains(b"%d" % fraction)


def test_a_ttl_of_zero_has_passed_within_a_second(store: BlockStore) -> None:
    store.put(b"k", b"value", ttl_s=0)
    store.advance_clock(1)
    assert store.get(b"k") is None


def test_a_block_without_a_ttl_never_expires(store: BlockStore) -> None:
    store.put(b"k", b"value")
    store.put(b"longest", b"value", ttl_s=math.inf)
    store.advance_clock(100 * 365 * DAY_S)
    store.maintain()
    assert store.get(b"k") == b"value"
    assert store.get(b"longest") == b"value"


@pytest.mark.parametrize("ttl", [-1, -0.001, math.nan])
def test_a_ttl_is_a_number_from_zero_on(store: BlockStore, ttl: float) -> None:
    store.put(b"k", b"value")
    for call in (
        lambda: store.put(b"k", b"", ttl_s=ttl),
        lambda: store.reserve(b"k", 1, ttl_s=ttl),
        lambda: store.expire(b"k", ttl),
    ):
        with pytest.raises(ValueError, match="0 or more"):
            call()
    with pytest.raises(TypeError):
        store.put(b"k", b"", ttl_s="soon")  # type: ignore[arg-type]
    assert store.get(b"k") == b"value"


def test_the_maintainer_takes_the_expired_away_and_gives_their_room_back(store: BlockStore) -> None:
    for number in range(1000):
        store.put(b"%d" % number, noise(20_000, number), ttl_s=10 if number < 900 else None)
    used = store.status()["tiers"][0]["used_bytes"]
    store.advance_clock(12)
    changes = counting(store)
    maintain(store, lambda: store.status()["blocks"] == 100)
    assert changes()["expired"] == 900
    maintain(store, lambda: store.status()["tiers"][0]["used_bytes"] < used / 4)
    assert [store.contains(b"%d" % number) for number in (899, 900, 999)] == [False, True, True]
    assert store.check().ok


def test_expire_sets_a_ttl_and_takes_it_away(store: BlockStore) -> None:
    store.put(b"k", b"value", ttl_s=10)
    store.put(b"other", b"value")
    assert store.expire(b"k", None)
    assert store.expire(b"other", 10)
    assert not store.expire(b"absent", 10)
    store.advance_clock(12)
    assert store.get(b"k") == b"value"
    assert store.get(b"other") is None


def test_what_has_expired_is_not_there_for_anybody(store: BlockStore) -> None:
    for name in (b"a", b"b", b"c", b"d"):
        store.put(name, b"value", ttl_s=1)
    store.advance_clock(3)
    assert not store.expire(b"a", None)
    assert not store.pin(b"b")
    changes = counting(store)
    assert not store.delete(b"c")
    assert changes() == {"expired": 1}
    store.put(b"d", b"again")
    assert store.get_many([b"a", b"b", b"c"]) == [None, None, None]
    assert store.get(b"d") == b"again"


def test_a_reservation_counts_its_ttl_from_when_it_is_made(store: BlockStore) -> None:
    with store.reserve(b"k", 5, ttl_s=10) as buffer:
        buffer[:] = b"value"
    assert store.get(b"k") == b"value"
    store.advance_clock(12)
    assert store.get(b"k") is None


def test_all_processes_see_the_same_clock(stores: Stores, store: BlockStore) -> None:
    other = stores.open()
    store.put(b"k", b"value", ttl_s=10)
    other.advance_clock(12)
    assert store.get(b"k") is None


def test_a_ttl_goes_on_over_a_close(stores: Stores, store: BlockStore) -> None:
    store.put(b"k", b"value", ttl_s=100)
    store.advance_clock(50)
    store.close()
    again = stores.reopen()
    assert again.get(b"k") == b"value"
    again.advance_clock(52)
    assert again.get(b"k") is None


def test_what_has_a_ttl_is_given_up_with_the_index_that_knew_the_clock(
    stores: Stores, store: BlockStore
) -> None:
    store.put(b"k", b"value", ttl_s=1000)
    store.put(b"kept", b"value", ttl_s=1000)
    store.expire(b"kept", None)
    store.put(b"later", b"value")
    store.expire(b"later", 1000)
    store.close()
    os.unlink(stores.path / "v1" / "index")
    again = rebuilt(stores.open())
    assert again.get_many([b"k", b"later"]) == [None, None]
    assert again.get(b"kept") == b"value"


JUMPING_CLOCK = """
#define _GNU_SOURCE
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>

long jump_s;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long r = syscall(SYS_clock_gettime, clock, now);
    if (r == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += jump_s;
    return (int)r;
}
"""

UNDER_JUMPS = """
import ctypes, sys, time
from forebay.store import BlockStore, Tier

jump = ctypes.c_long.in_dll(ctypes.CDLL(None), "jump_s")
tiers = [Tier(sys.argv[2], "64MiB", "MEM")]
for seconds in (86_400, -86_400):
    jump.value = 0
    store = BlockStore(sys.argv[1], tiers, maintainer=False)
    assert store.put(b"k", b"value", ttl_s=600) and store.put(b"short", b"value", ttl_s=5)
    jump.value = seconds
    assert abs(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) > 0
    store.maintain()
    assert store.get(b"k") == b"value" and store.get(b"short") == b"value", "while open"
    store.close()
    jump.value = 2 * seconds
    store = BlockStore(sys.argv[1], maintainer=False)
    store.maintain()
    assert store.get(b"k") == b"value" and store.get(b"short") == b"value", "after a reopen"
    store.advance_clock(7)
    assert store.get(b"short") is None, "expires by the store's own clock"
    store.advance_clock(595)
    assert store.get(b"k") is None
    store.close()
print("right")
"""


def test_jumps_of_the_wall_clock_by_a_day_expire_nothing(stores: Stores, tmp_path: Path) -> None:
    source, library = tmp_path / "jump.c", tmp_path / "jump.so"
    source.write_text(JUMPING_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", UNDER_JUMPS, stores.path, stores.tier().path],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "right\n", done.stderr

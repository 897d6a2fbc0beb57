"""Time to live: over restarts, and whatever anybody does to the wall clock meanwhile."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forebay.store import BlockStore
from tests.faults._damage import CacheFolder, count
from tests.faults._damage_layout import edited_super
from tests.faults.conftest import MakeFolder

DAY_S = 86_400
SIZE = 1_000


def _put_with_ttls(folder: CacheFolder, store: BlockStore) -> None:
    for key, ttl_s in ((b"minute", 60), (b"hour", 3_600), (b"week", 7 * DAY_S)):
        assert folder.put(store, key, SIZE, ttl_s=ttl_s)
    assert folder.put(store, b"forever", SIZE)


def test_a_ttl_ends_when_it_says(make_folder: MakeFolder) -> None:
    folder = make_folder("MEM")
    with folder.open() as store:
        _put_with_ttls(folder, store)
        # The clock goes on by itself, too, while this has no processor.
        store.advance_clock(40)
        assert folder.warm(store) == {b"minute", b"hour", b"week", b"forever"}
        store.advance_clock(21)
        assert folder.warm(store) == {b"hour", b"week", b"forever"}
        assert count(store, "misses_expired") == 1
        store.maintain()
        assert count(store, "expired") == 1
        folder.heal(store, [b"minute"])


def test_a_ttl_goes_on_over_a_clean_restart(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    with folder.open() as store:
        _put_with_ttls(folder, store)
        store.advance_clock(30)
    with folder.open() as store:
        assert folder.warm(store) == {b"minute", b"hour", b"week", b"forever"}
        store.advance_clock(31)
        assert folder.warm(store) == {b"hour", b"week", b"forever"}
    with folder.open() as store:
        assert folder.warm(store) == {b"hour", b"week", b"forever"}
        store.advance_clock(DAY_S)
        assert folder.warm(store) == {b"week", b"forever"}


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S, 365 * DAY_S])
def test_a_wall_clock_set_while_the_store_was_closed_expires_nothing(
    make_folder: MakeFolder, jump_s: int
) -> None:
    """As seen from the file: it was closed at another wall-clock time than it was."""
    folder = make_folder("SSD")
    with folder.open() as store:
        _put_with_ttls(folder, store)
    with edited_super(folder.index) as super_block:
        super_block.closed_real_ms -= jump_s * 1_000
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)
        store.advance_clock(61)
        assert folder.warm(store) == {b"hour", b"week", b"forever"}


def test_over_a_reboot_the_time_away_counts_and_never_backwards(make_folder: MakeFolder) -> None:
    """Boot time begins anew there, so that the wall clock has to tell; set back, it stands still."""
    folder = make_folder("SSD")
    with folder.open() as store:
        _put_with_ttls(folder, store)
    with edited_super(folder.index) as super_block:
        super_block.boot_id = b"11111111-2222-4333-8444-555555555555"
        super_block.closed_real_ms -= 600_000
    with folder.open() as store:
        assert folder.warm(store) == {b"hour", b"week", b"forever"}
    with edited_super(folder.index) as super_block:
        super_block.boot_id = b"11111111-2222-4333-8444-555555555555"
        super_block.closed_real_ms += DAY_S * 1_000
    with folder.open() as store:
        assert folder.warm(store) == {b"hour", b"week", b"forever"}
        store.advance_clock(3_600)
        assert folder.warm(store) == {b"week", b"forever"}


def test_no_look_up_or_wait_asks_the_wall_clock(repository: Path) -> None:
    """It is asked where a store is closed, opened or made, and nowhere else."""
    users = {
        path.name
        for path in (repository / "csrc" / "src").glob("*.c")
        if re.search(r"\bfb_realtime_ms\(|CLOCK_REALTIME|\bgettimeofday\(|\btime\(", path.read_text())
    }
    assert users <= {"platform.c", "recover.c", "open.c"}

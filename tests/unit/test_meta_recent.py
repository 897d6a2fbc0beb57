"""The table of recent look-ups: what is handed out, for how long, and how much is kept."""

from __future__ import annotations

import gc
import mmap
import threading
import time
import weakref

import pytest

from forebay.config import KIB, MIB
from forebay.errors import ConfigError
from forebay.meta import ChangeCounter, Entry, Known, Recent

MD5 = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def counter() -> ChangeCounter:
    return ChangeCounter(mmap.mmap(-1, 4_096), 3)


def entry(path: str, size: int = 7, version: str = MD5, *, checked_ns: int = 1) -> Entry:
    return Entry(path, size, 5, version, False, checked_ns, 77)


def test_an_entry_holds_while_the_counter_stays(counter: ChangeCounter) -> None:
    recent = Recent(MIB)
    recent.put("d/a", entry("a"), counter, 0)
    known = recent.get("d/a")
    assert known is not None
    assert known.entry == entry("a")
    assert recent.get("d/b") is None
    counter.store(1)
    assert recent.get("d/a") is None
    recent.put("d/a", entry("a", 8), counter, 1)
    again = recent.get("d/a")
    assert again is not None
    assert again.size == 8
    assert len(recent) == 1
    # What was handed out stays as it was.
    assert known.entry == entry("a")
    recent.forget("d/a")
    recent.forget("d/a")
    assert recent.get("d/a") is None
    assert len(recent) == 0


@pytest.mark.parametrize(
    "version",
    [
        "",
        "v",
        MD5,
        f"{MD5}-12",
        "5-1732742493123456789-1234567-7",
        'W/"quoted"',
        "version é",
        "not UTF-8: \udcff",
        "x" * 192,
    ],
)
@pytest.mark.parametrize("path", ["d/a", "d/folder/ü", "d/\u4e2d", "d/\U0001f30a", "d/not UTF-8: \udcff"])
def test_an_entry_comes_back_as_it_was(counter: ChangeCounter, path: str, version: str) -> None:
    recent = Recent(MIB)
    file = Entry(path[2:], (1 << 64) - 1, -(1 << 63), version, False, 1 << 63, 1 << 40)
    folder = Entry(path[2:], 0, 0, "", True, 0, 1)
    for kept in (file, folder):
        recent.put(path, kept, counter, 0)
        known = recent.get(path)
        assert known is not None
        assert tuple(known.entry) == tuple(kept)
        assert (known.path, known.dataset) == (path, "d")
        assert (known.size, known.mtime_ns, known.version, known.is_dir) == kept[1:5]
        assert known.key is None


def test_a_key_comes_back_byte_for_byte(counter: ChangeCounter) -> None:
    recent = Recent(MIB)
    for path in ("a", "folder/b", "\udcff", "ü", "\0"):
        for version in (MD5, "v", "\udcfe"):
            texts = [text.encode("utf-8", "surrogateescape") for text in (path, version)]
            for key in (b"\0\0\0\1%b\0%b\0tail" % (*texts,), b"%b%b" % (*texts,), b"a%bv%b\0" % (*texts,)):
                recent.put(f"d/{path}", entry(path, version=version), counter, 0, key=key)
                known = recent.get(f"d/{path}")
                assert known is not None
                assert known.key == key


def test_a_key_in_another_form_is_not_kept(counter: ChangeCounter) -> None:
    recent = Recent(MIB)
    for key in (b"", b"digest", b"version then a", b"a and no more"):
        recent.put("d/a", entry("a", version="version"), counter, 0, key=key)
        known = recent.get("d/a")
        assert known is not None
        assert known.key is None


def test_an_entry_expires_in_boot_time(counter: ChangeCounter) -> None:
    recent = Recent(MIB)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    hour = 3_600 * 10**9
    recent.put("d/gone", entry("gone", checked_ns=now - hour), counter, 0, max_age_ns=hour)
    recent.put("d/kept", entry("kept", checked_ns=now), counter, 0, max_age_ns=hour)
    recent.put("d/ever", entry("ever", checked_ns=0), counter, 0)
    # Checked by another clock, such as that of another time namespace.
    recent.put("d/ahead", entry("ahead", checked_ns=now + hour), counter, 0, max_age_ns=2 * hour)
    recent.put("d/far", entry("far", checked_ns=(1 << 64) - 1), counter, 0, max_age_ns=hour)
    found = [name for name in ("gone", "kept", "ever", "ahead", "far") if recent.get(f"d/{name}") is not None]
    assert found == ["kept", "ever"]


def test_what_cannot_be_kept_leaves_nothing_older_behind(counter: ChangeCounter) -> None:
    recent = Recent(MIB)
    counter.store(5)
    bad = [
        (entry("a", version="x" * 193), 5),
        (entry("a", version="\ud800"), 5),
        (entry("a", size=-1), 5),
        (entry("a", size=1 << 64), 5),
        (entry("a", checked_ns=1 << 64), 5),
        (entry("a"), 4),
        (entry("a"), 6),
        (entry("a"), (1 << 64) - 1),
    ]
    for wrong, seen_changes in bad:
        recent.put("d/a", entry("a"), counter, 5)
        assert recent.get("d/a") is not None
        recent.put("d/a", wrong, counter, seen_changes)
        assert recent.get("d/a") is None


def test_no_number_is_taken_for_another_that_shares_its_lower_bits(counter: ChangeCounter) -> None:
    recent = Recent(MIB)
    recent.put("d/a", entry("a"), counter, 0)
    counter.store(1 << 48)
    assert recent.get("d/a") is None
    recent.put("d/a", entry("a"), counter, 1 << 48)
    assert recent.get("d/a") is None


def test_texts_that_share_their_bytes_are_told_apart(counter: ChangeCounter) -> None:
    """In memory "慢" has the bytes of "ba", 16 bits a character instead of 8."""
    recent = Recent(MIB)
    narrow = "d/" + "abcd"
    wide = narrow.encode("latin-1").decode("utf-16-le")
    recent.put(narrow, entry("abcd"), counter, 0)
    assert recent.get(wide) is None
    assert recent.get(narrow) is not None


def test_the_table_is_bounded_and_keeps_what_is_used(counter: ChangeCounter) -> None:
    recent = Recent(64 * KIB)
    assert (recent.bytes_max, recent.bytes_used) == (64 * KIB, 0)
    for number in range(5_000):
        recent.put("d/used", entry("used"), counter, 0)
        assert recent.get("d/used") is not None
        recent.put(f"d/{number}", entry(f"{number}", number), counter, 0)
        assert recent.bytes_used <= recent.bytes_max
    kept = [number for number in range(5_000) if recent.get(f"d/{number}") is not None]
    assert len(recent) == len(kept) + 1
    assert 500 < len(kept) < 1_200
    assert kept[-1] == 4_999
    recent.clear()
    assert (len(recent), recent.bytes_used) == (0, 0)
    recent.put("d/a", entry("a"), counter, 0)
    assert recent.get("d/a") is not None


def test_a_table_without_room_keeps_nothing(counter: ChangeCounter) -> None:
    recent = Recent(0)
    recent.put("d/a", entry("a"), counter, 0)
    assert recent.get("d/a") is None
    recent.forget("d/a")
    recent.clear()
    assert (len(recent), recent.bytes_used, recent.bytes_max) == (0, 0, 0)


def test_more_kinds_of_look_ups_than_there_are_numbers_for_them() -> None:
    """Datasets come and go: what is kept of them is begun anew, and never taken for another's."""
    recent, memory = Recent(MIB), mmap.mmap(-1, 8 * 10_000)
    for number in range(10_000):
        counter = ChangeCounter(memory, number)
        recent.put("d/a", entry("a", number), counter, 0)
        recent.put(f"d{number}/a", entry("a", number), counter, 0, max_age_ns=1 << 62)
        for path in ("d/a", f"d{number}/a"):
            known = recent.get(path)
            assert known is not None
            assert known.size == number
    assert recent.get("d0/a") is None


def test_clearing_lets_go_of_the_shared_memory() -> None:
    recent, memory = Recent(MIB), mmap.mmap(-1, 4_096)
    gone = weakref.ref(memory)
    recent.put("d/a", entry("a"), ChangeCounter(memory, 0), 0)
    del memory
    assert gone() is not None
    recent.clear()
    gc.collect()
    assert gone() is None


def test_any_threads_may_use_it(counter: ChangeCounter) -> None:
    recent, wrong = Recent(64 * KIB), []

    def use(first: int) -> None:
        for number in range(first, 20_000, 4):
            name = f"{number % 3_000}"
            recent.put(f"d/{name}", entry(name, int(name)), counter, 0)
            known = recent.get(f"d/{(number * 7) % 3_000}")
            if known is not None and f"d/{known.size}" != known.path:
                wrong.append(known)

    threads = [threading.Thread(target=use, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_arguments_that_make_no_sense_are_refused(counter: ChangeCounter) -> None:
    for bound in (1, 64 * KIB - 1, 64 * MIB + 1):
        with pytest.raises(ConfigError, match=f"max_recent_bytes: {bound} "):
            Recent(bound)
    recent = Recent(MIB)
    for path in ("a", "/", "d/b", "da", "d/aa", "d/b/a/"):
        with pytest.raises(ValueError, match="no dataset"):
            recent.put(path, entry("a"), counter, 0)
    with pytest.raises(OverflowError):
        recent.put("d/a", entry("a"), counter, -1)
    for unknown in (None, 5, b"d/a", ""):
        assert recent.get(unknown) is None
    with pytest.raises(TypeError):
        Known()
    with pytest.raises(AttributeError):
        _ = Known.__new__(Known).key

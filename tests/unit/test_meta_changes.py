"""Change counters, and that a look-up which goes by them is never older than what is remembered."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from forebay.config import MIB
from forebay.meta import ChangeCounter, Entries, Entry, Metadata, Recent
from forebay.meta.changes import Changes
from forebay.meta.write import Write


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    with Metadata(tmp_path / "meta") as opened:
        yield opened


@pytest.fixture
def entries(metadata: Metadata) -> Entries:
    return metadata.entries


def entry(path: str, checked_ns: int = 1, version: str = "v", *, is_dir: bool = False) -> Entry:
    return Entry(path, 0 if is_dir else 7, 5, "" if is_dir else version, is_dir, checked_ns)


def found_in(recent: Recent, path: str) -> Entry | None:
    known = recent.get(path)
    return None if known is None else known.entry


def test_what_is_learnt_changes_nothing(entries: Entries) -> None:
    entries.put(1, [entry("d/a"), entry("d", is_dir=True)])
    before = entries.changes(1)
    entries.put(1, [entry("d/a", 2), entry("d/b")])
    entries.finish_listing(1, "d", 1)
    entries.note_absent(1, "d/c", 3)
    entries.forget(1, "d/unknown")
    entries.put(1, [entry("e/f/g", 5), entry("e/f", 5, is_dir=True)])
    entries.finish_listings(1, ["e", "e/f"], 5)
    assert entries.changes(1) == entries.counter(1).load() == before


CHANGES: dict[str, Callable[[Entries], object]] = {
    "version": lambda entries: entries.put(1, [entry("d/a", 9, "w")]),
    "size": lambda entries: entries.put(1, [entry("d/a", 9)._replace(size=1)]),
    "shadowed": lambda entries: entries.put(1, [entry("d", 9)]),
    "forget": lambda entries: entries.forget(1, "d/a"),
    "absent": lambda entries: entries.note_absent(1, "d/a", 9),
    "no longer absent": lambda entries: entries.put(1, [entry("d/none", 9)]),
    "all absent": lambda entries: entries.forget_absent(1),
    "listing": lambda entries: entries.finish_listing(1, "d", 9),
    "drop": lambda entries: entries.drop_dataset(1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_becomes_different_is_counted(entries: Entries, change: Callable[[Entries], object]) -> None:
    entries.put(1, [entry("d/a"), entry("d", is_dir=True)])
    entries.note_absent(1, "d/none", 1)
    recent = Recent(MIB)
    seen = entries.seen(1, "d/a")
    assert seen.entry == entry("d/a")
    recent.put("s/d/a", seen.entry, entries.counter(1), seen.changes)
    assert found_in(recent, "s/d/a") == entry("d/a")
    change(entries)
    assert entries.changes(1) == entries.counter(1).load() > seen.changes
    assert recent.get("s/d/a") is None
    assert entries.changes(2) == 0


def test_every_process_sees_the_same_counter(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.entries.put(1, [entry("a")])
        counter, recent = metadata.entries.counter(1), Recent(MIB)
        recent.put("s/a", entry("a"), counter, metadata.entries.changes(1))
        child = os.fork()
        if child == 0:
            is_right = found_in(recent, "s/a") == entry("a")
            os._exit(0 if is_right and metadata.entries.forget(1, "a") else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert recent.get("s/a") is None


WRITER = """
import sys
from forebay.meta import Entry, Metadata
metadata = Metadata(sys.argv[1])
for number in range(int(sys.argv[2]), 1 << 60):
    metadata.entries.put(1, [Entry("a", number, 0, f"{number}", False, number)])
    print(number, flush=True)
"""


def test_nothing_older_than_what_was_written_is_found_whoever_is_killed(tmp_path: Path) -> None:
    """A writer tells of each version once it is remembered, and is killed at any moment."""
    with Metadata(tmp_path) as metadata:
        entries, recent, number = metadata.entries, Recent(MIB), 0
        for round_number in range(8):
            command = [sys.executable, "-c", WRITER, str(tmp_path), str(number + 1)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                for _ in range(20 + round_number):
                    number = int(writer.stdout.readline())
                    found = found_in(recent, "s/a")
                    assert found is None or found.size >= number
                    seen = entries.seen(1, "a")
                    assert seen.entry is not None
                    assert seen.entry.size >= number
                    recent.put("s/a", seen.entry, entries.counter(1), seen.changes)
                writer.kill()
                writer.wait()
            # Whatever it was doing: what is found is what is remembered, and others can go on.
            found, known = found_in(recent, "s/a"), entries.get(1, "a")
            assert known is not None
            assert found is None or found == known
            number = known.size
            entries.put(1, [entry("b", round_number + 1)])
            seen = entries.seen(1, "a")
            assert seen.entry is not None
            recent.put("s/a", seen.entry, entries.counter(1), seen.changes)
            assert found_in(recent, "s/a") == known


def test_a_change_that_is_not_committed_is_never_believed(
    entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that dies between telling of a change and committing it: nothing stale is ever handed out."""
    entries.put(1, [entry("a", 1, "old")])
    finish = Write.finish

    def finish_and_die(write: Write) -> None:
        finish(write)
        raise lmdb.Error("as if killed before the commit")

    monkeypatch.setattr(Write, "finish", finish_and_die)
    assert not entries.put(1, [entry("a", 2, "new")])
    monkeypatch.undo()
    recent, seen = Recent(MIB), entries.seen(1, "a")
    assert seen.entry == entry("a", 1, "old")
    assert seen.changes == entries.counter(1).load() - 1
    recent.put("s/a", seen.entry, entries.counter(1), seen.changes)
    assert recent.get("s/a") is None
    # The next writer sets it right.
    entries.put(1, [entry("b")])
    seen = entries.seen(1, "a")
    assert seen.entry is not None
    recent.put("s/a", seen.entry, entries.counter(1), seen.changes)
    assert found_in(recent, "s/a") == entry("a", 1, "old")
    entries.put(1, [entry("a", 3, "new")])
    assert recent.get("s/a") is None


def test_a_damaged_number_equals_no_counter(metadata: Metadata) -> None:
    entries = metadata.entries
    entries.put(1, [entry("a")])
    entries.forget(1, "a")
    with entries._environment.writing() as transaction:
        cursor = transaction.cursor()
        assert cursor.set_range(b"c")
        transaction.put(cursor.key(), b"short")
    assert entries.changes(1) != entries.counter(1).load()
    entries.put(1, [entry("b")])
    entries.forget(1, "b")
    assert entries.changes(1) == entries.counter(1).load()


def test_the_file_of_the_counters_is_as_private_as_the_rest(tmp_path: Path) -> None:
    Changes(tmp_path / "own")
    Changes(tmp_path / "shared", os.getgid())
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o660
    with pytest.raises(TypeError, match="for reading"):
        Changes(tmp_path / "own", read_only=True).counter(1).store(1)
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(OSError, match="too short"):
        Changes(tmp_path / "short", read_only=True)


def test_a_counter_is_a_word_of_a_buffer_that_can_be_written() -> None:
    with pytest.raises(IndexError):
        ChangeCounter(bytearray(16), 2)
    with pytest.raises(BufferError):
        ChangeCounter(b"12345678", 0)


def test_a_counter_keeps_its_memory() -> None:
    memory = mmap.mmap(-1, 4_096)
    word = ChangeCounter(memory, 511)
    word.store(7)
    with pytest.raises(BufferError):
        memory.close()
    del memory
    assert word.load() == 7

"""One process's part of a trace: what is written is read again, up to wherever its writer was stopped."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.cache.record.part import CHUNK_BYTES, Access, PartWriter, is_whole, read_part
from forebay.config import MIB

HEADER_BYTES = 64
FIGURES = st.integers(0, 2**64 - 1)
# Any text that a path may be, names of bytes that are no UTF-8 among them.
PATHS = st.binary(min_size=1, max_size=300).map(lambda data: data.decode("utf-8", "surrogateescape"))
ACCESSES = st.lists(st.builds(Access, FIGURES, PATHS, FIGURES, FIGURES, FIGURES), max_size=40)


def make(path: Path, accesses: list[Access], max_bytes: int = 64 * MIB) -> PartWriter:
    writer = PartWriter(path, 0o600, max_bytes)
    for access in accesses:
        assert writer.write(access)
    return writer


def many(count: int) -> list[Access]:
    return [Access(number, f"d/{'x' * (number % 97)}{number}", number, 7, 100) for number in range(count)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(accesses=ACCESSES)
def test_what_is_written_is_read(tmp_path: Path, accesses: list[Access]) -> None:
    path = tmp_path / "a.part"
    path.unlink(missing_ok=True)
    writer = make(path, accesses)
    # Before it is closed as well: who is killed never closes.
    assert list(read_part(path)) == accesses
    writer.close()
    assert list(read_part(path)) == accesses
    assert is_whole(path)


def test_it_goes_on_over_chunks_and_takes_no_more_room_than_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    accesses = many(30_000)
    writer = make(path, accesses)
    assert path.stat().st_size % CHUNK_BYTES == 0
    writer.close()
    assert path.stat().st_size > 2 * CHUNK_BYTES
    assert path.stat().st_size % CHUNK_BYTES
    assert list(read_part(path)) == accesses


@pytest.mark.parametrize("padding", range(48))
def test_the_end_of_a_chunk_may_fall_anywhere(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "a.part"
    filler = Access(0, "d/" + "x" * 4_000, 0, 0, 0)
    accesses = [filler] * (CHUNK_BYTES // 4_048) + [Access(1, "d/" + "y" * padding, 1, 2, 3)] * 60
    make(path, accesses).close()
    assert list(read_part(path)) == accesses


def test_a_part_that_is_cut_anywhere_is_a_part_of_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    accesses = many(5)
    make(path, accesses).close()
    data = path.read_bytes()
    for length in range(HEADER_BYTES, len(data)):
        path.write_bytes(data[:length])
        found = list(read_part(path))
        assert found == accesses[: len(found)]
        # What follows in a chunk that was allocated and not written are zeros.
        path.write_bytes(data[:length] + bytes(1_000))
        assert list(read_part(path)) in (found, accesses)


def test_damage_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    accesses = many(5)
    make(path, accesses).close()
    data = bytearray(path.read_bytes())
    for position in range(HEADER_BYTES, len(data)):
        data[position] ^= 0x40
        path.write_bytes(data)
        found = list(read_part(path))
        # Nothing but the fill behind a path is not covered by its checksum.
        assert found == accesses[: len(found)]
        data[position] ^= 0x40


@pytest.mark.parametrize("data", [b"", bytes(HEADER_BYTES), bytes(CHUNK_BYTES)])
def test_a_part_whose_writer_had_not_begun_is_empty(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.part"
    path.write_bytes(data)
    assert list(read_part(path)) == []
    assert not is_whole(path)


@pytest.mark.parametrize("data", [b"x", b"x" * 100, b"fbtrace2" + bytes(100)])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.part"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.part: is no part of a trace"):
        list(read_part(path))
    with pytest.raises(ValueError, match="is no part"):
        is_whole(path)


def test_the_limit_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    writer = PartWriter(path, 0o600, 2 * CHUNK_BYTES)
    written = list(takewhile(writer.write, many(60_000)))
    writer.stop_early()
    writer.close()
    assert path.stat().st_size <= 2 * CHUNK_BYTES
    assert list(read_part(path)) == written
    assert written == many(len(written))
    assert not is_whole(path)


def test_a_disk_that_is_full_leaves_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.part"
    writer = make(path, many(10))

    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    rest = iter(many(60_000)[10:])
    with pytest.raises(OSError, match="No space left"):
        all(map(writer.write, rest))
    writer.close()
    # The first of the rest is the one behind that which found no room.
    assert list(read_part(path)) == many(next(rest).time_ns - 1)

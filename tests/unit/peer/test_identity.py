"""The member's id in a cache directory: one for ever, 0600, damage told; one process serves it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from forebay.config import FORMAT_FOLDER
from forebay.errors import ConfigError
from forebay.peer.identity import MemberLock, member_id
from forebay.peer.member import check_id


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / FORMAT_FOLDER).mkdir()
    return tmp_path


def files(cache: Path) -> set[str]:
    return {path.name for path in (cache / FORMAT_FOLDER).iterdir()}


def test_it_is_given_once(cache: Path) -> None:
    first = member_id(cache)
    check_id(first)
    assert member_id(cache) == first
    assert files(cache) == {"member"}
    assert (cache / FORMAT_FOLDER / "member").stat().st_mode & 0o777 == 0o600


def test_all_who_ask_first_get_the_same(cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(member_id, [cache] * 40, chunksize=1))) == 1
    assert files(cache) == {"member"}


def test_where_no_cache_is_there_is_no_member(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no cache directory"):
        member_id(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", [b"", b"\0" * 37, b"hello\n", b"\xff" * 36, b"a" * 9999])
def test_damage_is_told_and_not_replaced(cache: Path, damage: bytes) -> None:
    path = cache / FORMAT_FOLDER / "member"
    path.write_bytes(damage)
    with pytest.raises(ConfigError) as caught:
        member_id(cache)
    assert str(caught.value).startswith(f"{path}: damaged")
    assert path.read_bytes() == damage


def test_one_process_serves_and_each_start_is_later(cache: Path) -> None:
    with MemberLock(cache) as first:
        assert first.member_id == member_id(cache)
        with pytest.raises(ConfigError, match="another process serves it already"):
            MemberLock(cache)
    with MemberLock(cache) as second:
        assert second.member_id == first.member_id
        assert second.incarnation > first.incarnation
    assert files(cache) == {"member", "member-starts"}


def test_starts_grow_though_the_clock_goes_back_or_the_file_is_lost(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MemberLock(cache) as first:
        pass
    monkeypatch.setattr("time.time_ns", lambda: 5)
    with MemberLock(cache) as second:
        assert second.incarnation == first.incarnation + 1
    monkeypatch.undo()
    for damage in (b"", b"x" * 99, b"9" * 60, b"-4"):
        (cache / FORMAT_FOLDER / "member-starts").write_bytes(damage)
        with MemberLock(cache) as third:
            assert second.incarnation < third.incarnation < 1 << 63

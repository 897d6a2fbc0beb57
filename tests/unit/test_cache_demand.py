"""The host's word about readers that wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forebay.cache import demand as demand_module
from forebay.cache.demand import FILE_NAME, Demand


@pytest.fixture
def now_ns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The boot time that the word is written and read by; it stands still unless it is set."""
    now = [10**12]
    monkeypatch.setattr(demand_module, "_now_ns", lambda: now[0])
    return now


def test_a_mark_is_seen_by_others_and_fades(tmp_path: Path, now_ns: list[int]) -> None:
    mine, other = Demand(str(tmp_path)), Demand(str(tmp_path))
    assert not other.is_active()
    mine.mark()
    assert other.is_active()
    now_ns[0] += 19_999_999
    assert other.is_active()
    now_ns[0] += 1
    assert not other.is_active()
    assert not mine.is_active()


def test_the_clock_of_the_machine_is_taken(tmp_path: Path) -> None:
    demand = Demand(str(tmp_path))
    demand.mark()
    assert 0 < int.from_bytes((tmp_path / FILE_NAME).read_bytes()[:8], "little") <= demand_module._now_ns()


@pytest.mark.usefixtures("now_ns")
def test_it_goes_over_a_fork(tmp_path: Path) -> None:
    demand = Demand(str(tmp_path))
    child = os.fork()
    if child == 0:
        demand.mark()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert demand.is_active()


@pytest.mark.usefixtures("now_ns")
def test_read_only_touches_nothing(tmp_path: Path) -> None:
    demand = Demand(str(tmp_path), read_only=True)
    demand.mark()
    assert demand.is_active()
    assert list(tmp_path.iterdir()) == []


def test_a_group_may_write_it(tmp_path: Path) -> None:
    Demand(str(tmp_path), shared_group=os.getgid())
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o660


def test_a_mark_of_another_boot_is_none(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff" * 7 + b"\x0f" + bytes(4088))
    assert not Demand(str(tmp_path)).is_active()

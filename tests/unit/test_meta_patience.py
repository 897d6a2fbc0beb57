"""Patience: a writer waits while others commit, and no longer than for a time when nobody does."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from forebay.errors import StoreBusy
from forebay.meta import guard, patience
from forebay.meta.environment import Environment
from forebay.meta.patience import Patience
from tests.faults._child import wait_until


class World:
    """A clock and the number of the last commit, both set by the test."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.commit = 7

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(patience, "time", made)
    return made


def test_nobody_is_waited_for_who_does_not_commit(world: World) -> None:
    waiting = Patience(1.0, lambda: world.commit)
    assert waiting.left_s() == 1.0
    world.now_s += 0.75
    assert waiting.left_s() == 0.25
    world.now_s += 0.25
    assert waiting.left_s() <= 0
    assert waiting.still_s() == 1.0


def test_each_commit_begins_the_wait_anew_up_to_a_bound(world: World) -> None:
    waiting = Patience(1.0, lambda: world.commit)
    assert waiting.left_s() == 1.0
    for _ in range(38):
        world.now_s += 0.75
        world.commit += 1
        assert waiting.left_s() == 1.0
    assert waiting.still_s() == 0
    world.now_s += 0.75
    world.commit += 1
    assert waiting.left_s() == 30.0 - 39 * 0.75
    world.now_s += 0.75
    world.commit += 1
    assert waiting.left_s() <= 0


def test_patience_for_longer_than_the_bound_is_kept(world: World) -> None:
    waiting = Patience(60.0, lambda: world.commit)
    assert waiting.left_s() == 60.0


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = Environment(str(tmp_path / "file.lmdb"), map_bytes=1 << 24, durable=False)
    with made.writing() as transaction:
        transaction.put(b"key", b"0")
    return made


class Queue:
    """The queue's byte of a file, held as by another process."""

    def __init__(self, environment: Environment) -> None:
        self._descriptor = os.open(environment.path, os.O_RDWR)
        assert guard._request(self._descriptor, fcntl.F_WRLCK, guard._QUEUE, 1)

    def leave(self) -> None:
        """Let others in."""
        os.close(self._descriptor)


def test_a_writer_waits_while_others_commit(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def last_commit(_: guard.Guard) -> int:
        nonlocal looks
        looks += 1
        return looks

    def write() -> None:
        with environment.writing(0.01) as transaction:
            transaction.put(b"key", b"1")

    queue = Queue(environment)
    with monkeypatch.context() as patch:
        patch.setattr(guard.Guard, "_last_commit", last_commit)
        thread = threading.Thread(target=write)
        thread.start()
        wait_until(lambda: looks > 100, "a wait of many times its patience")
        queue.leave()
        thread.join()
    with environment.reading() as transaction:
        assert transaction.get(b"key") == b"1"
    environment.close()


def test_who_is_hasty_waits_little_until_somebody_has_committed_after_a_wait_in_vain(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Noted(Patience):
        def __init__(self, still_s: float, last_commit: object) -> None:
            waits.append(still_s)
            super().__init__(0.001, lambda: 0)

    monkeypatch.setattr(guard, "Patience", Noted)
    queue = Queue(environment)
    for is_hasty in (True, True, False):
        with pytest.raises(StoreBusy, match="other processes have been writing"):
            environment.writing(1.0, is_hasty=is_hasty).__enter__()
    queue.leave()
    for _ in range(2):
        with environment.writing(1.0, is_hasty=True) as transaction:
            transaction.put(b"key", b"2")
    assert waits == [1.0, guard._HASTY_S, 1.0, guard._HASTY_S, 1.0]
    environment.close()

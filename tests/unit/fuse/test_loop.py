"""The loop in pyfuse3's place of trio, with a pipe for the kernel's descriptor."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from forebay.fuse.loop import ClosedResourceError, Loop

TIMEOUT_S = 60
END = b"."


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: where requests are read, and where they are written."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def serve(loop: Loop, requests: int, answer: Callable[[bytes], Any], tasks: int = 4) -> Callable[[], None]:
    """Return what runs tasks that answer requests as pyfuse3's do: one reads, and then answers."""
    trio = loop.face()
    lock = trio.Lock()

    async def work() -> None:
        while True:
            try:
                async with lock:
                    await trio.lowlevel.wait_readable(requests)
                    request = os.read(requests, 1)
            except ClosedResourceError:
                return
            if request == END:
                trio.lowlevel.notify_closing(requests)
                return
            await answer(request)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(work, name=f"task-{number}")

    return lambda: loop.run(main())


def test_requests_are_answered_in_order(pipe: tuple[int, int]) -> None:
    answered = []

    async def answer(request: bytes) -> None:
        answered.append(request)

    os.write(pipe[1], b"abc" + END)
    serve(Loop(lambda: None, TIMEOUT_S), pipe[0], answer)()
    assert answered == [b"a", b"b", b"c"]


def test_idle_work_is_done_once_no_request_waits(pipe: tuple[int, int]) -> None:
    loop = Loop(lambda: None, TIMEOUT_S)
    answered = []

    def ask() -> None:
        os.write(pipe[1], b"c")

    async def answer(request: bytes) -> None:
        answered.append(request)
        if request == b"a":
            loop.when_idle(lambda: answered.append(b"1"))
            loop.when_idle(ask)
            loop.when_idle(lambda: answered.append(b"2"))
        if request == b"c":
            os.write(pipe[1], b"d" + END)

    os.write(pipe[1], b"ab")
    serve(loop, pipe[0], answer)()
    assert answered == [b"a", b"b", b"1", b"c", b"d"]


def test_idle_work_that_finds_no_time_does_not_pile_up(pipe: tuple[int, int]) -> None:
    loop = Loop(lambda: None, TIMEOUT_S)
    done: list[int] = []

    def end() -> None:
        os.write(pipe[1], END)

    async def answer(request: bytes) -> None:
        for number in range(100_000):
            loop.when_idle(partial(done.append, number))
        loop.when_idle(end)

    os.write(pipe[1], b"a")
    serve(loop, pipe[0], answer)()
    assert 0 < len(done) < 2_000
    assert done[-1] == 99_999


def test_what_waits_stands_in_nobodys_way(pipe: tuple[int, int]) -> None:
    loop, may_end = Loop(lambda: None, TIMEOUT_S), threading.Event()
    answered = []

    async def answer(request: bytes) -> None:
        if request == b"s":
            assert await loop.in_thread(may_end.wait, TIMEOUT_S)
        answered.append(request)
        if request == b"b":
            may_end.set()

    os.write(pipe[1], b"sab" + END)
    serve(loop, pipe[0], answer)()
    assert answered == [b"a", b"b", b"s"]


def test_more_wait_than_there_are_tasks(pipe: tuple[int, int]) -> None:
    loop = Loop(lambda: None, TIMEOUT_S)
    answered: list[bytes] = []

    async def answer(request: bytes) -> None:
        answered.append(await loop.in_thread(bytes, request))

    os.write(pipe[1], bytes(range(ord("a"), ord("z"))) + END)
    serve(loop, pipe[0], answer, tasks=3)()
    assert sorted(answered) == [bytes([each]) for each in range(ord("a"), ord("z"))]


def test_what_a_thread_raises_is_raised(pipe: tuple[int, int]) -> None:
    loop = Loop(lambda: None, TIMEOUT_S)

    async def answer(request: bytes) -> None:
        await loop.in_thread(int, "no number")

    os.write(pipe[1], b"a")
    with pytest.raises(ValueError, match="no number"):
        serve(loop, pipe[0], answer)()


def test_a_thread_that_tells_too_late_writes_to_no_other_descriptor(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(lambda: None, TIMEOUT_S)
    is_over = threading.Event()
    late = []

    class Slow(deque[Any]):
        """What a thread has come to is there, and seen for another reason, before the thread tells."""

        def append(self, outcome: Any) -> None:
            super().append(outcome)
            late.append(threading.current_thread())
            os.eventfd_write(loop._event, 1)
            assert is_over.wait(TIMEOUT_S)

    monkeypatch.setattr(loop, "_finished", Slow())

    async def answer(request: bytes) -> None:
        await loop.in_thread(int, "no number")

    os.write(pipe[1], b"a")
    with pytest.raises(ValueError, match="no number"):
        serve(loop, pipe[0], answer)()
    same_number = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert same_number == loop._event
        is_over.set()
        late[0].join(TIMEOUT_S)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(same_number)
    finally:
        os.close(same_number)


def test_it_is_stopped_while_it_waits(pipe: tuple[int, int]) -> None:
    loop = Loop(lambda: loop.face().lowlevel.notify_closing(pipe[0]), TIMEOUT_S)

    async def answer(request: bytes) -> None:
        loop.stop()

    os.write(pipe[1], b"a")
    serve(loop, pipe[0], answer)()
    # Once more, when there is nothing left to be stopped.
    loop.stop()


def test_what_does_not_end_is_left_behind(pipe: tuple[int, int]) -> None:
    loop = Loop(lambda: loop.face().lowlevel.notify_closing(pipe[0]), 0.0)
    begun, may_end = threading.Event(), threading.Event()
    ends = []

    def stand_still() -> None:
        begun.set()
        may_end.wait(TIMEOUT_S)

    async def answer(request: bytes) -> None:
        try:
            await loop.in_thread(stand_still)
        finally:
            ends.append(request)

    def stop() -> None:
        begun.wait(TIMEOUT_S)
        loop.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    os.write(pipe[1], b"a")
    serve(loop, pipe[0], answer)()
    assert ends == [b"a"]
    may_end.set()
    stopper.join()


def test_a_request_that_is_gone_when_it_is_read(pipe: tuple[int, int]) -> None:
    loop, answered = Loop(lambda: None, TIMEOUT_S), []

    async def answer(request: bytes) -> None:
        answered.append(request)
        # Somebody else takes the next one away, before the loop reads it but after it was told of it.
        if request == b"a":
            loop.face().lowlevel.wait_readable(pipe[0]).close()
            raise BlockingIOError

    os.write(pipe[1], b"ab" + END)
    serve(loop, pipe[0], answer, tasks=2)()
    assert answered == [b"a", b"b"]

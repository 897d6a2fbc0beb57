"""The event loop of one process: a forked child does no harm to it and gets its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading

import pytest

from forebay.ufs._loop import loop_of_process, run_in_loop

WAIT_S = 10.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line)
    await writer.drain()
    return await asyncio.wait_for(reader.readline(), WAIT_S)


def run_in_child(work: object) -> int:
    """Fork, call work in the child, and return the child's exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert callable(work)
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_all_threads_have_the_same() -> None:
    found: set[int] = set()
    threads = [threading.Thread(target=lambda: found.add(id(loop_of_process()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert found == {id(loop_of_process())}
    assert loop_of_process().is_running()


def test_a_child_does_not_take_the_parents_sockets_away() -> None:
    loop = loop_of_process()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def open_stream() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(sock=ours)

    reader, writer = asyncio.run_coroutine_threadsafe(open_stream(), loop).result(WAIT_S)

    def drop_it() -> bool:
        running = loop.is_running()
        # What a session's finalizer does: the transport leaves the selector.
        writer.transport.abort()
        return not running

    assert run_in_child(drop_it) == 0
    answer = asyncio.run_coroutine_threadsafe(echo(reader, writer, b"ping\n"), loop)
    assert theirs.recv(100) == b"ping\n"
    theirs.sendall(b"pong\n")
    assert answer.result(WAIT_S) == b"pong\n"
    loop.call_soon_threadsafe(writer.close)
    theirs.close()


def test_a_child_has_its_own() -> None:
    inherited = loop_of_process()

    def use_it() -> bool:
        loop = loop_of_process()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(WAIT_S)
        return loop is not inherited and loop is loop_of_process() and not inherited.is_running()

    assert run_in_child(use_it) == 0
    assert loop_of_process() is inherited


class Interrupted(Exception):  # noqa: N818  (as KeyboardInterrupt)
    """What the test's signal handler raises."""


def test_an_interrupted_call_is_cancelled() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def handler(number: int, frame: object) -> None:
        raise Interrupted

    def interrupt() -> None:
        assert begun.wait(WAIT_S)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(Interrupted):
            run_in_loop(wait())
        thread.join(WAIT_S)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert cancelled.wait(WAIT_S)

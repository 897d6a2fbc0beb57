"""A fork waits for calls, which it has cancelled, and they wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from forebay.peer.forks import apart_from_forks


def fork() -> int:
    """Fork a child that makes a call of its own, and return how it ended."""
    child = os.fork()
    if child == 0:
        with apart_from_forks(lambda: None):
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_has_a_call_cancelled_and_waits_for_its_end() -> None:
    begun, cancelled = threading.Event(), threading.Event()
    events: list[str] = []

    def call() -> None:
        with apart_from_forks(cancelled.set):
            begun.set()
            assert cancelled.wait(60)
            events.append("ended")

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(60)
    assert fork() == 7
    events.append("forked")
    thread.join()
    assert events == ["ended", "forked"]


def test_calls_go_on_after_a_fork() -> None:
    assert fork() == 7
    with apart_from_forks(lambda: None):
        pass
    assert fork() == 7


# What a process leaves that has served by grpc.aio, in a cycle, and a child that collects garbage.
_COLLECTING_CHILD = """
import asyncio, gc, os, signal
import forebay.peer.forks
from grpc import aio

gc.disable()

async def serve_for_a_moment():
    server = aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(None)
    cycle = [server]
    cycle.append(cycle)

asyncio.run(serve_for_a_moment())
child = os.fork()
if child == 0:
    signal.alarm(20)
    gc.collect()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_child_leaves_its_parents_garbage_of_grpc_alone() -> None:
    subprocess.run([sys.executable, "-c", _COLLECTING_CHILD], check=True, timeout=60)

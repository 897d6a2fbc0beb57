"""A fork waits for calls, which it has cancelled, and they wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from contextlib import suppress

import pytest

from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown
from forebay.peer.forks import apart_from_forks
from forebay.peer.group import Group
from forebay.peer.links import PeerLinks
from forebay.peer.member import Member
from forebay.peer.security.options import SecurityOptions
from forebay.peer.stubs import Stubs

ADDRESS = "127.0.0.1:1"


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


def test_a_child_of_a_process_that_has_only_greeted_by_grpc_commands_nobody() -> None:
    links = PeerLinks(Group("g", [ADDRESS]))
    with pytest.raises(PeerDown):
        links.greet(ADDRESS, deadline=Deadline(0.1))
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            Stubs(SecurityOptions()).of(Member(str(uuid.uuid4()), ADDRESS))
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    links.close()


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

"""A mount whose under storage does not answer, or badly: nobody else waits, and nobody for ever."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from tests._s3 import BUCKET, FakeS3, Handler, give_keys
from tests.fuse._mount import TIMEOUT_S, Mounted, errno_of
from tests.fuse.conftest import Mounting

READERS = 20


class Gate:
    """Holds requests for objects that are named so until it is opened."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.come = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, request: Handler) -> bool:
        if self.word in request.path and request.command == "GET" and "list-type" not in request.path:
            self.come.release()
            self.opened.wait(TIMEOUT_S)
        return False


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate("slow")
    yield gate
    gate.opened.set()


@pytest.fixture
def storage(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """A server with files of which some are slow."""
    give_keys(monkeypatch)
    with FakeS3() as storage:
        storage.objects |= {f"slow{number}": bytes([number]) * 10 for number in range(READERS)}
        storage.objects |= {"quick": b"quick", "forbidden": b"f", "broken": b"b"}
        storage.interfere = gate
        yield storage
        gate.opened.set()


@pytest.fixture
def mount(cache: Cache, storage: FakeS3, mounted: Mounting) -> Mounted:
    """A mount of them; all are known, and one is cached."""
    cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, max_age=None, attempts=1)
    cache.listdir("d")
    cache.read("d/quick").release()
    return mounted()


def reader_of(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_miss_stands_in_nobodys_way(mount: Mounted, gate: Gate) -> None:
    readers = [reader_of(mount.path / f"slow{number}") for number in range(READERS)]
    for _ in range(READERS):
        assert gate.come.acquire(timeout=TIMEOUT_S)
    assert (mount.path / "quick").read_bytes() == b"quick"
    assert len(os.listdir(mount.path)) == READERS + 3
    assert all(reader.poll() is None for reader in readers)
    gate.opened.set()
    for number, reader in enumerate(readers):
        assert reader.communicate(timeout=TIMEOUT_S)[0] == bytes([number]) * 10


def test_it_ends_while_somebody_waits(mount: Mounted, gate: Gate) -> None:
    reader = reader_of(mount.path / "slow1")
    assert gate.come.acquire(timeout=TIMEOUT_S)
    mount.process.send_signal(signal.SIGTERM)
    assert mount.ended() == 0
    assert reader.communicate(timeout=TIMEOUT_S)[0] == b""
    assert reader.returncode != 0


def test_a_lazy_unmount_while_somebody_waits(mount: Mounted, gate: Gate) -> None:
    reader = reader_of(mount.path / "slow1")
    assert gate.come.acquire(timeout=TIMEOUT_S)
    subprocess.run(["umount", "--lazy", str(mount.path)], check=True)
    gate.opened.set()
    # Who uses it may go on to his end.
    assert reader.communicate(timeout=TIMEOUT_S)[0] == b"\1" * 10
    assert mount.ended() == 0


def test_readers_that_are_killed(mount: Mounted, gate: Gate) -> None:
    for number in range(5):
        reader = reader_of(mount.path / f"slow{number}")
        assert gate.come.acquire(timeout=TIMEOUT_S)
        reader.kill()
        gate.opened.set()
        reader.communicate(timeout=TIMEOUT_S)
        gate.opened.clear()
        assert (mount.path / "quick").read_bytes() == b"quick"


def test_what_the_server_refuses(mount: Mounted, storage: FakeS3) -> None:
    path = mount.path

    def refuse(request: Handler) -> bool:
        if "forbidden" in request.path:
            request.refuse(403, "AccessDenied")
        elif "broken" in request.path:
            request.refuse(501, "Broken")
        else:
            return False
        return True

    storage.interfere = refuse
    assert errno_of((path / "forbidden").read_bytes) == errno.EACCES
    assert errno_of((path / "broken").read_bytes) == errno.EIO
    storage.interfere = None
    assert (path / "forbidden").read_bytes() == b"f"
    assert (path / "broken").read_bytes() == b"b"

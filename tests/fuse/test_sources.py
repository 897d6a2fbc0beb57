"""Under storages that fail, are away, throttle or change, as those see it who read files of a mount."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.testing.faults import Fault
from forebay.testing.proxy_process import ProxyProcess
from tests._s3 import BUCKET, FakeS3, Handler, give_keys
from tests.fuse._mount import TIMEOUT_S, Mounted, errno_of, until
from tests.fuse.conftest import BLOCK_BYTES, Mounting

SIZE = 6 * BLOCK_BYTES + 11
NAMES = [f"file{number}" for number in range(6)]


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as storage:
        storage.objects |= {name: os.urandom(SIZE) for name in NAMES}
        yield storage


@pytest.fixture
def proxy(storage: FakeS3) -> Iterator[ProxyProcess]:
    """Between the mount and its storage; a process, so that it can be stopped."""
    with ProxyProcess(f"127.0.0.1:{storage.server_address[1]}") as proxy:
        yield proxy


@pytest.fixture
def timeout_s() -> float:
    """How long the mount waits for its storage: longer than any machine takes, however busy."""
    return TIMEOUT_S


@pytest.fixture
def mount(cache: Cache, proxy: ProxyProcess, mounted: Mounting, timeout_s: float) -> Mounted:
    """A mount through the proxy that gives up at its second try; all is known, the first file is cached."""
    # What is to be known comes without haste.
    for patience_s in (TIMEOUT_S, timeout_s):
        cache.attach(
            "d", f"s3://{BUCKET}", endpoint_url=proxy.url, max_age=None, attempts=2, timeout_s=patience_s
        )
        cache.listdir("d")
        cache.read(f"d/{NAMES[0]}").release()
    return mounted()


def test_the_source_is_away_and_comes_back(mount: Mounted, proxy: ProxyProcess, storage: FakeS3) -> None:
    cached, missing = (mount.path / name for name in NAMES[:2])
    proxy.set_faults([Fault("reset")])
    assert cached.read_bytes() == storage.objects[NAMES[0]]
    assert sorted(os.listdir(mount.path)) == NAMES
    assert errno_of(missing.read_bytes) in (errno.EIO, errno.ECONNRESET, errno.ETIMEDOUT)
    assert errno_of((mount.path / "unknown").stat) in (
        errno.EIO,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.ENOENT,
    )
    proxy.set_faults([])
    assert missing.read_bytes() == storage.objects[NAMES[1]]


@pytest.mark.parametrize("status", [429, 503])
def test_a_burst_of_refusals_is_outlasted(
    mount: Mounted, proxy: ProxyProcess, storage: FakeS3, status: int
) -> None:
    proxy.set_faults([Fault("status", status=status, times=1)])
    for name in NAMES[1:3]:
        assert (mount.path / name).read_bytes() == storage.objects[name]
    assert proxy.stats()["faults"] == 1
    proxy.set_faults([Fault("status", status=status)])
    assert errno_of((mount.path / NAMES[3]).read_bytes) in (errno.EIO, errno.ETIMEDOUT)
    proxy.set_faults([])
    assert (mount.path / NAMES[3]).read_bytes() == storage.objects[NAMES[3]]


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_cut_in_the_middle_of_a_file(mount: Mounted, proxy: ProxyProcess, storage: FakeS3, kind: str) -> None:
    for name, after_bytes in zip(NAMES[1:4], (0, 1, BLOCK_BYTES + 1), strict=True):
        proxy.set_faults([Fault(kind, after_bytes=after_bytes, times=1)])  # type: ignore[arg-type]
        assert (mount.path / name).read_bytes() == storage.objects[name]


@pytest.mark.parametrize("timeout_s", [1])
def test_a_stopped_source_is_given_up_in_time(mount: Mounted, proxy: ProxyProcess, storage: FakeS3) -> None:
    os.kill(proxy.pid, signal.SIGSTOP)
    try:
        readers = [
            subprocess.Popen(["cat", mount.path / name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for name in NAMES[1:4]
        ]
        # Meanwhile what is cached and known is there.
        for _ in range(20):
            assert (mount.path / NAMES[0]).read_bytes() == storage.objects[NAMES[0]]
            assert len(os.listdir(mount.path)) == len(NAMES)
        for reader in readers:
            _, said = reader.communicate(timeout=TIMEOUT_S)
            assert reader.returncode == 1
            assert os.strerror(errno.ETIMEDOUT).encode() in said
    finally:
        os.kill(proxy.pid, signal.SIGCONT)
    for name in NAMES:
        # On a busy machine it may be given up once more.
        until(lambda name=name: errno_of((mount.path / name).read_bytes) is None)  # type: ignore[misc]
        assert (mount.path / name).read_bytes() == storage.objects[name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_reader_that_is_interrupted_in_a_miss(
    mount: Mounted, proxy: ProxyProcess, storage: FakeS3, number: signal.Signals
) -> None:
    os.kill(proxy.pid, signal.SIGSTOP)
    try:
        before = mount.stats()["operations"].get("read", {}).get("waited", 0)
        reader = subprocess.Popen(["cat", mount.path / NAMES[1]], stdout=subprocess.PIPE)
        while mount.stats()["operations"].get("read", {}).get("waited", 0) == before:
            assert reader.poll() is None
        reader.send_signal(number)
        reader.communicate(timeout=TIMEOUT_S)
        assert reader.returncode == -number
        assert (mount.path / NAMES[0]).read_bytes() == storage.objects[NAMES[0]]
    finally:
        os.kill(proxy.pid, signal.SIGCONT)
    assert (mount.path / NAMES[1]).read_bytes() == storage.objects[NAMES[1]]


def test_an_object_that_is_gone(mount: Mounted, storage: FakeS3) -> None:
    with open(mount.path / NAMES[0], "rb", buffering=0) as known:
        data, _ = storage.objects.pop(NAMES[0]), storage.objects.pop(NAMES[1])
        assert errno_of((mount.path / NAMES[1]).read_bytes) in (errno.ENOENT, errno.ESTALE)
        # Of an immutable dataset what is cached stays.
        assert known.readall() == data
    assert (mount.path / NAMES[2]).read_bytes() == storage.objects[NAMES[2]]


def read_or_stale(read: Callable[[], bytes]) -> bytes | None:
    """Return what is read, None if that is ESTALE."""
    try:
        return read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return None


@pytest.fixture
def fresh(cache: Cache, storage: FakeS3, mounted: Mounting) -> Mounted:
    """A mount that asks the storage at every open."""
    cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, max_age=0)
    return mounted()


def test_bytes_of_an_open_file_are_never_mixed(fresh: Mounted, storage: FakeS3) -> None:
    path = fresh.path / NAMES[1]
    old = storage.objects[NAMES[1]]
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1_000, 0) == old[:1_000]
        storage.objects[NAMES[1]] = new = os.urandom(SIZE)
        for offset in range(0, SIZE, 20_000):
            found = read_or_stale(lambda offset=offset: os.pread(file.fileno(), 20_000, offset))  # type: ignore[misc]
            # It may end where the kernel has no more.
            assert found != b""
            assert found is None or found == old[offset : offset + len(found)]
        assert path.read_bytes() == new
        # Known to be another by now: what the kernel has is read, and nothing of the new.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert errno_of(lambda: os.pread(file.fileno(), 100, 0)) == errno.ESTALE


def test_an_object_changes_while_it_is_read(fresh: Mounted, storage: FakeS3) -> None:
    """One version as a whole or ESTALE, whenever in a read it is replaced."""
    path, versions = fresh.path / NAMES[2], [storage.objects[NAMES[2]]]
    changed, changing = threading.Event(), threading.Lock()

    def change(request: Handler) -> bool:
        with changing:
            if request.command == "GET" and NAMES[2] in request.path and not changed.is_set():
                changed.set()
                versions.append(os.urandom(SIZE))
                storage.objects[NAMES[2]] = versions[-1]
        return False

    storage.interfere = change
    for _ in range(8):
        changed.clear()
        assert read_or_stale(path.read_bytes) in (None, *versions)
        # Not while a request that nobody waits for any more is about to replace it.
        with changing:
            fresh_data = storage.objects[NAMES[2]]
            changed.set()
        assert path.read_bytes() == fresh_data


def _read_all(folder: Path, names: list[str], seed: int) -> dict[str, bytes]:
    order = names[seed % len(names) :] + names[: seed % len(names)]
    return {name: (folder / name).read_bytes() for name in order}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_read_as_loaders_do(mount: Mounted, storage: FakeS3, method: str) -> None:
    with multiprocessing.get_context(method).Pool(6) as pool:
        for found in pool.starmap(_read_all, [(mount.path, NAMES, seed) for seed in range(24)]):
            assert found == storage.objects
    blocks = -(-SIZE // BLOCK_BYTES)
    assert len(storage.gets()) <= blocks * len(NAMES)


def test_a_fork_of_a_reader_shares_its_files(mount: Mounted, storage: FakeS3) -> None:
    data = storage.objects[NAMES[4]]
    file = os.open(mount.path / NAMES[4], os.O_RDONLY)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            offset = number * BLOCK_BYTES + 5
            is_right = os.pread(file, 1_000, offset) == data[offset : offset + 1_000]
            os._exit(0 if is_right else 1)
        children.append(child)
    assert os.pread(file, SIZE, 0) == data
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    os.close(file)

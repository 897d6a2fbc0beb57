"""Two hosts in one process: a client reads through what a member serves, over one under storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from forebay.cache import Cache, Serving
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotFound, Stale
from forebay.remote import BlockRequest, Holder, LocalCopy, RemoteObject, Share
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import PATIENCE_S
from tests.integration._trees import TREE, everything

BLOCK = 64 * KIB
CLIENTS = 3
DATA = bytes(range(256)) * 900


class Member:
    """A remote that is one member of this process, as its server would answer."""

    local_copy: LocalCopy = "never"

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def is_elsewhere(self, dataset: str, path: str, offset: int, replicas: int = 1) -> bool:
        return True

    def owns(self, dataset: str, path: str, offset: int) -> bool:
        return False

    def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> Sequence[Holder]:
        return ()

    def share(self, members: Sequence[str]) -> Share:
        return self.owns

    def fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        for index, request in enumerate(requests):
            block = request[:4]
            hit = self._serving.hit(*block)
            if hit is not None:
                buffers[index][:] = hit
            elif not self._brought(block, buffers[index], alive):
                continue
            came(index)

    def _brought(
        self, block: tuple[str, str, str, int], buffer: memoryview, alive: Callable[[], None]
    ) -> bool:
        come_bytes = 0

        def take(piece: memoryview) -> None:
            nonlocal come_bytes
            buffer[come_bytes : come_bytes + len(piece)] = piece
            come_bytes += len(piece)
            alive()

        try:
            self._serving.bring(*block, take)
        except Stale:
            return False
        assert come_bytes == len(buffer)
        return True

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, memoryview] | None:
        found, data = self._serving.touch(dataset, path, offset, length)
        return found, memoryview(data)

    def stat(self, dataset: str, path: str) -> RemoteObject | None:
        return self._serving.stat(dataset, path)

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]] | None:
        return self._serving.list(dataset, directory)

    def close(self) -> None:
        pass


@dataclass
class Group:
    """A member and clients of it, each with a cache directory and a clock of its own."""

    storage: FaultyStorage
    member: Cache
    clients: list[Cache]
    clocks: list[ManualClock]

    def attach(self, **settings: object) -> None:
        for cache in (self.member, *self.clients):
            cache.attach("d", "faulty://x", **settings)  # type: ignore[arg-type]
        self.storage.calls.clear()


@pytest.fixture
def group(
    tmp_path: Path, memory_path: Path, storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Group]:
    storage.put("big", DATA)
    # As where one host is tried: none is to be passed by because a busy machine let it stand still.
    monkeypatch.setattr("forebay.meta.entries._PATIENCE_S", PATIENCE_S)
    clocks = [ManualClock() for _ in range(CLIENTS + 1)]
    with ExitStack() as opened:

        def host(name: str, number: int, remote: Member | None) -> Cache:
            return opened.enter_context(
                Cache(
                    tmp_path / name,
                    [Tier(str(memory_path / name), 64 * MIB, "MEM")],
                    block_bytes=BLOCK,
                    schemes=storage.schemes(),
                    stall_timeout_s=PATIENCE_S,
                    clock=clocks[number],
                    remote=remote,
                )
            )

        member = host("member", 0, None)
        clients = [
            host(f"client{number}", number, Member(member.serving())) for number in range(1, CLIENTS + 1)
        ]
        yield Group(storage, member, clients, clocks)


def test_the_source_is_asked_once_for_all_hosts(group: Group) -> None:
    group.attach(max_age=None)
    with ThreadPoolExecutor(4 * CLIENTS) as threads:
        read = list(threads.map(lambda number: group.clients[number % CLIENTS].read("d/big"), range(24)))
    assert all(view == DATA for view in read)
    assert group.storage.calls["stat"] == 0
    # One by the touch, which brings what fits one part, and no block twice.
    assert group.storage.calls["read_range"] == 1
    assert group.member.usage("d/big").cached_bytes == len(DATA)
    assert all(client.usage("d/big").cached_bytes == 0 for client in group.clients)


def test_trees_are_shown_alike_and_listed_once(group: Group) -> None:
    group.attach(max_age=None)
    for client in group.clients:
        assert everything(client, "d") == TREE | {"big": DATA}
    assert group.storage.calls["list"] == 4
    assert group.storage.calls["stat"] == 0


def test_ages_add_up_over_hosts(group: Group) -> None:
    group.attach(max_age=60)
    first, second = group.clients[:2]
    assert first.stat("d/big").size == len(DATA)
    group.storage.put("big", b"new")
    for clock in group.clocks:
        clock.advance(50)
    # The member has known it for 50 s, so the client knows it for 10 s more.
    assert second.stat("d/big").size == len(DATA)
    for clock in group.clocks:
        clock.advance(11)
    assert second.stat("d/big").size == 3
    assert second.read("d/big") == b"new"
    assert first.read("d/big") == b"new"


def test_a_version_that_the_member_does_not_know_yet(group: Group) -> None:
    group.attach(max_age=None)
    client = group.clients[0]
    assert client.read("d/big") == DATA
    group.storage.put("big", b"new")
    client.sync("d")
    assert client.read("d/big") == b"new"
    group.storage.put("big", b"newer")
    group.member.sync("d")
    # It knows of "new" and has its block no more: the source says that it has changed.
    group.member.free("d")
    assert client.read("d/big") == b"newer"


def test_what_is_not_there_is_nowhere(group: Group) -> None:
    group.attach(max_age=None)
    for client in group.clients:
        for call in (client.read, client.stat, client.listdir):
            with pytest.raises(NotFound):
                call("d/none")

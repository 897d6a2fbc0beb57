"""Reads through peers: what is asked of whom, what is kept, and what is done when peers do not answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from forebay.cache import ROOT_INODE, Cache
from forebay.config import KIB, MIB
from forebay.errors import ConfigError, NotFound, UnderStorageError
from forebay.remote import PLACEMENT_BYTES, LocalCopy, RemoteObject
from forebay.testing.faulty import FaultyStorage
from tests._remote import FakeRemote
from tests.integration._sites import OpenCache, counters

BLOCK = 64 * KIB
DATA = bytes(range(256)) * 900
SMALL = {f"s{number:02d}": bytes([number]) * (100 + number) for number in range(40)}


@pytest.fixture
def remote(storage: FaultyStorage) -> FakeRemote:
    storage.put("big", DATA)
    for path, data in SMALL.items():
        storage.put(path, data)
    return FakeRemote(storage)


def attach(cache: Cache, storage: FaultyStorage, *, known: bool = True, **settings: object) -> Cache:
    cache.attach("d", "faulty://x", **{"max_age": None, **settings})  # type: ignore[arg-type]
    if known:
        cache.sync("d")
    storage.calls.clear()
    return cache


@pytest.fixture
def client(open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote) -> Cache:
    """A cache that has listed all, so knows every version, and may ask peers for every block."""
    return attach(open_cache(schemes=storage.schemes(), remote=remote), storage)


def test_objects_read_together_are_one_call(
    client: Cache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    views = client.read_many([f"d/{path}" for path in SMALL])
    assert [bytes(view) for view in views] == list(SMALL.values())
    (batch,) = remote.batches
    assert [(each.dataset, each.path, each.number, each.length) for each in batch] == [
        ("d", path, 0, len(data)) for path, data in SMALL.items()
    ]
    assert not +storage.calls
    found = counters(client)
    assert found["peer_requests"] == len(SMALL)
    assert found["peer_bytes"] == sum(map(len, SMALL.values()))
    assert found["source_requests"] == found["source_bytes"] == found["peer_down"] == 0


@pytest.mark.parametrize("fate", ["lacks", "dies", "cut", "stale"])
def test_what_peers_do_not_have_comes_from_the_source(
    client: Cache, storage: FaultyStorage, remote: FakeRemote, fate: str
) -> None:
    remote.fate = lambda request: fate if request.number == 1 else "comes"  # type: ignore[assignment, return-value]
    assert client.read("d/big") == DATA
    assert storage.calls["read_range"] >= 1
    assert (counters(client)["peer_down"] > 0) == (fate != "stale")


def test_what_is_not_elsewhere_goes_the_usual_way(
    client: Cache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    remote.elsewhere = lambda path, offset: path != "big"
    assert client.read("d/big") == DATA
    assert not remote.calls
    assert client.read("d/big") == DATA
    assert storage.calls["read_range"] == 1
    assert counters(client)["admitted"] == 4


@pytest.mark.parametrize(
    ("role", "setting", "kept"),
    [
        ("never", None, False),
        ("always", None, True),
        ("if_room", None, True),
        ("never", "always", True),
        ("always", "never", False),
    ],
)
def test_copies_are_kept_as_the_dataset_says_or_else_the_role(
    open_cache: OpenCache,
    storage: FaultyStorage,
    remote: FakeRemote,
    role: LocalCopy,
    setting: LocalCopy | None,
    kept: bool,
) -> None:
    remote.local_copy = role
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage, local_copy=setting)
    for _ in range(2):
        assert cache.read("d/big") == DATA
        assert cache.read("d/s07") == SMALL["s07"]
    assert remote.calls["fetch"] == (2 if kept else 4)
    assert not +storage.calls


def test_copies_that_are_kept_if_there_is_room_give_way(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    remote.local_copy = "if_room"
    for number in range(80):
        storage.put(f"m{number}", bytes([number]) * MIB)
    remote.elsewhere = lambda path, offset: path < "m4"
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote, block_bytes=MIB), storage)
    copies = [f"m{number}" for number in range(80) if f"m{number}" < "m4"]
    own = [f"m{number}" for number in range(80) if f"m{number}" >= "m4"]
    for path in copies:
        cache.read(f"d/{path}")
    copied = cache.usage("d").cached_bytes
    assert copied > 0
    deadline = threading.Event()
    for _ in range(1_200):
        for path in own:
            cache.read(f"d/{path}")
        if all(cache.usage(f"d/{path}").cached_bytes for path in own):
            break
        deadline.wait(0.05)
    assert all(cache.usage(f"d/{path}").cached_bytes for path in own)


def test_reads_of_little_of_a_block_bring_little(
    client: Cache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    assert client.read("d/big", BLOCK + 5, 100) == DATA[BLOCK + 5 : BLOCK + 105]
    buffer = bytearray(BLOCK // 2)
    assert client.readinto("d/big", buffer, 7) == len(buffer)
    assert buffer == DATA[7 : 7 + len(buffer)]
    assert counters(client)["peer_bytes"] == 100 + len(buffer)
    assert remote.calls == {"touch": 2}
    assert client.read("d/big", 7, BLOCK // 2 + 1) == DATA[7 : 8 + BLOCK // 2]
    assert remote.calls["fetch"] == 1
    assert not +storage.calls


def test_reads_of_little_that_peers_do_not_answer_are_as_any(
    client: Cache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    remote.is_silent = True
    assert client.read("d/big", 5, 100) == DATA[5:105]
    storage.put("big", DATA[::-1])
    remote.is_silent = False
    assert client.read("d/big", 5, 100) == DATA[::-1][5:105]
    storage.remove("s01")
    with pytest.raises(NotFound):
        client.read("d/s01", 5, 10)


def test_an_unknown_object_is_touched_at_a_peer(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage, known=False)
    assert cache.read("d/big") == DATA
    assert cache.read("d/s01") == SMALL["s01"]
    assert remote.calls["touch"] == 2
    assert cache.stat("d/s02").size == len(SMALL["s02"])
    assert sorted(cache.listdir("d/sub")) == ["b", "c", "deep"]
    assert (remote.calls["stat"], remote.calls["list"]) == (1, 1)
    assert not +storage.calls


def test_peers_that_say_nothing_are_passed_by(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage, known=False)
    remote.is_silent = True
    remote.fate = lambda request: "lacks"
    assert cache.read("d/s01") == SMALL["s01"]
    assert cache.stat("d/s02").size == len(SMALL["s02"])
    assert sorted(cache.listdir("d/sub")) == ["b", "c", "deep"]
    assert (storage.calls["read_range"], storage.calls["stat"], storage.calls["list"]) == (1, 1, 1)


def test_that_nothing_is_there_is_believed(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    cache = attach(
        open_cache(schemes=storage.schemes(), remote=remote), storage, known=False, negative_ttl=60
    )
    for call in (cache.read, cache.stat, cache.listdir):
        with pytest.raises(NotFound):
            call("d/none")
    assert remote.calls["touch"] == 1
    assert not +storage.calls


@pytest.mark.parametrize("max_age", [0, 60])
def test_an_answer_that_is_too_old_is_none(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote, max_age: float
) -> None:
    cache = attach(
        open_cache(schemes=storage.schemes(), remote=remote), storage, known=False, max_age=max_age
    )
    remote.age_ns = 61_000_000_000
    cache.stat("d/s01")
    cache.listdir("d/sub")
    cache.read("d/s02")
    assert (storage.calls["stat"], storage.calls["list"]) == (1, 1)
    assert storage.calls["read_range"] == 1
    assert ("touch" in remote.calls) == (max_age != 0)


def test_a_younger_answer_is_kept_for_what_is_left_of_its_time(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage, known=False, max_age=60)
    remote.age_ns = 59_000_000_000
    (entry,) = [each for page in cache.nodes("d").children(ROOT_INODE) for each in page if each.path == "s01"]
    assert cache.stat("d/s01").size == len(SMALL["s01"])
    lookup = cache._runtime().lookup
    attached = cache._runtime().datasets.find("d")
    valid_s = lookup.valid_s(attached, entry)
    assert valid_s is not None
    assert valid_s <= 1


def test_a_sync_asks_the_source(client: Cache, storage: FaultyStorage, remote: FakeRemote) -> None:
    client.sync("d")
    assert storage.calls["list"] > 0
    assert not remote.calls


def test_a_version_that_peers_no_longer_have_is_read_anew(
    client: Cache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    storage.put("big", b"new")
    remote.local_copy = "always"
    assert client.read("d/big") == b"new"
    assert not remote.calls["stat"]


def test_an_error_of_the_source_is_raised_when_peers_are_down(
    client: Cache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    remote.fate = lambda request: "lacks"
    storage.script("read_range", UnderStorageError(5, "no", "big"))
    with pytest.raises(UnderStorageError):
        client.read("d/s00")
    assert client.read("d/s00") == SMALL["s00"]


def test_batches_keep_to_the_memory_there_is(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    storage.put("huge", bytes(4 * MIB))
    cache = attach(
        open_cache(schemes=storage.schemes(), remote=remote, fetch_memory=MIB, max_read_bytes=8 * MIB),
        storage,
    )
    with ThreadPoolExecutor(8) as threads:
        assert all(view == bytes(4 * MIB) for view in threads.map(lambda _: cache.read("d/huge"), range(8)))
    assert not +storage.calls
    assert remote.buffer_bytes_max <= MIB
    assert all(sum(each.length for each in batch) <= MIB // 4 for batch in remote.batches)


def test_a_block_that_is_kept_is_asked_for_once_a_host(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    remote.local_copy = "always"
    caches = [attach(open_cache(schemes=storage.schemes(), remote=remote), storage) for _ in range(2)]
    with ThreadPoolExecutor(16) as threads:
        paths = [f"d/{path}" for path in SMALL] * 8
        read = list(threads.map(lambda each: bytes(caches[each[0] % 2].read(each[1])), enumerate(paths)))
    assert read == list(SMALL.values()) * 8
    asked = [each.path for batch in remote.batches for each in batch]
    assert sorted(asked) == sorted(SMALL)
    assert not +storage.calls


def test_a_file_lies_whole_only_where_no_peer_answers_for_some_of_it(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    data = bytes(3 * MIB)
    storage.put("file", data)
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage)
    assert cache.read("d/file") == data
    assert cache.usage("d/file").cached_bytes == 0
    remote.elsewhere = lambda path, offset: False
    with cache.read("d/file") as view:
        assert view == data
    with cache.read("d/file") as view:
        assert view.zero_copy


@pytest.mark.parametrize("local_copy", ["never", "always"])
def test_other_ways_to_read_come_from_peers_too(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote, local_copy: LocalCopy
) -> None:
    remote.local_copy = local_copy
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage)
    buffer = bytearray(len(DATA))
    assert cache.readinto("d/big", buffer) == len(DATA)
    assert buffer == DATA
    assert b"".join(bytes(view) for view in cache.views("d/big")) == DATA
    with cache.open("d/big") as file:
        assert file.read() == DATA
    assert all(
        view == SMALL[path.partition("/")[2]] for path, view in cache.prefetch(f"d/{p}" for p in SMALL)
    )
    nodes = cache.nodes("d")
    found = nodes.open(nodes.child(ROOT_INODE, "big"))
    assert bytes(found.read(BLOCK - 5, BLOCK + 5)) == DATA[BLOCK - 5 : 2 * BLOCK]
    found.close()
    assert "read_range" not in storage.calls


def test_a_load_brings_what_this_host_keeps(
    client: Cache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    remote.elsewhere = lambda path, offset: path < "s20"
    report = client.load("d").wait()
    assert report.state == "done"
    own = [path for path in SMALL if path >= "s20"]
    assert all(client.usage(f"d/{path}").cached_bytes == len(SMALL[path]) for path in own)
    assert client.usage("d/big").cached_bytes == 0
    assert not remote.calls["fetch"]


def test_what_is_fetched_ends_where_the_next_peer_begins(
    open_cache: OpenCache, storage: FaultyStorage, remote: FakeRemote
) -> None:
    data = bytes(PLACEMENT_BYTES + 2 * MIB)
    storage.put("huge", data)
    cache = attach(
        open_cache(schemes=storage.schemes(), remote=remote, block_bytes=MIB), storage, known=False
    )
    read = cache.read("d/huge", PLACEMENT_BYTES - MIB, 3 * MIB)
    assert read == bytes(3 * MIB)
    assert not +storage.calls


def test_the_remote_is_closed_with_the_cache(client: Cache, remote: FakeRemote) -> None:
    client.close()
    assert remote.is_closed


def test_a_way_to_keep_copies_that_there_is_not_is_refused(client: Cache) -> None:
    with pytest.raises(ConfigError, match="local_copy: 'allways' is unknown"):
        client.attach("e", "faulty://y", local_copy="allways")


@pytest.mark.parametrize("wrong", [{"size": 1 << 63}, {"size": (1 << 64) - 1}, {"version": ""}], ids=str)
@pytest.mark.parametrize("path", ["big", "s03"])
def test_an_object_that_cannot_be_so_is_asked_of_the_source(
    open_cache: OpenCache,
    storage: FaultyStorage,
    remote: FakeRemote,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    wrong: dict[str, Any],
) -> None:
    told = remote._told
    monkeypatch.setattr(remote, "_told", lambda *object: told(*object)._replace(**wrong))
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage, known=False)
    assert cache.read(f"d/{path}") == storage.content(path)[0]  # type: ignore[index]
    cache.free("d", metadata=True)
    assert cache.stat(f"d/{path}").size == len(storage.content(path)[0])  # type: ignore[index]
    with cache.open(f"d/{path}") as file:
        assert file.read() == storage.content(path)[0]  # type: ignore[index]


@pytest.mark.parametrize(
    "path", ["other/x", "dir/x/y", "", "dir", "dir/", "dir/.", "dir/..", "dir/a\0b", "/dir/x"], ids=repr
)
def test_what_does_not_lie_in_a_directory_is_not_listed_there(
    open_cache: OpenCache,
    storage: FaultyStorage,
    remote: FakeRemote,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    for each in ("dir/x", "dir/y", "other/x"):
        storage.put(each, each.encode())
    wrong = RemoteObject(path, 5, 0, "wrong", False, 0)
    monkeypatch.setattr(remote, "list", lambda dataset, directory: iter([[wrong]]))
    cache = attach(open_cache(schemes=storage.schemes(), remote=remote), storage, known=False)
    assert cache.listdir("d/dir") == ["x", "y"]
    assert cache.read("d/other/x") == b"other/x"

"""Settings of members over real caches, and over a real gRPC server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from forebay.cache import Cache
from forebay.config import Tier
from forebay.errors import NotAttached
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.security.interceptor import PermissionInterceptor
from forebay.peer.security.permissions import Permissions
from forebay.peer.service.settings import SettingsService
from forebay.peer.settings.book import Book
from forebay.peer.settings.exchange import SettingsExchange, Taken
from forebay.peer.settings.items import Content, Item
from forebay.peer.settings.keeper import SettingsKeeper, pull, push
from forebay.peer.settings.local import LocalSettings
from forebay.peer.settings.wire import Incoming, messages_of, parse_summary, summary_of


@dataclass
class Member:
    """A cache with its settings, which answers in this process as SettingsService would."""

    name: str
    cache: Cache
    exchange: SettingsExchange

    def PullSettings(self, known: pb.SettingsSummary, timeout: float) -> Iterator[pb.Setting]:  # noqa: N802
        self.exchange.note()
        return messages_of(self.exchange, self.exchange.newer_than(parse_summary(known)))

    def PushSettings(self, messages: Iterable[pb.Setting], timeout: float) -> pb.SettingsSummary:  # noqa: N802
        with Incoming() as incoming:
            for message in messages:
                incoming.add(message)
            incoming.take(self.exchange)
        return summary_of(self.exchange.summary())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("a/1", "a/2", "b/1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 100)
    return folder


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Callable[[str], Member]]:
    with ExitStack() as stack:

        def make(name: str) -> Member:
            folder = tmp_path / name
            tiers = [Tier(str(folder / "tier"), "32MiB", "SSD")]
            cache = stack.enter_context(Cache(folder / "cache", tiers))
            (folder / "book").mkdir(exist_ok=True)
            book = Book(folder / "book", name)
            return Member(name, cache, SettingsExchange(LocalSettings(cache), book))

        yield make


def agree(*members: Member) -> None:
    """Let each ask each other, and see that all then have the same."""
    for _ in range(2):
        for one in members:
            for other in members:
                if one is not other:
                    pull(one.exchange, other)
    seen = [LocalSettings(each.cache).read() for each in members]
    assert all(one == seen[0] for one in seen)
    assert all(each.exchange.note() == [] for each in members)


def test_a_dataset_with_all_that_is_said_of_it_comes_to_the_others(
    member: Callable[[str], Member], data: Path
) -> None:
    one, two = member("one"), member("two")
    one.cache.attach("set", data.as_uri(), max_age=None, retention="lru", quota="1GiB")
    one.cache.set_policy("set/a", ttl_s=60.0, medium="SSD")
    one.cache.pin("set/b")
    one.cache.create_manifest("set", "v1", use=True)
    one.cache.create_manifest("set/a", "v2")
    agree(one, two)
    (dataset,) = two.cache.datasets()
    assert (dataset.retention, dataset.max_age, dataset.quota_bytes) == ("lru", None, 1 << 30)
    assert dataset.manifest == "v1"
    assert {each.version for each in two.cache.manifests("set")} == {"v1", "v2"}
    assert two.cache.policy("set/a/1").ttl_s == 60.0
    assert two.cache.policy("set/b/1").pin
    assert bytes(two.cache.read("set/a/1")) == b"a/1" * 100


def test_what_is_taken_away_goes_everywhere_and_does_not_come_back(
    member: Callable[[str], Member], data: Path
) -> None:
    one, two, three = member("one"), member("two"), member("three")
    one.cache.attach("set", data.as_uri())
    one.cache.set_policy("set/a", skip=True)
    one.cache.create_manifest("set", "v1", use=True)
    agree(one, two, three)
    two.cache.use_manifest("set", None)
    two.cache.delete_manifest("set", "v1")
    two.cache.clear_policy("set/a")
    # Three is away, and comes back.
    agree(one, two)
    agree(one, three)
    assert three.cache.manifests("set") == []
    assert three.cache.policies("set") == {}
    one.cache.detach("set")
    agree(one, two)
    agree(three, two)
    assert three.cache.datasets() == []


def test_a_member_that_was_away_catches_up_with_the_last_word(
    member: Callable[[str], Member], data: Path
) -> None:
    one, two = member("one"), member("two")
    one.cache.attach("set", data.as_uri(), max_age=1.0)
    agree(one, two)
    for max_age in (2.0, 3.0):
        one.cache.attach("set", data.as_uri(), max_age=max_age)
        one.exchange.note()
    two.cache.attach("set", data.as_uri(), max_age=9.0)
    agree(one, two)
    assert two.cache.datasets()[0].max_age == 3.0


def test_another_uri_under_the_name_takes_the_place_of_the_first(
    member: Callable[[str], Member], data: Path
) -> None:
    one, two = member("one"), member("two")
    one.cache.attach("set", (data / "a").as_uri())
    agree(one, two)
    assert bytes(two.cache.read("set/1")) == b"a/1" * 100
    one.cache.detach("set")
    one.cache.attach("set", (data / "b").as_uri())
    agree(one, two)
    assert bytes(two.cache.read("set/1")) == b"b/1" * 100


def test_what_cannot_hold_yet_is_tried_again(member: Callable[[str], Member], tmp_path: Path) -> None:
    one, two = member("one"), member("two")
    folder = tmp_path / "late"
    folder.mkdir()
    one.cache.attach("set", folder.as_uri())
    (item,) = one.exchange.note()
    folder.rmdir()
    assert two.exchange.take([item], {}).refused.keys() == {"dataset/set"}
    with pytest.raises(NotAttached):
        two.cache.stat("set")
    assert two.exchange.note() == []
    folder.mkdir()
    assert two.exchange.take([item], {}) == Taken(1, {})
    assert two.cache.listdir("set") == []


def one_that_moved(member: Callable[[str], Member], data: Path) -> tuple[Member, Member]:
    """Return a member that has the dataset at another URI, and one that has yet to hear of it."""
    one, two = member("one"), member("two")
    one.cache.attach("set", (data / "a").as_uri())
    one.cache.set_policy("set/x", ttl_s=60.0)
    agree(one, two)
    one.cache.detach("set")
    one.cache.attach("set", (data / "b").as_uri())
    return one, two


def test_another_uri_that_cannot_hold_yet_takes_the_dataset_from_nobody(
    member: Callable[[str], Member], data: Path
) -> None:
    # The member of the greater name would win, had it noted its own failure as a deletion.
    one, two = one_that_moved(member, data)
    one.exchange.note()
    (data / "b").rename(data / "away")
    assert pull(two.exchange, one) == 1  # that there is no policy any more
    assert two.exchange.note() == []
    (data / "away").rename(data / "b")
    agree(one, two)
    assert bytes(two.cache.read("set/1")) == b"b/1" * 100


def test_a_member_killed_while_it_shows_another_uri_takes_the_dataset_from_nobody(
    member: Callable[[str], Member], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def attach(*arguments: object, **options: object) -> None:
        raise Killed

    one, two = one_that_moved(member, data)
    changed = one.exchange.note()
    with monkeypatch.context() as patched:
        patched.setattr(two.cache, "attach", attach)
        with pytest.raises(Killed):
            two.exchange.take(changed, {})
    assert two.cache.datasets() == []
    again = SettingsExchange(LocalSettings(two.cache), Book(tmp_path / "two" / "book", "two"))
    assert again.note() == []
    agree(one, Member("two", two.cache, again))
    assert bytes(two.cache.read("set/1")) == b"b/1" * 100


def test_another_uri_leaves_the_policies_that_stayed(member: Callable[[str], Member], data: Path) -> None:
    one, two = one_that_moved(member, data)
    one.cache.set_policy("set/x", ttl_s=60.0)
    agree(one, two)
    assert one.cache.policy("set/x").ttl_s == two.cache.policy("set/x").ttl_s == 60.0


def test_two_manifests_of_one_name_are_told_of_and_neither_is_lost(
    member: Callable[[str], Member], data: Path
) -> None:
    one, two = member("one"), member("two")
    one.cache.attach("set", data.as_uri())
    agree(one, two)
    one.cache.create_manifest("set/a", "v1")
    two.cache.create_manifest("set/b", "v1")
    one.exchange.note()
    # Of two with one version that of the greater name is the newer.
    taken = one.exchange.take(two.exchange.note(), {})
    assert "lists other objects" in taken.refused["manifest/set/v1"]
    assert two.cache.manifests("set")[0].objects == 1
    assert one.cache.manifests("set")[0].objects == 2


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("dataset/set", {"uri": "nowhere"}),
        ("dataset/set", {"uri": "file:///", "options": 3}),
        ("shown/set", {}),
        ("policy/set/0", {"path": "set/a"}),
        ("policy/set/0", {"path": "../..", "policy": {"pin": True}}),
        ("manifest/set/v1", {"digest": "0"}),
    ],
)
def test_an_item_that_makes_no_sense_changes_nothing(
    member: Callable[[str], Member], data: Path, key: str, content: dict[str, Any]
) -> None:
    one = member("one")
    one.cache.attach("other", data.as_uri())
    before = LocalSettings(one.cache).read()
    taken = one.exchange.take([Item(key, 1, "two", content)], {})
    assert taken.count == 0
    assert taken.refused.keys() == {key}
    assert LocalSettings(one.cache).read() == before


class AdminService(SettingsService, pb_grpc.AdminServicer):
    """The service, of which only settings are answered."""


@contextmanager
def served(exchange: SettingsExchange) -> Iterator[str]:
    """Answer for a member over gRPC, in a thread; yield the address."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    address: list[str] = []
    stopping = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server(interceptors=[PermissionInterceptor(Permissions())])
        pb_grpc.add_AdminServicer_to_server(AdminService(exchange, Permissions()), server)
        address.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        started.set()
        await stopping.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()


def test_over_grpc_with_listings(member: Callable[[str], Member], data: Path) -> None:
    one, two = member("one"), member("two")
    one.cache.attach("set", data.as_uri())
    one.cache.create_manifest("set", "v1", use=True)
    with served(one.exchange) as address, grpc.insecure_channel(address) as channel:
        stub: Any = pb_grpc.AdminStub(channel)
        assert pull(two.exchange, stub) == 3
        assert pull(two.exchange, stub) == 0
        two.cache.create_manifest("set/a", "v2")
        known = parse_summary(push(two.exchange, stub, two.exchange.note()))
        assert known["manifest/set/v2"] == (1, "two")
    assert {each.version for each in one.cache.manifests("set")} == {"v1", "v2"}
    agree(one, two)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("policy/set/0", {"path": "set/a", "policy": "skip"}),
        ("policy/set/0", {"path": "set/a", "policy": ["skip"]}),
        ("policy/set/0", {"path": 5, "policy": {"skip": True}}),
        ("policy/set/0", {}),
        ("dataset/set", {"uri": None, "options": {}}),
        ("dataset/set", {"uri": ["file:///"], "options": {}}),
        ("dataset/set", {"options": {}}),
        ("shown/set", {"manifest": {}}),
        ("manifest/set/v1", {"digest": 5}),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_alone_and_takes_nothing_away(
    member: Callable[[str], Member], data: Path, key: str, content: Content
) -> None:
    one = member("one")
    one.cache.attach("set", data.as_uri(), max_age=7.0)
    one.cache.set_policy("set/b", skip=True)
    one.exchange.note()
    before = LocalSettings(one.cache).read()
    good = Item("dataset/other", 1, "two", {**before["dataset/set"], "max_age": 8.0})
    taken = one.exchange.take([Item(key, 9, "two", content), good], {})
    assert (taken.count, list(taken.refused)) == (1, [key])
    after = LocalSettings(one.cache).read()
    assert after.pop("dataset/other") == good.content
    assert after == before
    assert one.exchange.note() == []


def test_over_grpc_what_is_not_understood_is_refused(member: Callable[[str], Member]) -> None:
    one = member("one")
    bad = [
        pb.Setting(is_last=True),
        pb.Setting(version=pb.SettingVersion(key="dataset/a", version=1, writer="w"), content=b"["),
        pb.Setting(
            version=pb.SettingVersion(key="dataset/a", version=1, writer="w"), content=b"{}", part=b"x"
        ),
    ]
    with served(one.exchange) as address, grpc.insecure_channel(address) as channel:
        stub: Any = pb_grpc.AdminStub(channel)
        for message in bad:
            with pytest.raises(grpc.RpcError) as raised:
                stub.PushSettings(iter([message]), timeout=30)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert one.cache.datasets() == []


def test_a_keeper_hands_on_what_is_changed_and_asks_for_the_rest(
    member: Callable[[str], Member], data: Path
) -> None:
    one, two = member("one"), member("two")
    two.cache.attach("before", data.as_uri())
    keeper = SettingsKeeper(one.exchange, lambda: [("two", two)])
    one.cache.attach("after", data.as_uri())
    keeper.round()
    for each in (one, two):
        assert [dataset.name for dataset in each.cache.datasets()] == ["after", "before"]


def test_a_keeper_whose_first_pulls_fail_goes_on(member: Callable[[str], Member], data: Path) -> None:
    one, two = member("one"), member("two")
    two.cache.attach("set", data.as_uri())
    asked: list[None] = []
    has_pulled = threading.Event()

    def others() -> list[tuple[str, Member]]:
        asked.append(None)
        if len(asked) < 3:
            raise RuntimeError("nobody is known yet")
        if one.cache.datasets():
            has_pulled.set()
        return [("two", two)]

    keeper = SettingsKeeper(one.exchange, others, note_every_s=0.01)
    keeper.start()
    assert has_pulled.wait(60)
    keeper.stop()


def test_settings_are_read_again_after_a_commit_alone(
    member: Callable[[str], Member], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = member("one")
    one.cache.attach("set", data.as_uri())
    assert len(one.exchange.note()) == 1
    reads: list[LocalSettings] = []
    read = LocalSettings.read

    def noted(local: LocalSettings) -> dict[str, Content]:
        reads.append(local)
        return read(local)

    monkeypatch.setattr(LocalSettings, "read", noted)
    assert one.exchange.note() == one.exchange.note() == []
    assert reads == []
    # Another process's word as well.
    with Cache(one.cache.path) as other:
        other.set_policy("set/a", ttl_s=5.0)
    assert [item.kind for item in one.exchange.note()] == ["policy"]
    assert one.exchange.note() == []
    assert len(reads) == 1


def test_a_keeper_outlives_members_that_do_not_answer(member: Callable[[str], Member], data: Path) -> None:
    one, two = member("one"), member("two")
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        gone: Any = pb_grpc.AdminStub(channel)
        keeper = SettingsKeeper(one.exchange, lambda: [("gone", gone), ("two", two)])
        one.cache.attach("set", data.as_uri())
        keeper.round()
    assert [dataset.name for dataset in two.cache.datasets()] == ["set"]

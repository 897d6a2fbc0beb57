"""A group as the remote of a cache: who is asked for what, and what belongs to a process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.config import FORMAT_FOLDER
from forebay.errors import ConfigError, not_found
from forebay.peer.data.errors import PeerDown
from forebay.peer.group import Group
from forebay.peer.identity import member_id
from forebay.peer.links import PeerLinks
from forebay.peer.member import Member, View
from forebay.peer.ring import Ring
from forebay.peer.security.credentials import Credentials
from forebay.peer.security.options import SecurityOptions
from forebay.peer.stubs import KEEP_S, Stubs
from tests.unit.peer._fake_links import (
    BLOCK_BYTES,
    Call,
    FakeLinks,
    FakeTime,
    block,
    member,
    refuse_connections,
    request,
    view,
)

SEEDS = ["h1:7070", "h2:7070"]


class ToldLinks(FakeLinks):
    """Links to members, all of whom have the same view."""

    def __init__(self, said: View) -> None:
        super().__init__()
        self.seeds = dict.fromkeys(SEEDS, said)
        for each in said.members:
            self.link(each).said = said


def links_of_five(group: Group) -> ToldLinks:
    return ToldLinks(view(5))


def links_of_nobody(group: Group) -> FakeLinks:
    return FakeLinks()


@pytest.fixture
def group() -> Iterator[Group]:
    group = Group("g", SEEDS, links=links_of_five)
    yield group
    group.close()


def links_of(group: Group) -> FakeLinks:
    assert isinstance(group.peers.links, FakeLinks)
    return group.peers.links


def order(path: str, members: int = 5) -> tuple[Member, ...]:
    return Ring(view(members)).owners("d", path, 0, members)


def fetched(group: Group, *paths: str) -> list[bytes | None]:
    requests = [request(path) for path in paths]
    buffers = [memoryview(bytearray(BLOCK_BYTES)) for _ in paths]
    come: set[int] = set()
    group.fetch(requests, buffers, come.add, lambda: None)
    return [bytes(buffers[index]) if index in come else None for index in range(len(paths))]


def test_blocks_are_asked_of_their_owners(group: Group) -> None:
    paths = [f"o{number}" for number in range(20)]
    assert all(group.is_elsewhere("d", path, 0) for path in paths)
    assert fetched(group, *paths) == [block(request(path)) for path in paths]
    for each in view(5).members:
        asked = [sent.path for call in links_of(group).link(each).calls for sent in call.requests]
        assert asked == [path for path in paths if order(path)[0] == each]


def test_of_copies_the_least_busy_holder_is_asked_for_what_it_has_cached(
    group: Group,
) -> None:
    assert group.ring is not None
    first, second = order("o")[:2]
    for _ in range(64):
        group.peers.latency(first.id).note(1.0)
    wanted = request("o")
    for replicas, asked in ((1, first), (2, second)):
        links_of(group).link(asked).calls.clear()
        come: list[int] = []
        buffer = memoryview(bytearray(BLOCK_BYTES))
        group.fetch([wanted._replace(replicas=replicas)], [buffer], come.append, lambda: None)
        assert come == [0]
        (call,) = links_of(group).link(asked).calls
        assert call.only_cached == (asked is second)


def test_objects_are_asked_of_those_behind_an_owner_that_is_down(group: Group) -> None:
    first, second = order("o")[:2]
    assert group.ring is not None
    links_of(group).link(first).does = refuse_connections
    found = group.touch("d", "o", 0, 2)
    assert found is not None
    assert (found[0].path, bytes(found[1])) == ("o", b"da")
    assert group.peers.suspects.ids == {first.id}
    assert group.stat("d", "o") == found[0]
    assert len(links_of(group).link(first).calls) == 1
    assert len(links_of(group).link(second).calls) == 2


def test_a_directory_comes_page_by_page_from_whoever_answers(group: Group) -> None:
    assert group.ring is not None
    links_of(group).link(order("dir")[0]).does = refuse_connections
    pages = group.list("d", "dir")
    assert pages is not None
    assert [[each.path for each in page] for page in pages] == [["dir/a"], ["dir/b"]]


def test_what_a_peer_says_of_the_source_is_raised(group: Group) -> None:
    def say_so(call: Call) -> None:
        raise not_found("d/o")

    assert group.ring is not None
    links_of(group).link(order("o")[0]).does = say_so
    with pytest.raises(FileNotFoundError):
        group.stat("d", "o")
    assert group.peers.suspects.ids == frozenset()


def test_when_nobody_answers_everything_is_left_to_the_storage(group: Group) -> None:
    assert group.ring is not None
    for each in view(5).members:
        links_of(group).link(each).does = refuse_connections
    assert fetched(group, "o") == [None]
    assert group.touch("d", "o", 0, 1) is None
    assert group.stat("d", "o") is None
    assert group.list("d", "o") is None
    assert len(group.peers.suspects.ids) == 5
    assert not group.is_elsewhere("d", "o", 0)
    assert group.owns("d", "o", 0)


def test_without_a_view_nothing_is_elsewhere() -> None:
    group = Group("g", SEEDS, links=links_of_nobody)
    assert not group.is_elsewhere("d", "o", 0)
    assert group.owns("d", "o", 0)
    assert fetched(group, "o") == [None]
    assert group.status()["epoch"] is None
    group.close()


def test_a_member_asks_for_all_but_its_own(tmp_path: Path) -> None:
    (tmp_path / FORMAT_FOLDER).mkdir()
    own = Member(member_id(tmp_path), "127.0.0.1:9", data_port=1)
    group = Group("g", [], "member", tmp_path, links=links_of_nobody)
    told = View.of(7, [own, *view(4).members])
    group.take_view(told)
    assert group.own_id == own.id
    assert group.local_copy == "never"
    ring = Ring(told)
    names = [f"o{number}" for number in range(50)]
    for name in names:
        is_own = ring.owners("d", name, 0)[0] == own
        assert group.owns("d", name, 0) == is_own
        assert group.is_elsewhere("d", name, 0) == (not is_own)
    group.close()


def test_a_new_owner_asks_the_former_one_for_what_it_has_cached(tmp_path: Path) -> None:
    (tmp_path / FORMAT_FOLDER).mkdir()
    own = Member(member_id(tmp_path), "127.0.0.1:9", data_port=1)
    group = Group("g", [], "member", tmp_path, links=links_of_nobody)
    told = View.of(7, [own, *view(4).members])
    group.take_view(told)
    ring, former = Ring(told), group.owner_side()
    mine = next(name for name in map(str, range(100)) if ring.owners("d", name, 0)[0] == own)
    other = next(name for name in map(str, range(100)) if ring.owners("d", name, 0)[0] != own)
    assert former.is_elsewhere("d", mine, 0)
    assert not former.is_elsewhere("d", other, 0)
    buffer, come = memoryview(bytearray(BLOCK_BYTES)), list[int]()
    former.fetch([request(mine)], [buffer], come.append, lambda: None)
    assert come == [0]
    (call,) = links_of(group).link(ring.owners("d", mine, 0, 2)[1]).calls
    assert call.only_cached
    group.close()


def test_an_owner_asks_the_holders_of_copies_for_what_it_has_not(tmp_path: Path) -> None:
    (tmp_path / FORMAT_FOLDER).mkdir()
    own = Member(member_id(tmp_path), "127.0.0.1:9", data_port=1)
    group = Group("g", [], "member", tmp_path, links=links_of_nobody)
    told = View.of(7, [own, *view(4).members])
    group.take_view(told)
    ring, owner_side = Ring(told), group.owner_side()
    second = next(name for name in map(str, range(100)) if ring.rank_of(own.id, "d", name, 0) == 1)
    assert not owner_side.is_elsewhere("d", second, 0)
    assert owner_side.is_elsewhere("d", second, 0, 2)
    buffer, come = memoryview(bytearray(BLOCK_BYTES)), list[int]()
    owner_side.fetch([request(second)._replace(replicas=2)], [buffer], come.append, lambda: None)
    assert come == [0]
    (call,) = links_of(group).link(ring.owners("d", second, 0)[0]).calls
    assert call.only_cached
    group.close()


def test_a_group_pickles_as_its_configuration(group: Group) -> None:
    assert group.ring is not None
    copy = pickle.loads(pickle.dumps(group))
    assert copy.rings.ring is None
    assert (copy.name, copy.seeds, copy.role, copy.limits) == ("g", tuple(SEEDS), "client", group.limits)
    assert fetched(copy, "o") == [block(request("o"))]
    copy.close()


def test_a_forked_child_goes_by_the_view_that_it_inherits(group: Group) -> None:
    assert group.ring is not None
    before = links_of(group)
    child = os.fork()
    if child == 0:
        found = fetched(group, "o") == [block(request("o"))]
        # The links are its own, and no seed was greeted by them.
        os._exit(0 if found and links_of(group) is not before and not links_of(group).greeted else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_goes_on_where_the_token_vanished_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "fb1.a.b")
    group = Group("g", SEEDS, security=SecurityOptions(token_file="env:A_TOKEN"), peer_timeout_s=0.2)
    group.take_view(View.of(1, [member(5)]))
    assert fetched(group, "o") == [None]
    monkeypatch.delenv("A_TOKEN")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if fetched(group, "o") == [None] else 1)
        except ConfigError:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    group.close()


def test_after_close_nothing_is_elsewhere(group: Group) -> None:
    assert group.is_elsewhere("d", "o", 0)
    group.close()
    group.close()
    assert not group.is_elsewhere("d", "o", 0)
    assert fetched(group, "o") == [None]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"role": "owner"}, "expected client or member"),
        ({"role": "member"}, "cache directory"),
        ({"peers": ["h1"]}, "host:port"),
        ({"copies": 0}, "expected 1 at least"),
        ({"messages_max": 0}, "too few"),
    ],
)
def test_what_cannot_be_is_said_when_the_group_is_made(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Group(**{"group": "g", "peers": SEEDS, **given})  # type: ignore[arg-type]


def test_the_status_names_members_and_counts(group: Group) -> None:
    fetched(group, "o")
    status = group.status()
    assert (status["group"], status["epoch"], len(status["members"])) == ("g", 1, 5)
    assert status["counters"]["messages"] == 1
    assert status["messages"] == status["in_flight_bytes"] == 0
    assert member(0).address in {each["address"] for each in status["members"]}


def test_links_to_members_that_left_are_given_up_once_nothing_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links = PeerLinks(Group("g", SEEDS))
    first, second, third = (links.link(member(number)) for number in range(3))
    monkeypatch.setattr(type(first), "in_flight", property(lambda link: int(link is first)))
    links.keep(frozenset({member(2).id}))
    assert links.link(member(0)) is first
    assert links.link(member(1)) is not second
    assert links.link(member(2)) is third
    monkeypatch.undo()
    links.keep(frozenset({member(2).id}))
    assert links.link(member(0)) is not first
    links.close()


def test_channels_to_members_that_left_are_given_up_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    closed: list[str] = []

    class Channel:
        def __init__(self, address: str) -> None:
            self.address = address

        def __getattr__(self, name: str) -> object:
            return lambda *arguments, **options: None

        def close(self) -> None:
            closed.append(self.address)

    def open_channel(credentials: Credentials, address: str, options: object = ()) -> Channel:
        opened.append(address)
        return Channel(address)

    monkeypatch.setattr(Credentials, "open_channel", open_channel)
    time = FakeTime()
    stubs = Stubs(SecurityOptions(), time)
    here, away, back = (member(number) for number in range(3))
    for each in (here, away, back):
        stubs.of(each)
    stubs.keep({here.address})
    time.advance(KEEP_S - 1)
    stubs.keep({here.address, back.address})
    assert closed == []
    time.advance(1)
    stubs.keep({here.address, back.address})
    assert closed == [away.address]
    stubs.of(away)
    assert opened == [here.address, away.address, back.address, away.address]
    stubs.close()


@pytest.mark.parametrize("is_used", [True, False])
def test_what_a_closed_group_is_asked_opens_nothing_that_stays(is_used: bool) -> None:
    made: list[FakeLinks] = []

    def links(group: Group) -> FakeLinks:
        made.append(links_of_five(group))
        return made[-1]

    group = Group("g", SEEDS, links=links)
    if is_used:
        assert group.ring is not None
    group.close()
    assert not group.is_elsewhere("d", "o", 0)
    group.status()
    group.take_view(view(2, epoch=2))
    assert len(made) == 1
    assert made[0].is_closed


def test_links_that_were_closed_make_no_further_ones() -> None:
    links = PeerLinks(Group("g", SEEDS))
    links.link(member(1))
    links.close()
    with pytest.raises(PeerDown, match="closed"):
        links.link(member(1))

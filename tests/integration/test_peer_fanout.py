"""Commands for all members of a group: real caches behind real gRPC servers, placement by a stand-in."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from forebay.cache import Cache
from forebay.cache.loads.filelist import ListedName
from forebay.cache.loads.load import load_request
from forebay.config import MIB, Tier
from forebay.errors import ConfigError, NotAttached, PinLimit
from forebay.peer.fanout.everyone import apply, ask, locate
from forebay.peer.fanout.load import GroupLoad
from forebay.peer.fanout.names import NameList
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.service.work import WorkService
from forebay.peer.stubs import MemberStub
from forebay.remote import PLACEMENT_BYTES, NoRemote, Share

FILES = 60


class Divided(NoRemote):
    """No peers, but a share: who is first goes by a checksum."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id

    def share(self, members: Sequence[str]) -> Share:
        ordered = sorted(members)

        def is_ours(dataset: str, path: str, offset: int) -> bool:
            place = zlib.crc32(f"{dataset}/{path}/{offset // PLACEMENT_BYTES}".encode())
            return ordered[place % len(ordered)] == self.member_id

        return is_ours


class AdminService(WorkService, pb_grpc.AdminServicer):
    """The service, of which only the work is done."""


class Member:
    """A cache that is served by a thread with a loop."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.cache = Cache(
            folder / "cache", [Tier(str(folder / "tier"), "256MiB", "SSD")], remote=Divided(name)
        )
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._started.wait(30)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._server = grpc.aio.server()
        pb_grpc.add_AdminServicer_to_server(AdminService(self.cache), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self._started.set()
        await self._stopping.wait()
        await self._server.stop(None)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._loop.close()

    def close(self) -> None:
        self.channel.close()
        self.stop()
        self.cache.close()


class Group:
    """Who the members are."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    def admins(self) -> list[MemberStub]:
        return [
            MemberStub(each.name, each.name, each.name, None, pb_grpc.AdminStub(each.channel))
            for each in self.members
        ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:03}").write_bytes(bytes([number]) * (1000 + number))
    return folder


@pytest.fixture
def group(tmp_path: Path, data: Path) -> Iterator[Callable[[int], Group]]:
    with ExitStack() as stack:

        def make(count: int) -> Group:
            members = [Member(tmp_path / f"m{number}", f"m{number}") for number in range(count)]
            for member in members:
                stack.callback(member.close)
                member.cache.attach("set", data.as_uri(), max_age=None)
            return Group(members)

        yield make


def cached(member: Member) -> set[str]:
    """Name the files that a member has whole."""
    usage = {f"{number:03}": member.cache.usage(f"set/{number:03}") for number in range(FILES)}
    return {name for name, each in usage.items() if each.cached_bytes == each.bytes}


def test_each_member_loads_its_share_and_nothing_else(group: Callable[[int], Group]) -> None:
    group_of_three = group(3)
    load = GroupLoad(group_of_three, load_request("set"), None)
    result = load.wait(60)
    assert result.ok, result
    assert result.progress.files_done == result.progress.files_total == FILES
    assert result.progress.bytes_done == result.progress.bytes_total
    shares = [cached(member) for member in group_of_three.members]
    assert all(shares)
    assert sum(map(len, shares)) == len(set.union(*shares)) == FILES
    again = GroupLoad(group_of_three, load_request("set"), None).wait(60)
    assert (again.progress.files_done, again.progress.files_skipped) == (0, FILES)


def test_a_large_file_is_divided_by_runs_and_counts_once(group: Callable[[int], Group], data: Path) -> None:
    size = 3 * PLACEMENT_BYTES + MIB
    with open(data / "large", "wb") as file:
        file.truncate(size)
    pair = group(2)
    result = GroupLoad(pair, load_request("set", glob="large"), None).wait(120)
    assert result.ok, result
    assert (result.progress.files_done, result.progress.bytes_done) == (1, size)
    have = [member.cache.usage("set/large").cached_bytes for member in pair.members]
    assert sum(have) == size


def test_those_that_are_left_take_over_from_one_that_is_lost(group: Callable[[int], Group]) -> None:
    three = group(3)
    three.members[1].stop()
    result = GroupLoad(three, load_request("set"), None).wait(60)
    assert result.ok, result
    assert result.progress.files_done + result.progress.files_skipped == FILES
    assert cached(three.members[0]) | cached(three.members[2]) == {f"{each:03}" for each in range(FILES)}


def test_without_any_member_left_it_fails_and_says_why(group: Callable[[int], Group]) -> None:
    one = group(1)
    one.members[0].stop()
    result = GroupLoad(one, load_request("set"), None).wait(60)
    assert result.state == "failed"
    assert "no member is left" in result.reason


def test_a_member_whose_words_make_no_sense_does_not_pass_for_done() -> None:
    class Call:
        is_cancelled = False

        def __iter__(self) -> Iterator[pb.LoadEvent]:
            yield pb.LoadEvent(job="1", state="running", progress=b"[")

        def cancel(self) -> None:
            self.is_cancelled = True

    class Babbler:
        def admins(self) -> list[MemberStub]:
            return [MemberStub("m", "m", "h", None, SimpleNamespace(Load=lambda messages: call))]

    call = Call()
    load = GroupLoad(Babbler(), load_request("set"), None)
    assert load.wait(60).state == "failed"
    assert call.is_cancelled


def test_a_list_with_bad_lines_and_absent_files_tells_of_each(group: Callable[[int], Group]) -> None:
    pair = group(2)
    listed = [
        ListedName(1, "000", None),
        ListedName(2, "absent", None),
        ListedName(3, "../x", "climbs"),
        ListedName(4, "001", None),
    ]
    load = GroupLoad(pair, load_request("set"), NameList(listed))
    result = load.wait(60)
    assert result.state == "incomplete"
    assert sorted(each.path for each in load.results()) == ["../x", "set/absent"]
    assert (result.progress.files_done, result.progress.files_failed) == (2, 2)


def test_cancelled_it_stops_everywhere(group: Callable[[int], Group], data: Path) -> None:
    for number in range(400):
        (data / f"more{number}").write_bytes(bytes(1000))
    pair = group(2)
    load = GroupLoad(pair, load_request("set", rate_limit=20_000), None)
    while load.progress().files_settled == 0:
        with pytest.raises(TimeoutError):
            load.wait(0.05)
    load.cancel()
    assert load.wait(60).state == "cancelled"
    for member in pair.members:
        (job,) = member.cache.jobs()
        assert job.wait(60).state == "cancelled"


def test_a_verb_is_applied_by_every_member(group: Callable[[int], Group]) -> None:
    pair = group(2)
    assert GroupLoad(pair, load_request("set"), None).wait(60).ok
    answers = apply(pair, "pin", "set")
    assert sum(answers.results.values()) == FILES
    assert all(member.cache.policy("set/000").pin for member in pair.members)
    apply(pair, "free", "set", data=True, metadata=False).raise_first()
    assert [cached(member) for member in pair.members] == [set(), set()]
    apply(pair, "replicas", "set", at_least=2, at_most=3).raise_first()
    assert all(member.cache.policy("set/000").replicas == 2 for member in pair.members)


@pytest.mark.parametrize(
    ("verb", "path", "arguments", "error"),
    [
        ("close", "set", {}, ValueError),
        ("pin", "other", {}, NotAttached),
        ("pin", "../set", {}, ValueError),
        ("pin", "set", {"force": True}, ValueError),
        ("ttl", "set", {"seconds": -1}, ConfigError),
        ("ttl", "set", {"seconds": "x"}, ConfigError),
        ("replicas", "set", {"at_least": 3, "at_most": 2}, ConfigError),
    ],
)
def test_what_a_member_refuses_is_raised_here_and_names_it(
    group: Callable[[int], Group], verb: str, path: str, arguments: dict[str, Any], error: type[Exception]
) -> None:
    one = group(1)
    with pytest.raises(error, match="member m0"):
        apply(one, verb, path, **arguments).raise_first()


def test_an_error_of_a_member_stays_of_its_kind() -> None:
    stub = MemberStub("a", "a", "a", None, None)

    def refuse(_: MemberStub) -> None:
        raise PinLimit(28, "80 % of the tier are pinned")

    with pytest.raises(PinLimit, match=r"member a: .*80 %"):
        ask([stub], refuse).raise_first()
    with pytest.raises(OSError, match="no member of the group answers"):
        ask([], refuse)


def test_shares_are_of_all_there_is_and_not_of_what_a_member_knows() -> None:
    class Knows:
        def Locate(self, request: pb.LocateRequest, timeout: float) -> pb.LocateReply:  # noqa: N802
            return pb.LocateReply(cached_bytes=25, total_bytes=25)

    class Pair:
        def admins(self) -> list[MemberStub]:
            return [MemberStub(name, name, name, Knows(), None) for name in "ab"]

    assert locate(Pair(), "set", "", 100) == {"a": 0.25, "b": 0.25}


@pytest.mark.parametrize(("limit", "each"), [(None, 0), (100, 33), (3, 1), (2, 1), (1, 1)])
def test_the_rate_is_divided_and_never_becomes_unlimited(limit: int | None, each: int) -> None:
    asked: list[pb.LoadRequest] = []

    def load(messages: Iterator[pb.LoadRequest]) -> Iterator[pb.LoadEvent]:
        asked.extend(messages)
        return iter([pb.LoadEvent(state="done")])

    stubs = [MemberStub(name, name, name, None, SimpleNamespace(Load=load)) for name in "abc"]
    group = SimpleNamespace(admins=lambda: stubs)
    assert GroupLoad(group, load_request("set", rate_limit=limit), None).wait(60).state == "done"
    assert [request.rate_limit for request in asked] == [each] * 3

"""What a client takes over of the settings of members, and what it keeps of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import Tier
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.settings.book import Book
from forebay.peer.settings.exchange import SettingsExchange
from forebay.peer.settings.keeper import pull
from forebay.peer.settings.local import LocalSettings
from forebay.peer.settings.taken import Aside, TakenSettings
from forebay.peer.settings.wire import messages_of, parse_summary


class Group:
    """A member, and a client that asks it."""

    def __init__(self, member: Cache, client: Cache, folder: Path) -> None:
        self.member, self.client, self._folder = member, client, folder
        self._exchange = SettingsExchange(LocalSettings(member), Book(folder, "member"))
        self.aside = Aside()
        self.told: list[str] = []

    def PullSettings(self, known: pb.SettingsSummary, timeout: float) -> Iterator[pb.Setting]:  # noqa: N802
        self._exchange.note()
        newer = self._exchange.newer_than(parse_summary(known))
        self.told = [item.key for item in newer]
        return messages_of(self._exchange, newer)

    def pull(self) -> int:
        """Have the client ask, as a process of its own would; return how much it took over."""
        taken = TakenSettings(LocalSettings(self.client), str(self._folder), self.aside)
        return pull(taken, self)  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> str:
    folder = tmp_path / "data"
    for name in ("a/1", "a/2", "b/1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 100)
    return folder.as_uri()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    with ExitStack() as stack:

        def make(name: str) -> Cache:
            tiers = [Tier(str(tmp_path / name / "tier"), "32MiB", "SSD")]
            return stack.enter_context(Cache(tmp_path / name / "cache", tiers))

        (tmp_path / "books").mkdir()
        yield Group(make("member"), make("client"), tmp_path / "books")


def test_a_client_has_what_was_said_at_a_member(group: Group, data: str) -> None:
    group.member.attach("set", data, max_age=None)
    group.member.set_policy("set/a", replicas_at_least=2, replicas_at_most=2, ttl_s=60.0)
    group.member.create_manifest("set", "v1", use=True)
    assert group.pull() == 4
    (dataset,) = group.client.datasets()
    assert (dataset.uri, dataset.max_age, dataset.manifest) == (data, None, "v1")
    assert group.client.policy("set/a/1").replicas == 2
    assert bytes(group.client.read("set/a/1")) == b"a/1" * 100
    assert group.pull() == 0
    assert group.told == []
    group.member.clear_policy("set/a")
    group.member.use_manifest("set", None)
    group.pull()
    assert group.client.policies("set") == {}
    group.member.detach("set")
    group.pull()
    assert group.client.datasets() == []


def test_pins_stay_with_the_members(group: Group, data: str) -> None:
    group.member.attach("set", data)
    group.member.pin("set")
    group.member.pin("set/a")
    group.member.set_policy("set/a", ttl_s=60.0)
    group.pull()
    assert {path: said.to_json() for path, said in group.client.policies("set").items()} == {
        "set/a": {"ttl_s": 60.0}
    }
    group.member.set_policy("set/a", ttl_s=30.0)
    group.pull()
    assert group.client.policy("set/a").ttl_s == 30.0


@pytest.mark.parametrize("is_first", [False, True], ids=["later", "first"])
def test_what_was_said_at_the_client_stays_until_it_is_taken_back(
    group: Group, data: str, is_first: bool
) -> None:
    group.member.attach("set", data, max_age=1.0)
    group.member.create_manifest("set", "v1", use=True)
    group.member.set_policy("set/a", ttl_s=60.0)
    group.member.set_policy("set/b", ttl_s=60.0)
    if is_first:
        group.client.attach("set", data, max_age=7.0)
        group.client.set_policy("set/a", skip=True)
    group.pull()
    if not is_first:
        group.client.attach("set", data, max_age=7.0)
        group.client.set_policy("set/a", ttl_s=None, skip=True)
        group.member.attach("set", data, max_age=2.0)
        group.member.set_policy("set/a", ttl_s=50.0)
        group.pull()
    (dataset,) = group.client.datasets()
    assert dataset.max_age == 7.0
    assert dataset.manifest == (None if is_first else "v1")
    assert group.client.policy("set/a").to_json() == {"skip": True}
    # What is not about its own comes all the same, and what was left aside is not sent again.
    assert group.client.policy("set/b").ttl_s == 60.0
    group.pull()
    assert group.told == []
    group.client.detach("set")
    group.pull()
    (dataset,) = group.client.datasets()
    assert dataset.max_age == (1.0 if is_first else 2.0)


def test_what_cannot_hold_yet_is_told_once_and_tried_again(
    group: Group, data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group.member.attach("set", data)
    (tmp_path / "data").rename(tmp_path / "away")
    assert group.pull() == group.pull() == 0
    assert len([record for record in caplog.records if "does not hold here" in record.message]) == 1
    (tmp_path / "away").rename(tmp_path / "data")
    assert group.pull() == 1


def test_what_was_taken_over_outlives_a_restart(group: Group, data: str) -> None:
    group.member.attach("set", data, max_age=1.0)
    group.pull()
    group.aside = Aside()
    assert group.pull() == 0
    assert group.told == []
    group.member.attach("set", data, max_age=2.0)
    assert group.pull() == 1
    assert group.client.datasets()[0].max_age == 2.0


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["the same", "another"])
def test_what_went_with_a_detached_dataset_comes_again_with_it(
    group: Group, data: str, tmp_path: Path, is_elsewhere: bool
) -> None:
    group.member.attach("set", data, max_age=1.0)
    group.member.set_policy("set/a", ttl_s=60.0)
    group.member.pin("set/b")
    group.member.create_manifest("set", "v1")
    group.pull()
    if is_elsewhere:
        # Within one look of the member, so that of policies nothing seems to have happened.
        (tmp_path / "other").mkdir()
        group.member.detach("set")
        group.member.attach("set", (tmp_path / "other").as_uri())
        group.member.set_policy("set/a", ttl_s=60.0)
    else:
        group.client.detach("set")
        group.member.attach("set", data, max_age=2.0)
    group.pull()
    group.pull()
    assert group.client.policy("set/a").ttl_s == 60.0
    assert [each.version for each in group.client.manifests("set")] == ([] if is_elsewhere else ["v1"])
    assert group.pull() == 0
    assert group.told == []

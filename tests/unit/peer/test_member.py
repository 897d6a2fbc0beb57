"""A member and a view: sound, or refused with the field's name; the same after a message."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.errors import ConfigError
from forebay.peer.member import EPOCH_MAX, Member, MemberState, View
from forebay.peer.proto import forebay_pb2 as messages
from tests.unit.peer._members import member, member_id


def full() -> Member:
    return Member(
        member_id(1), "[fd00::1]:7070", 7071, 2.5, "eu-1a", MemberState.LEAVING, (1 << 64) - 1, "node-1"
    )


def test_a_message_says_all() -> None:
    message = messages.Member.FromString(full().to_message().SerializeToString())
    assert Member.from_message(message) == full()


def test_a_view_is_sorted_and_its_message_says_all() -> None:
    view = View.of(7, [member(number) for number in range(20)])
    assert [m.id for m in view.members] == sorted(member_id(number) for number in range(20))
    assert View.from_message(messages.View.FromString(view.to_message().SerializeToString())) == view


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("id", "", "member id ''"),
        ("id", member_id(1).upper(), "member id"),
        ("id", member_id(1).replace("-", ""), "UUID in lower case"),
        ("address", "", "address ''"),
        ("address", "host", "host:port"),
        ("address", ":7070", "host:port"),
        ("address", "host:0", "host:port"),
        ("address", "host:65536", "host:port"),
        ("address", "host:" + "9" * 5000, "host:port"),
        ("address", "host:٣", "host:port"),
        ("address", "fd00::1:7070", "IPv6 address in brackets"),
        ("address", "ho st:7070", "host:port"),
        ("address", "h" * 256 + ":7070", "host:port"),
        ("address", "h" * 64 + ":7070", "host:port"),
        ("address", "h..i:7070", "host:port"),
        ("address", ".h:7070", "host:port"),
        ("address", "h]i:7070", "host:port"),
        ("address", "[]:7070", "host:port"),
        ("address", "h:007070", "host:port"),
        ("data_port", -1, "data_port -1"),
        ("data_port", 65536, "data_port 65536"),
        ("weight", 0.0, "weight 0.0 of member"),
        ("weight", -1.0, "weight -1.0"),
        ("weight", float("nan"), "weight nan"),
        ("weight", float("inf"), "weight inf"),
        ("weight", 1e300, "expected 0.0010 to 16384"),
        ("zone", "a\nb", "zone"),
        ("zone", "z" * 256, "255 bytes at most"),
        ("host", "\x1b[31m", "host"),
        ("incarnation", -1, "incarnation -1"),
        ("incarnation", 1 << 64, "incarnation"),
    ],
)
def test_what_cannot_be_is_refused_by_name(field: str, value: Any, words: str) -> None:
    fields: dict[str, Any] = {"id": member_id(1), "address": "host:7070"}
    with pytest.raises(ConfigError) as caught:
        Member(**fields | {field: value})
    assert words in str(caught.value)


def test_a_state_of_another_version_is_refused() -> None:
    message = full().to_message()
    message.state = 9  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="state 9 of member"):
        Member.from_message(message)


def test_a_member_twice_in_a_view_is_refused_with_both_addresses() -> None:
    message = messages.View(
        epoch=1, members=[member(1).to_message(), member(1, address="copy:7070").to_message()]
    )
    with pytest.raises(ConfigError, match=rf"{member_id(1)} is at host-1:7070 and at copy:7070"):
        View.from_message(message)


def test_a_view_of_too_many_members_is_refused_unread() -> None:
    message = messages.View(epoch=1, members=[messages.Member()] * 5000)
    with pytest.raises(ConfigError, match="5000 members, at most 4096"):
        View.from_message(message)


def test_an_epoch_that_no_group_reaches_is_refused() -> None:
    for epoch in (EPOCH_MAX + 1, (1 << 64) - 1):
        with pytest.raises(ConfigError, match=f"epoch {epoch} of a view"):
            View.from_message(messages.View(epoch=epoch))
    assert View.from_message(messages.View(epoch=EPOCH_MAX)).epoch == EPOCH_MAX

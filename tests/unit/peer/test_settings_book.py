"""The book of settings: what is new, what is newer, and that it outlives a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.errors import ConfigError
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.settings.book import FILE_NAME, Book
from forebay.peer.settings.items import Item, check_told, checked
from forebay.peer.settings.wire import Incoming

CONTENT = {"uri": "file:///data"}


def test_what_was_changed_here_gets_a_version_above_the_last(tmp_path: Path) -> None:
    book = Book(tmp_path, "one")
    assert book.note({"dataset/a": CONTENT}) == [Item("dataset/a", 1, "one", CONTENT)]
    assert book.note({"dataset/a": CONTENT}) == []
    assert book.note({"dataset/a": {"uri": "other"}}) == [Item("dataset/a", 2, "one", {"uri": "other"})]
    assert book.note({}) == [Item("dataset/a", 3, "one", None)]
    assert book.note({}) == []


def test_a_change_after_what_another_said_is_above_that(tmp_path: Path) -> None:
    book = Book(tmp_path, "one")
    book.take(Item("dataset/a", 7, "two", CONTENT))
    assert book.note({"dataset/a": CONTENT}) == []
    (changed,) = book.note({"dataset/a": {"uri": "other"}})
    assert changed.order == (8, "one")


def test_of_two_with_one_version_the_same_wins_everywhere(tmp_path: Path) -> None:
    one, two = Item("shown/a", 2, "one", {"manifest": "x"}), Item("shown/a", 2, "two", {"manifest": "y"})
    for number, order in enumerate(((one, two), (two, one))):
        folder = tmp_path / str(number)
        folder.mkdir()
        book = Book(folder, "me")
        for item in order:
            book.take(item)
        assert book.get("shown/a") == two


def test_somebody_is_told_what_he_does_not_know(tmp_path: Path) -> None:
    book = Book(tmp_path, "one")
    book.note({"dataset/a": CONTENT, "dataset/b": CONTENT})
    assert [item.key for item in book.newer_than({"dataset/a": (1, "one")})] == ["dataset/b"]
    assert [item.key for item in book.newer_than({"dataset/a": (1, "a"), "dataset/b": (2, "a")})] == [
        "dataset/a"
    ]


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    Book(tmp_path, "one").note({"dataset/a": CONTENT})
    again = Book(tmp_path, "one")
    assert again.note({"dataset/a": CONTENT}) == []
    assert again.items() == {"dataset/a": Item("dataset/a", 1, "one", CONTENT)}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "items": []}', '{"format": 1, "items": [{}]}']
)
def test_damage_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigError, match=FILE_NAME):
        Book(tmp_path, "one")


@pytest.mark.parametrize(
    ("key", "version", "writer", "content"),
    [
        ("", 1, "one", {}),
        ("other/a", 1, "one", {}),
        ("dataset/a/b", 1, "one", {}),
        ("policy/a", 1, "one", {}),
        ("manifest//v1", 1, "one", {}),
        ("dataset/" + 600 * "a", 1, "one", {}),
        ("dataset/a", 0, "one", {}),
        ("dataset/a", 1 << 63, "one", {}),
        ("dataset/a", True, "one", {}),
        ("dataset/a", 1, "", {}),
        ("dataset/a", 1, "one", []),
    ],
)
def test_what_another_says_is_held_to_its_form(
    key: object, version: object, writer: object, content: object
) -> None:
    with pytest.raises(ConfigError):
        checked(key, version, writer, content)


@pytest.mark.parametrize("version", [1 << 53, (1 << 63) - 1, (1 << 64) - 1])
def test_a_version_that_cannot_be_yet_is_refused_where_it_comes_in(version: int) -> None:
    told = pb.SettingVersion(key="dataset/a", version=version, writer="two")
    with Incoming() as incoming, pytest.raises(ConfigError, match=f"version {version} "):
        incoming.add(pb.Setting(version=told, is_deleted=True, is_last=True))


def test_whatever_version_is_believed_can_be_surpassed_a_moment_later(tmp_path: Path) -> None:
    now_s = 1.8e9
    greatest = Item("dataset/a", (1 << 40) + int(now_s * (1 << 20)), "zzz", CONTENT)
    check_told(greatest, now_s)
    book = Book(tmp_path, "one")
    book.take(greatest)
    (changed,) = book.note({"dataset/a": {"uri": "other"}})
    with pytest.raises(ConfigError, match="cannot be yet"):
        check_told(changed, now_s)
    check_told(changed, now_s + 1.0)
    assert Book(tmp_path, "one").get("dataset/a") == changed


def test_a_clock_that_stands_at_the_beginning_refuses_no_real_version() -> None:
    for now_s in (-1.0, 0.0):
        check_told(Item("dataset/a", 10**12, "one", CONTENT), now_s)

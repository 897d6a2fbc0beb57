"""Copies of many views at once."""

from __future__ import annotations

from typing import Literal

import pytest

from forebay.config import KIB, MIB
from forebay.store import View, copies
from tests.unit._stores import Stores, noise


@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_copies_are_what_the_views_show(stores: Stores, medium: Literal["MEM", "SSD"]) -> None:
    store = stores.open(stores.tier(medium=medium))
    blocks = [noise(size) for size in (100 * KIB, 0, 1, 100 * KIB, 250 * KIB, 4097)]
    for number, data in enumerate(blocks):
        assert store.put(b"%d" % number, data)
    views = store.get_many([b"%d" % number for number in range(len(blocks))])
    shown = [view for view in views if view is not None]
    found = copies([*shown, View.wrap(b"a wrapped one")])
    assert found == [*blocks, b"a wrapped one"]
    assert {type(each) for each in found} == {bytes}
    for view in shown:
        view.release()


def test_more_than_the_caches_hold() -> None:
    data = noise(MIB + 13)
    views = [View.wrap(memoryview(data)[start:]) for start in range(40)]
    assert copies(views) == [data[start:] for start in range(40)]


def test_no_views() -> None:
    assert copies([]) == []


def test_a_released_view_is_told_and_leaves_the_others_free() -> None:
    good, released = View.wrap(b"good"), View.wrap(b"released")
    released.release()
    with pytest.raises(ValueError, match="the view has been released"):
        copies([good, released])
    good.release()


def test_only_views_are_copied() -> None:
    with pytest.raises(TypeError):
        copies([b"bytes"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        copies([None])  # type: ignore[list-item]

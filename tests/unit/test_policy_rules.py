"""Policies: which word holds for a path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.cache.policies.policy import NAMES, NOTHING, Policy, checked
from forebay.cache.policies.rules import NO_RULES, Rules
from forebay.errors import ConfigError

PARTS = ("a", "b", "ab")
PATHS = st.lists(st.sampled_from(PARTS), max_size=4).map("/".join)
POLICIES = st.builds(
    Policy,
    pin=st.none() | st.booleans(),
    ttl_s=st.none() | st.sampled_from([0.0, 1.0, 2.0]),
    medium=st.none() | st.sampled_from(["MEM", "SSD"]),
)


def naive(policies: dict[str, Policy], path: str) -> dict[str, Any]:
    """Say field by field what the longest prefix says that says anything."""
    found: dict[str, Any] = dict.fromkeys(NAMES)
    parts = path.split("/") if path else []
    for count in range(len(parts) + 1):
        policy = policies.get("/".join(parts[:count]))
        if policy is not None:
            found |= policy.to_json()
    return found


@given(st.dictionaries(PATHS, POLICIES, max_size=6), PATHS)
def test_the_deepest_word_on_each_thing_holds(policies: dict[str, Policy], path: str) -> None:
    rules = Rules(policies)
    for _ in range(2):
        assert {name: getattr(rules.of(path), name) for name in NAMES} == naive(policies, path)


def test_a_name_that_begins_alike_is_another() -> None:
    rules = Rules({"a/b": Policy(pin=True)})
    assert rules.of("a/b").pin
    assert rules.of("a/b/c").pin
    assert rules.of("a/bc").pin is rules.of("a").pin is rules.of("").pin is None


def test_at_and_below_names_what_was_said() -> None:
    rules = Rules({"": Policy(pin=True), "a": Policy(), "a/b": Policy(), "ab": Policy()})
    assert list(rules.at_and_below("a")) == ["a", "a/b"]
    assert list(rules.at_and_below("")) == ["", "a", "a/b", "ab"]


def test_a_path_of_very_many_parts() -> None:
    path = "/".join("a" * 5_000)
    assert Rules({"a": Policy(pin=True)}).of(path).pin
    assert NO_RULES.of(path) == NOTHING


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pinned": True}, "no such field.*pin"),
        ({"pin": 1}, "neither true nor false"),
        ({"ttl_s": -1}, "0 or more"),
        ({"ttl_s": float("nan")}, "0 or more"),
        ({"max_age": "never"}, "immutable"),
        ({"retention": "lfu"}, "epoch, s3fifo, lru"),
        ({"medium": "TAPE"}, "MEM, SSD, HDD"),
        ({"read_bytes_max": "many"}, "read_bytes_max"),
    ],
)
def test_what_nobody_can_mean_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        checked(values)


def test_what_is_said_is_kept_as_it_is_meant() -> None:
    said = checked(
        {"pin": False, "read_bytes_max": "64KiB", "max_age": "immutable", "medium": "SSD", "ttl_s": None}
    )
    assert said == Policy(pin=False, read_bytes_max=65_536, max_age="immutable", medium="SSD")
    assert checked(said.to_json()) == said

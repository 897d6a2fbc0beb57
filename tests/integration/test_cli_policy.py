"""The commands for policies: what they say, refuse and print."""

from __future__ import annotations

import json

import pytest

from tests.integration._cli import Cli


def test_pin_ttl_unpin(attached: Cli) -> None:
    assert attached("cat", "d/a.bin").code == 0
    assert attached("pin", "d", "d/sub").lines == [
        "d: 1 cached blocks pinned",
        "d/sub: 0 cached blocks pinned",
    ]
    assert attached("policy", "list", "d").lines == ["d\tpin\tTrue", "d/sub\tpin\tTrue"]
    assert attached("ttl", "d", "60").lines == ["d: 1 cached blocks due"]
    assert attached("ttl", "d", "never").lines == ["d: 1 cached blocks due"]
    assert attached("unpin", "d").lines == ["d: 1 cached blocks unpinned"]
    assert attached("policy", "list", "d").lines == []


def test_set_show_clear(attached: Cli) -> None:
    said = attached(
        "policy", "set", "d/sub", "--small-reads", "1MiB", "--immutable", "--retention", "lru", "--json"
    )
    assert json.loads(said.out)["read_bytes_max"] == 1 << 20
    assert attached("policy", "show", "d/sub/c").lines == [
        "d/sub/c\tread_bytes_max\t1048576",
        "d/sub/c\tmax_age\timmutable",
        "d/sub/c\tretention\tlru",
    ]
    assert attached("policy", "show", "d/a.bin").lines == []
    assert attached("policy", "clear", "d").text == "cleared d\n"
    assert attached("policy", "show", "d/sub/c").lines == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ttl", "d", "soon"], 2, "neither seconds nor 'never'"),
        (["ttl", "d", "--", "-5"], 2, "0 or more"),
        (["policy", "set", "d"], 2, "nothing is said"),
        (["policy", "set", "d", "--immutable", "--max-age", "1"], 2, "exclude each other"),
        (["policy", "set", "d", "--retention", "mru"], 2, "epoch, s3fifo, lru"),
        (["pin", "e"], 1, "no dataset 'e'"),
        (["pin", "d", "/d"], 2, "absolute"),
    ],
)
def test_what_is_refused(attached: Cli, arguments: list[str], code: int, words: str) -> None:
    outcome = attached(*arguments)
    assert (outcome.code, words in outcome.err) == (code, True), outcome

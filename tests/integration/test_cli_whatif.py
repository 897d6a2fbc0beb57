"""The command whatif, and what-if of traces that a real cache recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import forebay
from forebay.config import KIB
from forebay.whatif import what_if
from tests.integration._cli import Cli
from tests.integration._sites import OpenCache, write_files

BLOCK = 64 * KIB


@pytest.fixture
def recorded(attached: Cli) -> Cli:
    """The command line, with a trace of two objects, each read twice."""
    with forebay.open() as cache, cache.record("t", manifests=False):
        for name in ("sub/b.bin", "a.bin") * 2:
            cache.read(f"d/{name}").release()
    return attached


def test_of_a_real_trace(open_cache: OpenCache, tmp_path: Path) -> None:
    write_files(tmp_path / "data", {"small": bytes(1_000), "large": bytes(2 * BLOCK + 5)})
    cache = open_cache()
    cache.attach("d", (tmp_path / "data").as_uri(), max_age=None)
    with cache.record("t") as trace:
        for _ in range(4):
            for name in ("small", "large"):
                cache.read(f"d/{name}").release()
    found = what_if(trace, ["4MiB"])
    assert (found.accesses, found.reads, found.distinct_bytes) == (8, 16, 1_000 + 2 * BLOCK + 5)
    assert {estimate.hit_ratio for estimate in found.estimates} == {0.75}


def test_whatif(recorded: Cli, tmp_path: Path) -> None:
    outcome = recorded("whatif", "t", "--sizes", "4MiB,1GiB")
    assert [line.split("\t") for line in outcome.lines] == [
        ["4.0 MiB", "4095.6 %", "50.0 %", "50.0 %", "50.0 %"],
        ["1.0 GiB", "1048473.6 %", "50.0 %", "50.0 %", "50.0 %"],
    ]
    assert "4 blocks read, 200.0 KiB; 100.0 KiB without those read again" in outcome.err
    folder = str(tmp_path / "cache/v1/meta/traces/t")
    picture = tmp_path / "a.png"
    outcome = recorded("whatif", folder, "--retention", "lru", "--plot", str(picture), "--json")
    assert {each["retention"] for each in json.loads(outcome.out)["estimates"]} == {"lru"}
    assert picture.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["whatif", "absent"], 1, "no trace 'absent'; see `forebay trace list`"),
        (["whatif", "/absent/trace"], 1, "/absent/trace/about: No such file"),
        (["whatif", "t", "--sizes", "1KiB"], 2, "below the smallest tier"),
        (["whatif", "t", "--retention", "fifo"], 2, "'fifo' is not one of"),
    ],
)
def test_what_goes_wrong(recorded: Cli, arguments: list[str], code: int, words: str) -> None:
    outcome = recorded(*arguments)
    assert (outcome.code, words in outcome.err) == (code, True), outcome.err

"""Configuration: sizes, tiers, defaults, and what is said when they are wrong."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import config
from forebay.config import GIB, KIB, MIB, Medium, Tier, parse_bytes, validate_tiers
from forebay.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (0, 0),
        (1234, 1234),
        ("0", 0),
        ("1048576", MIB),
        ("512B", 512),
        ("64K", 64 * KIB),
        ("4GiB", 4 * GIB),
        ("4 gib", 4 * GIB),
        ("500MB", 500_000_000),
        ("1.5TiB", 3 << 39),
        ("0.5k", 512),
        ("2P", 2 << 50),
    ],
)
def test_sizes(text: int | str, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "4 Gi", "7 7", "4GiBs", "0x10", "1e9", "nan", "1.0000001K", "४"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="quota: "):
        parse_bytes(text, "quota")


@pytest.mark.parametrize("value", [-1, True, None, 1.5, b"4GiB", ["4GiB"]])
def test_what_is_not_even_text(value: Any) -> None:
    with pytest.raises(ConfigError, match="quota: "):
        parse_bytes(value, "quota")


@given(st.integers(0, 1 << 60), st.sampled_from(["", "K", "KiB", "KB", "M", "GiB", "TB"]))
def test_sizes_are_exact(count: int, unit: str) -> None:
    scale = {"": 1, "K": KIB, "KiB": KIB, "KB": 1000, "M": MIB, "GiB": GIB, "TB": 10**12}[unit]
    assert parse_bytes(f"{count}{unit}") == count * scale


def test_a_tier_is_brought_into_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tier = Tier("a/../b", "4GiB", "mem")  # type: ignore[arg-type]  # as from a configuration file
    assert dataclasses.astuple(tier) == (str(tmp_path / "b"), 4 * GIB, "MEM", 0.95, 0.90)
    assert tier.quota_bytes == 4 * GIB
    assert tier == Tier(str(tmp_path / "b"), 4 * GIB, "MEM")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"path": ""}, "names no directory"),
        ({"path": "a\0b"}, "names no directory"),
        ({"path": 7}, "expected text"),
        ({"quota": 0}, "quota is zero"),
        ({"quota": "much"}, "'much' is no size"),
        ({"medium": "SDD"}, "did you mean 'SSD'"),
        ({"medium": None}, "media are MEM, SSD, HDD"),
        ({"high": 0.5, "low": 0.6}, "low watermark 0.6 is above high watermark 0.5"),
        ({"high": 95}, "high: 95 is no share"),
        ({"low": 0}, "low: 0 is no share"),
        ({"low": float("nan")}, "low: nan is no share"),
    ],
)
def test_tiers_that_make_no_sense(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Tier(**{"path": "/nvme/t", "quota": "1GiB", **fields})


def test_tiers_from_the_command_line() -> None:
    assert Tier.parse("/nvme/a:200GiB") == Tier("/nvme/a", 200 * GIB, "SSD")
    assert Tier.parse("/dev/shm/a:4GiB:mem") == Tier("/dev/shm/a", 4 * GIB, "MEM")
    assert Tier.parse("/odd:name/a:4GiB:HDD") == Tier("/odd:name/a", 4 * GIB, "HDD")


@pytest.mark.parametrize("text", ["", "/nvme/a", ":4GiB", "/nvme/a:4GiB:TAPE", "/nvme/a:"])
def test_bad_tiers_from_the_command_line(text: str) -> None:
    with pytest.raises(ConfigError, match="tier"):
        Tier.parse(text)


def test_tiers_are_ordered_by_speed(tmp_path: Path) -> None:
    media: dict[str, Medium] = {"h": "HDD", "a": "SSD", "m": "MEM", "b": "SSD"}
    tiers = [Tier(str(tmp_path / name), MIB, medium) for name, medium in media.items()]
    assert [Path(tier.path).name for tier in validate_tiers(tiers)] == ["m", "a", "b", "h"]


@pytest.mark.parametrize(("first", "second"), [("t", "t"), ("t", "t/inner"), ("t/inner", "t"), ("t", "link")])
def test_overlapping_tiers(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "link").symlink_to("t")
    with pytest.raises(ConfigError, match="overlap"):
        validate_tiers([Tier(str(tmp_path / first), MIB), Tier(str(tmp_path / second), MIB, "MEM")])


def test_neighbours_do_not_overlap(tmp_path: Path) -> None:
    tiers = [Tier(str(tmp_path / name), MIB) for name in ("tier", "tier2")]
    assert len(validate_tiers(tiers)) == 2


def test_no_tiers_at_all() -> None:
    with pytest.raises(ConfigError, match="no tiers"):
        validate_tiers([])


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert config.default_cache_dir({}) == "/var/cache/forebay"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    assert config.default_cache_dir({}) == "/home/u/.cache/forebay"
    assert config.default_cache_dir({"XDG_CACHE_HOME": "/x"}) == "/x/forebay"
    assert config.default_cache_dir({"XDG_CACHE_HOME": "relative"}) == "/home/u/.cache/forebay"


def test_default_tiers_are_modest_and_valid(tmp_path: Path) -> None:
    tiers = config.default_tiers(str(tmp_path / "not" / "yet" / "there"))
    assert tiers == validate_tiers(tiers)
    for tier in tiers:
        assert 0 < tier.quota_bytes <= (GIB if tier.medium == "MEM" else 64 * GIB)
    assert list(tmp_path.iterdir()) == []


def test_default_tiers_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_free_bytes", lambda path: 100 * MIB if path == tmp_path else 0)
    (tier,) = config.default_tiers(str(tmp_path))
    assert (tier.medium, tier.quota_bytes) == ("SSD", 50 * MIB)
    monkeypatch.setattr(config, "_free_bytes", lambda path: 0)
    with pytest.raises(ConfigError, match="no free space"):
        config.default_tiers(str(tmp_path))


def test_this_platform_will_do() -> None:
    config.check_platform()


@pytest.mark.parametrize(
    ("module", "name", "value", "words"),
    [
        (sys, "platform", "darwin", "Linux 5.14 or newer"),
        (platform, "release", lambda: "5.10.0-8-amd64", "Linux 5.14 or newer; this is .* 5.10.0"),
        (platform, "release", lambda: "unknown", "Linux 5.14"),
        (platform, "machine", lambda: "i686", "64-bit x86-64 or arm64 machine; this is .* i686"),
        (sys, "byteorder", "big", "64-bit"),
        (platform, "python_implementation", lambda: "PyPy", "CPython 3.11"),
    ],
)
def test_other_platforms_are_told_what_they_lack(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, words: str
) -> None:
    monkeypatch.setattr(module, name, value)
    with pytest.raises(ConfigError, match=words):
        config.check_platform()

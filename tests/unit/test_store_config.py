"""How a store is opened: what is refused, and with which words; what is remembered; how tiers share."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from forebay.config import GIB, KIB, MIB
from forebay.errors import ConfigError
from forebay.store import BlockStore, Tier
from tests.unit._stores import Stores, maintain, noise, rebuilt


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checksums": "load"}, "unknown option 'checksums' (did you mean 'checksum'?)"),
        ({"block_size": MIB}, "unknown option 'block_size' (did you mean 'block_bytes'?)"),
        ({"zzz": 1}, "unknown option 'zzz'; options are checksum, disk_views"),
        ({"checksum": "always"}, "checksum: 'always' is not one of none, load, read"),
        ({"disk_views": None}, "disk_views: None is not one of copy, map"),
        ({"block_bytes": 32 * KIB}, "not a power of two from 64 KiB to 64 MiB"),
        ({"block_bytes": "3MiB"}, "not a power of two from 64 KiB to 64 MiB"),
        ({"block_bytes": "128MiB"}, "not a power of two from 64 KiB to 64 MiB"),
        ({"block_bytes": "large"}, "block_bytes: 'large' is no size"),
        ({"max_held_bytes": -1}, "max_held_bytes: -1 is negative"),
        ({"stall_timeout_s": 0}, "stall_timeout_s: 0 is not a number from 0.1 to 3600"),
        ({"stall_timeout_s": "5"}, "stall_timeout_s: '5' is not a number"),
        ({"rows": 1}, "rows: 1 is not a number from 2 to 4096"),
        ({"rows": 4097}, "rows: 4097 is not a number from 2 to 4096"),
        ({"rows": True}, "rows: True is not a number"),
        ({"shared_group": "no such group"}, "no group 'no such group' on this host"),
        ({"promote_bytes_per_second": "x"}, "promote_bytes_per_second: 'x' is no size"),
    ],
)
def test_options_that_cannot_be(stores: Stores, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        stores.open(**options)
    assert words in str(refused.value)
    assert not stores.path.exists()


def test_a_new_cache_asks_for_tiers(stores: Stores) -> None:
    with pytest.raises(ConfigError, match="no tiers given and none remembered") as refused:
        stores.reopen()
    assert str(stores.path) in str(refused.value)
    with pytest.raises(ConfigError, match="at least one directory with a quota"):
        BlockStore(stores.path, [])


def test_tiers_that_overlap_are_refused(stores: Stores, tmp_path: Path) -> None:
    outer, inner = Tier(str(tmp_path / "a"), MIB * 64), Tier(str(tmp_path / "a" / "b"), MIB * 64)
    for tiers in ([outer, inner], [inner, outer], [outer, outer]):
        with pytest.raises(ConfigError, match="overlap; give each a directory of its own"):
            BlockStore(stores.path, tiers)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="overlap"):
        BlockStore(stores.path, [outer, Tier(str(tmp_path / "link"), MIB * 64)])


def test_more_tiers_than_there_may_be(stores: Stores, tmp_path: Path) -> None:
    tiers = [Tier(str(tmp_path / str(number)), 64 * MIB) for number in range(17)]
    with pytest.raises(ConfigError, match="17 tiers, at most 16"):
        BlockStore(stores.path, tiers)
    with BlockStore(stores.path, tiers[:16], maintainer=False) as store:
        assert len(store.status()["tiers"]) == 16


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"])
def test_a_path_that_cannot_be(stores: Stores, path: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=r"at most 255 bytes and no zero|null byte"):
        BlockStore(path, [stores.tier()])


def test_a_tier_below_the_smallest(stores: Stores) -> None:
    with pytest.raises(ConfigError, match="quota of 4194303 bytes is below the smallest, 4 MiB"):
        stores.open(stores.tier(4 * MIB - 1))
    store = stores.open(stores.tier(4 * MIB))
    assert store.put(b"k", b"value")


def test_tiers_are_remembered(stores: Stores) -> None:
    tiers = (stores.tier(32 * MIB, high=0.8, low=0.7), stores.tier(64 * MIB, "SSD"))
    store = stores.open(*tiers, rows=7, block_bytes=128 * KIB)
    store.put(b"k", b"value")
    for _ in range(2):
        other = stores.reopen()
        assert other.get(b"k") == b"value"
        assert other.block_bytes == 128 * KIB
        status = other.status()
        assert status["rows"]["max"] == 7
        assert [(tier["path"], tier["quota_bytes"], tier["medium"]) for tier in status["tiers"]] == [
            (tier.path, tier.quota_bytes, tier.medium) for tier in tiers
        ]
        stores.close()
    assert stores.open(*tiers).get(b"k") == b"value"
    assert stores.open(*reversed(tiers)).get(b"k") == b"value"


@pytest.mark.parametrize("others", ["have it open", "have left"])
def test_other_tiers_than_those_of_the_cache_are_refused_with_both(stores: Stores, others: str) -> None:
    store = stores.open(stores.tier(32 * MIB))
    store.put(b"k", b"value")
    if others == "have left":
        store.close()
    cases = [
        ([stores.tier(64 * MIB)], f"({64 * MIB} bytes, MEM, 950/900 permille), but it was made as"),
        ([stores.tier(32 * MIB, "SSD")], f"({32 * MIB} bytes, SSD"),
        ([stores.tier(32 * MIB, name="other")], "other-MEM"),
        ([stores.tier(32 * MIB, high=0.9)], "900/900 permille"),
        ([stores.tier(32 * MIB), stores.tier(medium="SSD")], "opened with 2 tiers, but it was made with 1"),
    ]
    for tiers, words in cases:
        with pytest.raises(ConfigError) as refused:
            stores.open(*tiers)
        assert words in str(refused.value)
        assert str(stores.path) in str(refused.value)
    assert stores.reopen().get(b"k") == b"value"
    assert not Path(stores.tier(name="other").path).exists()


def test_a_tier_belongs_to_one_cache(stores: Stores) -> None:
    store = stores.open()
    store.put(b"k", b"value")
    with pytest.raises(ConfigError, match="belongs to the cache at") as refused:
        stores.open(path=stores.path.with_name("other"))
    assert str(stores.path) in str(refused.value)
    assert store.get(b"k") == b"value"
    assert store.check().ok


def committed(store: BlockStore) -> list[int]:
    return [number for number in range(500) if store.get(b"%d" % number) == noise(100_000, number)]


def test_reshape_changes_quotas_while_nobody_else_has_it_open(stores: Stores) -> None:
    """Both tiers have segments of one size, so that what was cached is kept."""
    store = stores.open(stores.tier(32 * MIB))
    for number in range(500):
        store.put(b"%d" % number, noise(100_000, number))
    before = committed(store)
    assert len(before) > 200
    with pytest.raises(OSError, match="cannot change while others have the cache open") as refused:
        stores.open(stores.tier(64 * MIB), reshape=True)
    assert refused.value.errno == errno.EBUSY
    store.close()
    store = rebuilt(stores.open(stores.tier(64 * MIB), reshape=True))
    assert store.status()["tiers"][0]["quota_bytes"] == 64 * MIB
    assert committed(store) == before
    for number in range(len(before), 500):
        assert store.put(b"%d" % number, noise(100_000, number))
    assert len(committed(store)) == 500
    store.close()
    assert stores.reopen().status()["tiers"][0]["quota_bytes"] == 64 * MIB


def test_reshape_to_less_takes_no_more_room_than_that(stores: Stores) -> None:
    tier = stores.tier(64 * MIB, "SSD")
    store = stores.open(tier)
    for number in range(600):
        store.put(b"%d" % number, noise(100_000, number))
    store.close()
    store = rebuilt(stores.open(stores.tier(32 * MIB, "SSD"), reshape=True))
    kept = committed(store)
    assert len(kept) > 200
    files = list(Path(tier.path).rglob("seg-*"))
    assert sum(file.stat().st_size for file in files) <= 32 * MIB
    assert len(files) * store.status()["tiers"][0]["segment_bytes"] <= 32 * MIB
    assert store.check().ok


def test_reshape_adds_and_drops_tiers(stores: Stores) -> None:
    store = stores.open(stores.tier(32 * MIB))
    store.put(b"k", b"value")
    store.close()
    store = rebuilt(stores.open(stores.tier(32 * MIB), stores.tier(64 * MIB, "SSD"), reshape=True))
    assert store.get(b"k") == b"value"
    assert len(store.status()["tiers"]) == 2
    store.close()
    store = rebuilt(stores.open(stores.tier(64 * MIB, "SSD"), reshape=True))
    assert [tier["medium"] for tier in store.status()["tiers"]] == ["SSD"]
    assert store.put(b"k", b"again")
    assert store.check().ok


def test_reshape_of_what_is_as_it_should_be_keeps_everything(stores: Stores) -> None:
    store = stores.open()
    store.put(b"k", b"value")
    store.close()
    store = stores.open(reshape=True)
    assert not store.status()["index"]["rebuilding"]
    assert store.get(b"k") == b"value"


@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_unequal_directories_of_one_medium_share_in_proportion(stores: Stores, medium: str) -> None:
    quotas = (16 * MIB, 32 * MIB, 96 * MIB)
    tiers = [
        stores.tier(quota, "MEM" if medium == "MEM" else "SSD", name=str(number))
        for number, quota in enumerate(quotas)
    ]
    store = stores.open(*tiers)
    assert [tier["level"] for tier in store.status()["tiers"]] == [0, 0, 0]
    for number in range(3000):
        assert store.put(b"%d" % number, noise(20_000, number % 10))
    shares = [tier["committed_blocks"] / 3000 for tier in store.status()["tiers"]]
    for quota, share in zip(quotas, shares, strict=True):
        assert share == pytest.approx(quota / sum(quotas), abs=0.03)


def test_when_one_directory_is_full_the_others_of_its_level_take_its_share(stores: Stores) -> None:
    tiers = [stores.tier(8 * MIB, name="small"), stores.tier(24 * MIB, name="large")]
    store = stores.open(*tiers)
    admitted = 0
    while store.put(b"%d" % admitted, noise(20_000, admitted % 10)):
        admitted += 1
    used = [tier["committed_bytes"] / tier["quota_bytes"] for tier in store.status()["tiers"]]
    assert min(used) > 0.8


def test_levels_are_filled_from_the_fastest_on(stores: Stores) -> None:
    hdd = stores.tier(64 * MIB, "HDD")
    store = stores.open(hdd, stores.tier(16 * MIB), stores.tier(32 * MIB, "SSD"))
    assert [(tier["medium"], tier["level"]) for tier in store.status()["tiers"]] == [
        ("MEM", 0),
        ("SSD", 1),
        ("HDD", 2),
    ]
    for number in range(1000):
        assert store.put(b"%d" % number, noise(50_000, number % 10))
    assert all(tier["committed_blocks"] > 0 for tier in store.status()["tiers"])
    for number in range(1000):
        assert store.get(b"%d" % number) == noise(50_000, number % 10)
    counters = store.status()["counters"]
    hits = [counters[f"hits_{medium}"] for medium in ("mem", "ssd", "hdd")]
    assert hits == [tier["committed_blocks"] for tier in store.status()["tiers"]]


@pytest.mark.parametrize(
    ("quota", "block_bytes", "data_bytes"),
    [
        (4 * MIB, 64 * KIB, MIB),
        (64 * MIB, 4 * MIB, 4 * MIB),
        (64 * MIB, 64 * KIB, MIB),
        (4 * GIB, 64 * KIB, 8 * MIB),
        (200 * GIB, 4 * MIB, 256 * MIB),
        (1024 * GIB, 4 * MIB, 256 * MIB),
    ],
)
def test_segments_are_a_512th_of_the_quota_as_a_power_of_two(
    stores: Stores, quota: int, block_bytes: int, data_bytes: int
) -> None:
    store = stores.open(stores.tier(quota), block_bytes=block_bytes)
    segment_bytes = store.status()["tiers"][0]["segment_bytes"]
    assert data_bytes <= segment_bytes < data_bytes * 1.02
    assert store.put(b"k", bytes(64 * KIB))


def test_a_path_may_be_anything_that_names_a_folder(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = stores.open(path=Path("relative"))
    assert store.path == str(tmp_path / "relative")
    store.put(b"k", b"value")
    store.close()
    odd = BlockStore(tmp_path / "näme with spaces" / "x", [stores.tier(name="other")], maintainer=False)
    with odd:
        assert odd.put(b"k", b"value")


def test_what_is_no_tier_is_a_type_error_or_names_itself(stores: Stores) -> None:
    with pytest.raises((AttributeError, TypeError)):
        BlockStore(stores.path, ["/tmp:1GiB"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        BlockStore(None, [stores.tier()])  # type: ignore[arg-type]


def test_a_new_cache_may_take_the_tier_of_one_that_is_gone(stores: Stores) -> None:
    store = stores.open()
    store.put(b"k", b"value")
    store.close()
    for file in sorted(stores.path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    store = stores.open()
    assert store.get(b"k") is None
    maintain(store, lambda: store.status()["tiers"][0]["used_bytes"] == 0)
    assert store.put(b"k", b"new")

"""What-if: the figures of the store, the play against a slow model of it, samples, arguments, the picture."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.cache import RETENTIONS, Access, Trace
from forebay.cache.record.traces import Traces
from forebay.config import KIB, MIB, Tier
from forebay.errors import ConfigError
from forebay.store import BlockStore
from forebay.whatif import plot, what_if
from forebay.whatif.geometry import geometry_of
from forebay.whatif.reads import Reads
from forebay.whatif.tier import EpochTier, LruTier, S3FifoTier
from tests.unit._slow_tier import SlowTier

TIERS: dict[str, type[Any]] = {"epoch": EpochTier, "lru": LruTier, "s3fifo": S3FifoTier}


def whole(name: object, size: int) -> Access:
    return Access(0, f"d/{name}", 0, size, size)


def record(folder: Path, accesses: list[Access], block_bytes: int = 64 * KIB) -> Trace:
    """Make a trace of these accesses."""
    folder.mkdir(exist_ok=True)
    traces = Traces(folder / "traces", block_bytes)
    with traces.begin("t", 256 * MIB):
        recorder = traces.join("t")
        assert recorder is not None
        for _, path, offset, length, size in accesses:
            recorder.note(path, offset, length, size)
        recorder.close()
    return traces.find("t")


@pytest.mark.parametrize("quota", [4 * MIB, 5_000_000, 64 * MIB, 100 * MIB + 1, 3 << 30])
@pytest.mark.parametrize("block_bytes", [64 * KIB, 4 * MIB])
def test_segments_are_those_of_the_store(
    tmp_path: Path, memory_path: Path, quota: int, block_bytes: int
) -> None:
    tiers = [Tier(str(memory_path), quota, "MEM")]
    with BlockStore(tmp_path / "cache", tiers, block_bytes=block_bytes) as store:
        assert geometry_of(quota, block_bytes).end_bytes == store.status()["tiers"][0]["segment_bytes"]


def test_a_segment_holds_as_many_records_as_one_of_the_store(tmp_path: Path, memory_path: Path) -> None:
    draw = random.Random(3)
    sizes = [draw.choice([1, 63, 8_000, 64 * KIB - 1, 64 * KIB]) for _ in range(4_000)]
    reads = Reads([whole(number, size) for number, size in enumerate(sizes)], 64 * KIB)
    quota = 16 * MIB
    with BlockStore(
        tmp_path / "cache", [Tier(str(memory_path), quota, "MEM")], block_bytes=64 * KIB, maintainer=False
    ) as store:
        admitted = sum(store.put(b"%d" % number, bytes(size)) for number, size in enumerate(sizes))
    again = Reads([*(whole(n, size) for n, size in enumerate(sizes))] * 2, 64 * KIB)
    tier = EpochTier(geometry_of(quota, 64 * KIB), again)
    tier.play()
    assert len(again.blocks) - tier.missed == admitted
    assert len(reads.blocks) == len(sizes)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1_000_000),
    retention=st.sampled_from(RETENTIONS),
    quota=st.sampled_from([4 * MIB, 6 * MIB, 12 * MIB, 30 * MIB]),
    objects=st.integers(1, 1_500),
)
def test_the_play_is_that_of_a_slow_model(seed: int, retention: str, quota: int, objects: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.choice([1_000, 20_000, 64 * KIB, 100_000]) for _ in range(objects)]
    accesses = [whole(n, sizes[n]) for n in (int(objects * draw.random() ** 2) for _ in range(3_000))]
    reads = Reads(accesses, 128 * KIB)
    tier = TIERS[retention](geometry_of(quota, 128 * KIB), reads)
    tier.play()
    slow = SlowTier(quota, 128 * KIB, retention)
    missed = [not slow.read(block, reads.lengths[block]) for block in reads.blocks]
    assert tier.missed == sum(missed)
    lengths = [reads.lengths[block] for block in reads.blocks]
    assert tier.missed_bytes == sum(length for length, miss in zip(lengths, missed, strict=True) if miss)


def test_blocks_of_parts_of_objects() -> None:
    block = 64 * KIB
    size = 3 * block + 10
    reads = Reads(
        [
            Access(0, "d/a", 0, size, size),
            Access(1, "d/a", block - 1, 2, size),
            Access(2, "d/a", 3 * block, 10, size),
            Access(3, "d/a", size, 0, size),
            Access(4, "d/empty", 0, 0, 0),
            Access(5, "d/a", 0, 5, size + 1),
        ],
        block,
    )
    assert list(reads.blocks) == [0, 1, 2, 3, 0, 1, 3, 4]
    assert list(reads.lengths) == [block, block, block, 10, block]
    assert list(reads.counts) == [2, 2, 1, 2, 1]
    assert (reads.accesses, reads.total, reads.rate) == (6, 8, 1.0)
    assert reads.distinct_bytes == 4 * block + 10
    assert reads.total_bytes == 6 * block + 20


def test_a_sample_tells_about_the_same_and_is_bounded(tmp_path: Path) -> None:
    draw = random.Random(5)
    numbers = [n for _ in range(6) for n in draw.sample(range(10_000), 10_000)]
    popular = draw.choices(range(10_000), [1 / (rank + 1) for rank in range(10_000)], k=60_000)
    for accesses in (numbers, popular):
        trace = record(tmp_path / str(accesses[0]), [whole(n, 20_000) for n in accesses])
        full = what_if(trace, ["20%", "60%"])
        sampled = what_if(trace, full.sizes, reads_max=20_000)
        assert full.rate == 1
        assert sampled.rate < 1
        assert (sampled.reads, sampled.accesses) == (full.reads, full.accesses)
        assert sampled.distinct_bytes == pytest.approx(full.distinct_bytes, rel=0.1)
        for one, other in zip(sampled.estimates, full.estimates, strict=True):
            assert one.retention == other.retention
            assert one.hit_ratio == pytest.approx(other.hit_ratio, abs=0.05)
            assert one.byte_hit_ratio == pytest.approx(one.hit_ratio, abs=0.001)
    assert len(Reads((whole(n % 5_000, 9) for n in range(50_000)), 64 * KIB, 1_000).blocks) <= 1_000


def test_one_epoch_hits_nothing_and_a_large_cache_everything_that_comes_again(tmp_path: Path) -> None:
    once = record(tmp_path / "once", [whole(n, 100_000) for n in range(200)])
    assert {estimate.hit_ratio for estimate in what_if(once).estimates} == {0.0}
    twice = record(tmp_path / "twice", [whole(n, 60_000) for n in range(200)] * 2)
    assert {estimate.hit_ratio for estimate in what_if(twice, ["1GiB"]).estimates} == {0.5}


def test_sizes(tmp_path: Path) -> None:
    trace = record(tmp_path, [whole(n, 60_000) for n in range(400)])
    found = what_if(trace, ["50%", 8 * MIB, "8MiB", "1GB"], ["lru"])
    assert found.sizes == [8 * MIB, 12_000_000, 1_000_000_000]
    assert [estimate.size_bytes for estimate in found.of("lru")] == found.sizes
    assert found.of("epoch") == []
    # The smallest tier is larger than some of the shares that are taken by default.
    assert what_if(trace).sizes[0] == 4 * MIB
    for sizes, message in (
        (["1MiB"], "below the smallest tier, 4 MiB"),
        (["much"], "is no size"),
        (["x%"], "is no share"),
        (["nan%"], "is no share"),
        (["-50%"], "below"),
        ([], "at least one"),
    ):
        with pytest.raises(ConfigError, match=message):
            what_if(trace, sizes)


def test_other_arguments_that_make_no_sense(tmp_path: Path) -> None:
    trace = record(tmp_path, [whole("empty", 0)])
    with pytest.raises(ConfigError, match=r"'fifo' is unknown.*s3fifo"):
        what_if(trace, retentions=["fifo"])
    with pytest.raises(ConfigError, match="nothing is read in it"):
        what_if(trace)


def test_json(tmp_path: Path) -> None:
    found = what_if(record(tmp_path, [whole(0, 10)] * 4), ["4MiB"], ["epoch"]).to_json()
    expected: dict[str, Any] = {
        "trace": "t",
        "block_bytes": 64 * KIB,
        "accesses": 4,
        "reads": 4,
        "read_bytes": 40,
        "distinct_bytes": 10,
        "rate": 1.0,
        "estimates": [
            {"retention": "epoch", "size_bytes": 4 * MIB, "hit_ratio": 0.75, "byte_hit_ratio": 0.75}
        ],
    }
    assert found == expected


def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = what_if(record(tmp_path, [whole(n, 60_000) for n in range(200)] * 2))
    plot(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"a\.what: "):
        plot(found, tmp_path / "a.what")
    with pytest.raises(FileNotFoundError):
        plot(found, tmp_path / "absent/a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'forebay\[plot\]'"):
        plot(found, tmp_path / "b.png")
